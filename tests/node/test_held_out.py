"""Evaluations without a common set: what all members hold out counts, also of those that only lend."""

from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from crowd.learning.task import Task
from crowd.learning.work import prepare
from crowd.node import TaskFunction
from tests.node.cluster import Cluster, blobs, draw
from tests.support.virtual import virtual_time

FAST, SLOW = 100_000, 300
APART: dict[str, Any] = {"evaluation": None, "target": 0.8}


def two_classes_of(cluster: Cluster, name: str, dataset: TensorDataset, **changes: Any) -> TaskFunction:
    def task(device: str) -> Task:
        return blobs(**APART | {"data": dataset} | changes)(device)

    return task


def held_out_right(tasks: dict[str, TaskFunction], model: torch.nn.Module) -> tuple[int, int]:
    """`(correct, evaluated)` of a model on what all devices hold out."""
    right = count = 0
    for name, task in tasks.items():
        part = prepare(task(name)).own.present.evaluation
        right += int((model(part.inputs).argmax(1) == part.labels).sum()) if len(part) else 0
        count += len(part)
    return right, count


async def train(cluster: Cluster, tasks: dict[str, TaskFunction], speeds: dict[str, int], **config: Any) -> None:
    for name, task in tasks.items():
        cluster.add(name, task, members_min=len(tasks), speed_kflops=speeds[name], **config)
    await cluster.train()


def expect_truth(cluster: Cluster, tasks: dict[str, TaskFunction], *, reached: bool) -> None:
    for node in cluster.nodes.values():
        result = node.results[node.name]
        points = [point for known in node.results.values() for point in known.curve]
        told = max(points, key=lambda point: point.round)
        assert told.round == result.progress.round
        right, count = held_out_right(tasks, node.model)
        assert (told.value, told.evaluated) == (right / count, count)
        assert result.reached == reached


@virtual_time
async def test_a_device_with_one_sample_that_trains_alone_is_evaluated_by_the_one_that_lends() -> None:
    cluster = Cluster("ada", "ben")
    tasks = {"ada": blobs(1, **APART), "ben": blobs(300, **APART)}
    await train(cluster, tasks, {"ada": FAST, "ben": SLOW})
    plan = cluster.nodes["ada"].plan
    assert plan is not None
    assert [trainer.device for trainer in plan.trainers] == ["ada"]
    expect_truth(cluster, tasks, reached=True)


def of_class(dataset: TensorDataset, number: int) -> TensorDataset:
    inputs, labels = dataset.tensors
    return TensorDataset(inputs[labels == number], labels[labels == number])


@virtual_time
async def test_one_class_that_is_easy_for_those_who_train_does_not_end_the_run() -> None:
    """Whoever says only what the fast device has is right at once."""
    cluster = Cluster("ada", "ben")
    tasks = {
        "ada": two_classes_of(cluster, "ada", of_class(draw(300, 1), 0)),
        "ben": two_classes_of(cluster, "ben", of_class(draw(300, 2), 1)),
    }
    await train(cluster, tasks, {"ada": FAST, "ben": SLOW})
    expect_truth(cluster, tasks, reached=True)
    result = cluster.nodes["ada"].results[cluster.nodes["ada"].name]
    _, held_out = held_out_right(tasks, cluster.nodes["ada"].model)
    assert all(not point.evaluated or point.evaluated == held_out for point in result.curve)


@pytest.mark.parametrize("policy", ["crowd_learning", "fedavg", "fedbuff", "d_psgd", "ship_once"])
@virtual_time
async def test_the_last_figure_is_of_the_kept_model_on_all_that_is_held_out(policy: str) -> None:
    cluster = Cluster("ada", "ben", "cy")
    changes = APART | {"epochs_max": 4, "target": 1.0}
    tasks = {"ada": blobs(200, **changes), "ben": blobs(120, **changes), "cy": blobs(60, **changes)}
    await train(cluster, tasks, {"ada": 2_000, "ben": 400, "cy": 100}, policy=policy)
    expect_truth(cluster, tasks, reached=False)
