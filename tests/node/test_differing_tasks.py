"""Devices whose tasks differ: each side is told in which part, and nobody takes the other's model."""

from contextlib import aclosing
from typing import Any

import anyio
import pytest
import torch
from structlog.testing import capture_logs

from crowd.planning.plan import Plan
from crowd.units import device_id
from tests.node.cluster import Cluster, blobs
from tests.node.test_run import expect_one_model
from tests.support.virtual import virtual_time


async def plans_of(cluster: Cluster, name: str, plans: dict[str, Plan]) -> None:
    """Keeps the last plan that this device tells of, its own or the one that leaves it out."""
    async with aclosing(cluster.nodes[name].progress()) as news:
        async for progress in news:
            if progress.plan is not None:
                plans[name] = progress.plan


@pytest.mark.parametrize(
    ("other", "parts"),
    [({"batch_size": 8}, "batch size"), ({"model": lambda: torch.nn.Linear(8, 2)}, "network, state")],
    ids=["recipe", "network"],
)
@virtual_time
async def test_a_device_with_another_task_is_told_so_and_neither_holds_up_the_others_nor_takes_their_model(
    other: dict[str, Any], parts: str
) -> None:
    cluster = Cluster("ada", "ben", "odd")
    for name in ("ada", "ben"):
        cluster.add(name, blobs())
    odd = cluster.add("odd", blobs(**other))
    seen: list[Plan | None] = []

    async def listen() -> None:
        seen.extend([progress.plan async for progress in odd.progress()])

    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            async with odd:
                await cluster.train("ada", "ben")
                await anyio.sleep(60)
            tasks.cancel_scope.cancel()
    reasons = {left_out.device: left_out.reason for plan in seen if plan for left_out in plan.left_out}
    assert reasons[device_id("odd")] == f"its task differs from the others' in {parts}"
    told = {entry["reason"] for entry in logs if entry["event"] == "device_left_out" and entry["left_out"] == "odd"}
    assert told == {reasons[device_id("odd")]}
    expect_one_model(cluster, "ada", "ben")
    assert odd.digest is None
    assert not any(entry["event"] == "state_refused" for entry in logs)


@virtual_time
async def test_two_devices_whose_losses_differ_are_both_told_which_part_it_is() -> None:
    cluster = Cluster("ada", "ben")
    cluster.add("ada", blobs(loss=torch.nn.CrossEntropyLoss(label_smoothing=0.9)))
    cluster.add("ben", blobs(loss=torch.nn.CrossEntropyLoss()))
    plans: dict[str, Plan] = {}
    async with anyio.create_task_group() as tasks:
        for name in cluster.nodes:
            tasks.start_soon(plans_of, cluster, name, plans)
            tasks.start_soon(cluster.play, name)
        await anyio.sleep(30)
        tasks.cancel_scope.cancel()
    assert plans["ada"] == plans["ben"]
    (left_out,) = plans["ada"].left_out
    assert left_out.reason == "its task differs from the others' in loss"
    assert plans["ada"].why == f"1 of 2 devices are here; {left_out.device} is left out: {left_out.reason}"
