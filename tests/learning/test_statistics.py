"""What training changes without being a parameter (statistics), and what it does not change (constants)."""

from typing import cast

import attrs
import pytest
import torch

from crowd.learning import replica
from crowd.learning.fate import Fate
from crowd.learning.feedback import Feedback
from crowd.learning.layout import Layout, Pieces, Role, Slot
from crowd.learning.own_data import TRIAL_BATCHES
from crowd.learning.replica import ReplicaState
from crowd.learning.work import prepare
from crowd.planning.plan import Encoding, Outer, OuterKind
from tests.learning.nets import CLASSES, FEATURES, dataset, make_task, normalised, separable

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
    layout = prepare(make_task(model=Masked)).layout
    assert [(slot.name, slot.role.value) for slot in layout.slots] == [
        ("mean", "statistic"),
        ("inner.weight", "parameter"),
        ("inner.bias", "parameter"),
        ("outer.weight", "parameter"),
        ("outer.bias", "parameter"),
    ]
    assert layout.counters == ()
    assert layout.statistics == ((0, FEATURES),)


def test_the_statistics_of_batch_normalisation_are_known_whether_or_not_a_batch_changes_them() -> None:
    layout = Layout.of(normalised(), ())
    start = 8 * FEATURES + 8
    assert [slot for slot in layout.slots if slot.module == "1"] == [
        Slot("1.weight", Role.PARAMETER, start, start + 8),
        Slot("1.bias", Role.PARAMETER, start + 8, start + 16),
        Slot("1.running_mean", Role.STATISTIC, start + 16, start + 24),
        Slot("1.running_var", Role.VARIANCE, start + 24, start + 32),
    ]
    assert layout.counters == ("1.num_batches_tracked",)
    assert layout.statistics == ((start + 16, start + 32),)
    assert layout.variances == ((start + 24, start + 32),)
    assert layout.modules == ((0, start), (start, start + 32), (start + 32, layout.elements))
    assert prepare(make_task()).layout == layout


def test_what_two_modules_share_has_one_place() -> None:
    tied = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    layout = Layout.of(tied, ())
    assert [slot.name for slot in layout.slots] == ["0.weight", "0.bias", "1.bias"]
    assert layout.modules == ((0, 20), (20, 24))


def test_pieces_are_cut_where_a_slice_is() -> None:
    layout = Layout.of(normalised(), ())
    ((first, last),) = layout.statistics
    assert layout.pieces(0, layout.elements).elements == layout.elements
    assert layout.pieces(first - 4, last - 3) == Pieces((4,), ((4, 17),))
    assert layout.pieces(last - 3, last + 2) == Pieces((2,), ((0, 3),))


def test_a_module_s_digest_changes_with_what_is_in_it_alone() -> None:
    state = replica.initial(normalised(), 1, Layout.of(normalised(), ()))
    vector = state.vector.clone()
    vector[state.layout.statistics[0][0]] += 1
    other = attrs.evolve(state, vector=vector)
    same = [mine == theirs for mine, theirs in zip(state.module_digests, other.module_digests, strict=True)]
    assert same == [True, False, True]
    assert state.digest != other.digest


def test_a_constant_stays_as_the_network_has_it_through_states_and_files() -> None:
    task = make_task(model=Masked)
    layout = prepare(task).layout
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
    ((first, last),) = state.layout.statistics
    inside = slice(first, last)
    for _ in range(3):
        delta = torch.randn(state.vector.numel(), generator=torch.Generator().manual_seed(1)).abs()
        after = next_state(state, delta, outer)
        assert torch.equal(after.vector[inside], state.vector[inside] + delta[inside])
        assert not torch.equal(after.vector[:first], state.vector[:first] + delta[:first])
        assert not torch.equal(after.vector[last:], state.vector[last:] + delta[last:])
        state = after


def test_a_variance_is_never_negative_however_its_mean_was_weighted() -> None:
    state = replica.initial(normalised(), 1, Layout.of(normalised(), ()))
    (span,) = state.layout.variances
    delta = torch.zeros(state.vector.numel())
    delta[slice(*span)] = -1.0000001 * state.vector[slice(*span)]
    after = next_state(state, delta, NESTEROV)
    assert torch.equal(after.vector[slice(*span)], torch.zeros(8))


def test_statistics_that_an_owner_did_not_take_are_not_sent_again() -> None:
    layout = Layout(slots=(Slot("weight", Role.PARAMETER, 0, 4), Slot("mean", Role.STATISTIC, 4, 6)))
    delta = torch.arange(6.0)
    feedback = Feedback(layout)
    feedback.contribute(delta, 0, 6, Encoding.FLOAT32)
    feedback.commit(delta, {(0, 6): Fate.MISSED})
    assert feedback.residual.tolist() == [0, 1, 2, 3, 0, 0]
    apart = Feedback(layout)
    apart.contribute(delta, 0, 6, Encoding.NONE)
    apart.commit(delta, {(0, 6): Fate.MERGED}, apart=True)
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
    own = prepare(make_task(model=Normalising))
    few = TRIAL_BATCHES * own.facts.batch_size
    assert torch.equal(own.own.present.trial.inputs, separable(40).inputs[:few])
    none = prepare(make_task(model=Normalising, data=dataset(separable(0))))
    assert torch.equal(none.own.present.trial.inputs, separable(20, seed=1).inputs[:few])
    assert own.facts == none.facts
