"""A network trains where its `Placement` says: the same as on the CPU, and with few transfers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crowd.learning import replica
from crowd.learning.lent_samples import LentSamples
from crowd.learning.placement import Placement
from crowd.learning.pool import EpochSampler, TrainingPool
from crowd.learning.replica import ReplicaState
from crowd.learning.shards import SampleStore
from crowd.learning.work import LocalTrainer, StepConfig, StepReport
from crowd.planning.plan import Range
from tests.learning.nets import layout_of, make_task, normalised, separable, train

SAMPLES = 40
BATCH = 8


class Elsewhere:
    """Transfers to a torch device and back that are recorded. Whatever comes back of `meta`, which keeps no values, is
    zero."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.crossed: list[tuple[str, int]] = []
        """Each way and the elements that took it."""

    def __call__(self, tensor: Tensor, device: torch.device) -> Tensor:
        assert device.type in (self.device.type, "cpu")
        self.crossed.append(("there" if device == self.device else "here", tensor.numel()))
        return torch.zeros_like(tensor, device=device) if tensor.is_meta else tensor.to(device, copy=True)


def start() -> ReplicaState:
    torch.manual_seed(0)
    model = normalised()
    return replica.initial(model, 1, layout_of(model))


def pool() -> TrainingPool:
    store = SampleStore(separable(SAMPLES))
    own = tuple(Range(label=label, start=0, stop=count) for label, count in enumerate(store.label_counts))
    return TrainingPool(store, LentSamples(store), own, {})


def trainer(placement: Placement, **task: Any) -> LocalTrainer:
    torch.manual_seed(1)
    made = make_task(**task)
    model = made.model()
    return LocalTrainer(made, model, layout_of(model), placement=placement)


def trained(local: LocalTrainer, step_config: StepConfig) -> StepReport:
    local.load(start(), step_config)
    sampler = EpochSampler(SAMPLES, seed=0, generation=1)
    return train(local, pool(), sampler, SAMPLES, batch_size=BATCH, group=step_config.group)


def step_configs() -> Iterator[StepConfig]:
    yield StepConfig()
    yield StepConfig(proximal=0.1)
    yield StepConfig(chance=np.random.default_rng(0))


@pytest.mark.parametrize("which", range(3), ids=["plain", "proximal", "importance"])
def test_what_comes_and_goes_in_copies_is_trained_as_what_is_here(which: int) -> None:
    outcomes = []
    for placement in (Placement(), Placement(transfer=Elsewhere("cpu"))):
        local = trainer(placement)
        report = trained(local, list(step_configs())[which])
        local.mix([(torch.ones(len(local.parameters())), 0.25)])
        outcomes.append((report, local.delta().tolist(), local.counters(), local.evaluate(separable(50))))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("which", range(3), ids=["plain", "proximal", "importance"])
def test_all_that_a_network_meets_is_where_it_is(which: int) -> None:
    """On `meta` nothing is computed, and whatever is elsewhere is refused."""
    local = trainer(Placement("meta", transfer=Elsewhere("meta")))
    trained(local, list(step_configs())[which])
    assert {tensor.device.type for tensor in local.model.state_dict().values()} == {"meta"}
    for tensor in (local.delta(), local.parameters()):
        assert tensor.device.type == "cpu"
    assert local.evaluate(separable(50)).samples == 50


def test_what_is_drawn_to_change_a_batch_is_drawn_here() -> None:
    seen = []

    def augment(inputs: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        seen.append((inputs.device.type, labels.device.type, generator.device.type))
        return inputs, labels

    trained(trainer(Placement("meta", transfer=Elsewhere("meta")), augment=augment), StepConfig())
    assert set(seen) == {("cpu", "cpu", "cpu")}


def test_a_step_takes_its_batch_there_and_its_loss_back_and_a_round_its_state() -> None:
    elsewhere = Elsewhere("meta")
    local = trainer(Placement("meta", transfer=elsewhere))
    elements = len(start().vector)
    elsewhere.crossed.clear()
    report = trained(local, StepConfig())
    batch = separable(BATCH)
    step = [("there", batch.inputs.numel()), ("there", batch.labels.numel()), ("here", 1)]
    assert elsewhere.crossed == [("there", elements), ("there", 1), *report.steps * step]
    elsewhere.crossed.clear()
    local.delta()
    assert elsewhere.crossed == [("here", elements), ("here", 1)]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no accelerator here")
def test_a_network_trains_on_an_accelerator_as_on_the_cpu() -> None:
    deltas = []
    for placement in (Placement(), Placement("cuda")):
        local = trainer(placement)
        trained(local, StepConfig())
        deltas.append(local.delta())
    torch.testing.assert_close(deltas[0], deltas[1], rtol=1e-3, atol=1e-5)
