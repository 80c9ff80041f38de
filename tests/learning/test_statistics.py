"""What training changes without being a parameter (statistics), and what it does not change (constants)."""

from typing import cast

import attrs
import pytest
import torch

from crowd.learning import replica
from crowd.learning.encoding import decode, encode, encoded_bytes, with_feedback
from crowd.learning.feedback import Feedback
from crowd.learning.replica import Layout, ReplicaState
from crowd.learning.work import prepare
from crowd.planning.plan import Encoding, Outer, OuterKind
from tests.learning.nets import CLASSES, FEATURES, A, dataset, make_task, normalised, separable

NESTEROV = Outer(kind=OuterKind.NESTEROV, rate_ppm=700_000, momentum_ppm=900_000)


class Masked(torch.nn.Module):
    """Adds a causal mask that it keeps as a buffer, and counts its batches in a statistic of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(FEATURES, FEATURES)
        self.outer = torch.nn.Linear(FEATURES, CLASSES)
        self.register_buffer("mask", torch.full((FEATURES, FEATURES), -torch.inf).triu(1))
        self.register_buffer("positions", torch.arange(FEATURES))
        self.register_buffer("mean", torch.zeros(FEATURES))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean = 0.9 * self.get_buffer("mean") + 0.1 * inputs.detach().mean(dim=0)
        weights = torch.softmax(self.inner.weight + self.get_buffer("mask"), dim=1)
        return cast(torch.Tensor, self.outer((inputs - self.get_buffer("mean")) @ weights.T + self.inner.bias))


def next_state(state: ReplicaState, delta: torch.Tensor, outer: Outer) -> ReplicaState:
    counters = state.counters
    return replica.apply(state, outer, delta, samples=1, epochs_ppb=0, counters=counters, streak=0, finished=False)


def test_only_what_training_changes_is_part_of_the_state() -> None:
    layout = prepare(make_task(model=Masked), device=A, data_epoch=0).layout
    assert layout.statistics == ("mean",)
    assert layout.counters == ()
    assert layout.elements - layout.parameters == FEATURES


def test_the_statistics_of_batch_normalisation_are_known_whether_or_not_a_batch_changes_them() -> None:
    layout = Layout.of(normalised(), ())
    assert layout.statistics == ("1.running_mean", "1.running_var")
    assert layout.counters == ("1.num_batches_tracked",)
    assert layout.variances == ((layout.elements - 8, layout.elements),)
    assert prepare(make_task(), device=A, data_epoch=0).layout == layout


def test_a_constant_stays_as_the_network_has_it_through_states_and_files() -> None:
    task = make_task(model=Masked)
    layout = prepare(task, device=A, data_epoch=0).layout
    model = Masked()
    state = replica.initial(model, 1, layout)
    other = Masked()
    replica.load(other, attrs.evolve(state, vector=state.vector + 1))
    assert torch.equal(other.get_buffer("mask"), model.get_buffer("mask"))
    assert torch.equal(other.get_buffer("positions"), torch.arange(FEATURES))
    assert torch.equal(other.get_buffer("mean"), torch.ones(FEATURES))


@pytest.mark.parametrize("outer", [Outer(rate_ppm=700_000), NESTEROV])
def test_statistics_take_the_plain_mean_and_no_outer_step(outer: Outer) -> None:
    state = replica.initial(normalised(), 1, Layout.of(normalised(), ()))
    border = state.layout.parameters
    for _ in range(3):
        delta = torch.randn(state.vector.numel(), generator=torch.Generator().manual_seed(1)).abs()
        after = next_state(state, delta, outer)
        assert torch.equal(after.vector[border:], state.vector[border:] + delta[border:])
        assert not torch.equal(after.vector[:border], state.vector[:border] + delta[:border])
        state = after


def test_a_variance_is_never_negative_however_its_mean_was_weighted() -> None:
    state = replica.initial(normalised(), 1, Layout.of(normalised(), ()))
    (span,) = state.layout.variances
    delta = torch.zeros(state.vector.numel())
    delta[slice(*span)] = -1.0000001 * state.vector[slice(*span)]
    after = next_state(state, delta, NESTEROV)
    assert torch.equal(after.vector[slice(*span)], torch.zeros(8))


@pytest.mark.parametrize("encoding", [Encoding.BLOCKWISE8, Encoding.FLOAT16])
def test_statistics_of_very_different_size_travel_exactly_beside_encoded_parameters(encoding: Encoding) -> None:
    parameters = torch.linspace(-1, 1, 300)
    statistics = torch.tensor([1e8, 1e-8, 65_536.0, 3e-5, -1e6])
    vector = torch.cat([parameters, statistics])
    data = encode(vector, encoding, statistics=5)
    assert len(data) == encoded_bytes(305, encoding, statistics=5) == encoded_bytes(300, encoding) + 20
    decoded = decode(data, encoding, 305, statistics=5)
    assert torch.equal(decoded[300:], statistics)
    assert torch.equal(decoded[:300], decode(encode(parameters, encoding), encoding, 300))
    _, left = with_feedback(vector, torch.zeros(305), encoding, statistics=5)
    assert not left[300:].any()


def test_statistics_that_an_owner_did_not_take_are_not_sent_again() -> None:
    layout = Layout(parameters=4, elements=6, statistics=("mean",))
    delta = torch.arange(6.0)
    feedback = Feedback(layout)
    feedback.contribute(delta, 0, 6, Encoding.FLOAT32)
    feedback.commit(delta, {(0, 6): False})
    assert feedback.residual.tolist() == [0, 1, 2, 3, 0, 0]
    apart = Feedback(layout)
    apart.contribute(delta, 0, 6, Encoding.NONE)
    apart.commit(delta, {(0, 6): True}, apart=True)
    assert apart.residual.tolist() == delta.tolist()


class Normalising(torch.nn.Module):
    """Divides each input by its own deviation, which no input of zeros has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(FEATURES, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        centred = inputs - inputs.mean(dim=1, keepdim=True)
        return cast(torch.Tensor, self.layer(centred / centred.std(dim=1, keepdim=True)))


def test_a_network_is_tried_on_the_device_s_own_samples_else_on_plausible_ones() -> None:
    own = prepare(make_task(model=Normalising), device=A, data_epoch=0)
    assert torch.equal(own.trial.inputs, separable(40).inputs)
    none = prepare(make_task(model=Normalising, data=dataset(separable(0))), device=A, data_epoch=0)
    assert torch.equal(none.trial.inputs, separable(20, seed=1).inputs)
    assert own.facts == none.facts
