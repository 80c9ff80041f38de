"""Networks whose state is more than parameters train on a cluster as they do on one machine."""

import pytest
import torch
from torch.utils.data import TensorDataset

import crowd
from crowd.actors.probe import Probe
from crowd.agreement.state import Active
from crowd.learning.replica import ReplicaState
from crowd.planning.plan import OuterKind
from devices.simulation.device import SimulatedCluster
from devices.simulation.virtual_time import run_virtually

COLUMNS, CLASSES = 8, 4
DEVICES = ("ada", "ben", "cem", "dia")


def samples(count: int, seed: int) -> TensorDataset:
    """Classes that are linear in columns of scales 1 and 10,000."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, COLUMNS, generator=generator)
    labels = inputs[:, :CLASSES].argmax(dim=1)
    return TensorDataset(inputs * torch.tensor([1.0, 10_000.0] * (COLUMNS // 2)), labels)


def network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.BatchNorm1d(COLUMNS),
        torch.nn.Linear(COLUMNS, 32),
        torch.nn.BatchNorm1d(32),
        torch.nn.ReLU(),
        torch.nn.Linear(32, CLASSES),
    )


def task(device: str) -> crowd.Task:
    return crowd.Task(
        model=network,
        data=samples(200, DEVICES.index(device)),
        evaluation=samples(300, 99),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
        batch_size=16,
        target=1.0,
        epochs_max=12,
    )


class States(Probe):
    """Keeps the state after each round, and who trained it how."""

    def __init__(self) -> None:
        self.after: list[ReplicaState] = []
        self.actives: list[Active] = []

    def completed(
        self,
        active: Active,
        *,
        before: ReplicaState,
        after: ReplicaState,
        trained: torch.Tensor | None,
        residual: torch.Tensor,
    ) -> None:
        self.actives.append(active)
        self.after.append(after)


@pytest.mark.parametrize(
    ("policy", "outer"),
    [("crowd_learning", OuterKind.PLAIN), ("diloco", OuterKind.NESTEROV)],  # with which variances fell below zero
)
def test_batch_normalisation_survives_the_outer_optimiser_and_columns_of_any_scale(
    policy: str, outer: OuterKind
) -> None:
    states = States()
    cluster = SimulatedCluster(dict.fromkeys(DEVICES, 2_000), task, policy=policy, seed=2, probes={"ada": states})
    run_virtually(cluster.train)
    plans = [active.plan for active in states.actives]
    assert {plan.outer.kind for plan in plans} == {outer}
    assert {len(plan.trainers) for plan in plans} == {4}
    for state in states.after:
        assert bool(torch.isfinite(state.vector).all())
        assert all(bool((state.vector[start:stop] >= 0).all()) for start, stop in state.layout.variances)
    model = cluster.devices["ada"].node.model
    inputs, labels = samples(1_000, 7).tensors
    accuracy = float((model(inputs).argmax(dim=1) == labels).float().mean())
    assert accuracy > 0.9, accuracy
    assert len({device.node.digest for device in cluster.devices.values()}) == 1
