"""The model that a run ends with is the one whose evaluation is told last."""

from typing import Any

import pytest
import torch

from tests.node.cluster import Cluster, blobs, draw
from tests.support.virtual import virtual_time

EVALUATED = 400
ENDS: list[tuple[dict[str, Any], bool]] = [({"target": 0.87}, True), ({"target": 1.0}, False)]


def right(model: torch.nn.Module) -> int:
    inputs, labels = draw(EVALUATED, 0).tensors
    return int((model(inputs).argmax(1) == labels).sum())


@pytest.mark.parametrize("policy", ["crowd_learning", "fedbuff", "d_psgd", "all_reduce", "ship_once"])
@pytest.mark.parametrize(("end", "reached"), ENDS, ids=["target", "epochs"])
@virtual_time
async def test_what_is_told_last_is_true_of_the_model_that_is_kept(
    policy: str, end: dict[str, Any], reached: bool
) -> None:
    cluster = Cluster("ada", "ben", "cy")
    for name, speed_kflops in (("ada", 400), ("ben", 200), ("cy", 100)):
        epochs = 200 if reached else 3
        task = blobs(epochs_max=epochs, **end)
        cluster.add(name, task, members_min=3, policy=policy, speed_kflops=speed_kflops)
    await cluster.train()
    for node in cluster.nodes.values():
        result = node.results[node.name]
        told = max((point for result in node.results.values() for point in result.curve), key=lambda point: point.round)
        assert told.round == result.progress.round
        assert told.evaluated == EVALUATED
        assert told.value == right(node.model) / EVALUATED
        assert result.reached == reached
        assert not reached or (told.value is not None and told.value >= 0.87)
