"""Without a target whole nodes end with the best state that was evaluated, which is then the one that is told."""

import math
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from crowd.learning.work import prepare
from crowd.metrics import Accuracy, MeanLoss
from crowd.node import Node
from crowd.units import DeviceId
from tests.node.cluster import Cluster, blobs, draw
from tests.support.virtual import virtual_time

STEEP: dict[str, Any] = {"target": None, "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.3)}
"""Values go up and down from round to round."""
NAMES = (("ada", 400), ("ben", 200), ("cy", 100))


async def trained(policy: str, **changes: Any) -> Cluster:
    cluster = Cluster(*(name for name, _ in NAMES))
    for name, speed_kflops in NAMES:
        cluster.add(name, blobs(**STEEP | changes), members_min=3, policy=policy, speed_kflops=speed_kflops)
    await cluster.train()
    return cluster


def right(model: torch.nn.Module, *samples: TensorDataset) -> float:
    counts = [(int((model(x).argmax(1) == y).sum()), len(y)) for x, y in (each.tensors for each in samples)]
    return sum(hits for hits, _ in counts) / sum(count for _, count in counts)


def values(cluster: Cluster) -> list[float]:
    """Of all rounds, as whoever has completed them tells."""
    curves = [result.curve for node in cluster.nodes.values() for result in node.results.values()]
    return [point.value for curve in curves for point in curve if point.value is not None]


@pytest.mark.parametrize("policy", ["crowd_learning", "fedavg", "fedbuff", "all_reduce"])
@virtual_time
async def test_all_keep_the_best_state_and_its_value_is_told(policy: str) -> None:
    cluster = await trained(policy, patience=5)
    assert len({node.digest for node in cluster.nodes.values()}) == 1
    for node in cluster.nodes.values():
        result = node.results[node.name]
        assert result.reached, "its end"
        assert result.value == right(node.model, draw(400, 0))
        assert policy == "fedbuff" or result.value == max(values(cluster))


@virtual_time
async def test_after_so_many_evaluations_without_a_better_one_a_run_ends() -> None:
    cluster = await trained("fedavg", patience=3)
    told = [point.value or 0.0 for point in cluster.nodes["ada"].results[DeviceId("ada")].curve]
    assert told.index(max(told)) == len(told) - 4
    assert 4 < len(told) < 200


@virtual_time
async def test_without_patience_all_epochs_are_trained_and_the_best_state_is_kept() -> None:
    cluster = await trained("fedavg", epochs_max=12)
    node = cluster.nodes["ben"]
    assert len(node.results[node.name].curve) == 13
    assert right(node.model, draw(400, 0)) == node.results[node.name].value == max(values(cluster))


@virtual_time
async def test_a_value_that_is_not_a_number_is_no_improvement() -> None:
    class Undefined(Accuracy):
        def value(self, sums: torch.Tensor) -> float:
            return math.nan

    cluster = await trained("fedavg", patience=3, metric=Undefined())
    result = cluster.nodes["ada"].results[DeviceId("ada")]
    assert result.value is None
    assert [point.value for point in result.curve] == [None] * 3
    assert all(point.evaluated == 400 for point in result.curve)


@virtual_time
async def test_where_members_hold_out_samples_the_best_state_is_evaluated_once_more_by_all() -> None:
    cluster = Cluster("ada", "ben")
    apart: dict[str, Any] = {**STEEP, "evaluation": None, "patience": 6}
    tasks = {"ada": blobs(1, **apart), "ben": blobs(300, **apart)}
    for name, speed_kflops in (("ada", 100_000), ("ben", 300)):
        cluster.add(name, tasks[name], members_min=2, speed_kflops=speed_kflops)
    await cluster.train()
    node: Node = cluster.nodes["ada"]
    assert node.plan is not None
    assert [trainer.device for trainer in node.plan.trainers] == ["ada"]
    parts = [prepare(task(name)).own.present.evaluation for name, task in tasks.items()]
    held_out = [TensorDataset(part.inputs, part.labels) for part in parts if len(part)]
    assert node.digest == cluster.nodes["ben"].digest
    assert node.results[node.name].value == right(node.model, *held_out)


@virtual_time
async def test_the_value_and_the_loss_of_each_round_are_those_of_all_devices_together() -> None:
    cluster = await trained("fedavg", epochs_max=3, metric=MeanLoss())
    curves = [node.results[node.name].curve for node in cluster.nodes.values()]
    told = [[(point.round, point.value, point.loss) for point in curve] for curve in curves]
    assert told[0] == told[1] == told[2], "to the last bit"
    losses = [loss for _, _, loss in told[0]]
    assert losses[-1] is None, "as the last round only evaluates"
    assert losses[0] is not None
    assert losses[0] > losses[2] > 0  # type: ignore[operator]


@pytest.mark.parametrize("policy", ["d_psgd", "ship_once", "local_only"])
@virtual_time
async def test_where_trainers_keep_parameters_of_their_own_the_last_state_is_kept_after_all_epochs(policy: str) -> None:
    cluster = await trained(policy, epochs_max=3, patience=1)
    for node in cluster.nodes.values():
        result = node.results[node.name]
        assert result.reached, "its end"
        points = [point for known in node.results.values() for point in known.curve if point.value is not None]
        assert result.value == max(points, key=lambda point: point.round).value
