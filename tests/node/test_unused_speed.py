"""The speed of a device that has no part in the training: what was measured at its start does not stick."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import pytest

from crowd.actors.profiler import MEASURE_AGAIN_US, READ_EVERY_US
from crowd.node import Node
from crowd.planning.plan import Assignment, Idle, Plan, SliceOwner, TrainerRole
from crowd.planning.policy import Cluster, Policy
from crowd.units import SECOND_US
from devices.emulated import VirtualCompute
from devices.simulation.device import SimulatedCluster
from devices.simulation.virtual_time import run_virtually
from tests.node.cluster import blobs, round_of

T = TypeVar("T")
AGAIN_S = MEASURE_AGAIN_US / SECOND_US
READ_S = READ_EVERY_US / SECOND_US


class TheFastest(Policy):
    """The fastest trains its own samples, 16 in a round of six seconds; the other merges, if it is to."""

    def __init__(self, *, others_merge: bool) -> None:
        self._others_merge = others_merge

    def plan(self, cluster: Cluster) -> Plan:
        *others, fastest = sorted(cluster.members, key=lambda member: (member.speed_kflops, member.device))
        owner = others[0] if self._others_merge else fastest
        task = fastest.task
        return Plan(
            members=(),
            trainers=(TrainerRole(device=fastest.device, round_samples=16, evaluation=(0, task.evaluation_samples)),),
            assignments=(Assignment(lender=fastest.device, trainer=fastest.device, counts=fastest.label_counts),),
            idle=tuple(
                Idle(device=other.device, counts=other.label_counts, reason="another is faster") for other in others
            ),
            slices=(SliceOwner(owner=owner.device, start=0, stop=task.state_elements),),
            samples_total=fastest.samples,
            evaluate_every=1000,
            round_us=6 * SECOND_US,
            why=f"{fastest.device} is the fastest",
        )


class CountingCompute(VirtualCompute):
    """Knows how often something was trained."""

    trained = 0

    async def run(self, work: Callable[[], T], *, flops: int = 0) -> T:
        self.trained += flops > 0
        return await super().run(work, flops=flops)


def pair(*, others_merge: bool = False) -> SimulatedCluster:
    """`ada`, and `ben`, which is half as fast at first."""
    policies = {"fastest": TheFastest(others_merge=others_merge)}
    cluster = SimulatedCluster({"ada": 4, "ben": 2}, blobs(epochs_max=999), policy="fastest", policies=policies)
    cluster.devices["ben"].compute = CountingCompute(2)
    return cluster


def play(cluster: SimulatedCluster, until: Callable[[Node], Awaitable[None]]) -> float:
    """Let both train until that has returned on `ben`, once three rounds are over; returns how long it took, in
    seconds."""
    took_s = 0.0

    async def part(node: Node) -> None:
        nonlocal took_s
        await round_of(node, 3)
        began_s = anyio.current_time()
        await until(node)
        took_s = anyio.current_time() - began_s

    async def both() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cluster.devices["ada"].live)
            await cluster.devices["ben"].live(part)
            tasks.cancel_scope.cancel()

    run_virtually(both)
    return took_s


def test_a_device_without_a_part_that_was_slow_only_at_its_start_is_given_one_some_minutes_later() -> None:
    cluster = pair()

    async def has_a_part(node: Node) -> None:
        cluster.devices["ben"].compute.speed_kflops = 40  # type: ignore[attr-defined]  # it is a virtual one
        async for progress in node.progress():
            if progress.plan is not None and progress.plan.trainer(node.name) is not None:
                return

    assert play(cluster, has_a_part) < AGAIN_S + 4 * READ_S


@pytest.mark.parametrize(("others_merge", "is_measured"), [(False, True), (True, False)])
def test_a_device_is_measured_again_only_if_it_has_no_part_at_all_and_published_only_if_its_speed_has_changed(
    others_merge: bool, is_measured: bool
) -> None:
    cluster = pair(others_merge=others_merge)
    compute = cluster.devices["ben"].compute
    assert isinstance(compute, CountingCompute)
    counts = []

    async def two_waits(node: Node) -> None:
        counts.append(compute.trained)
        plan = node.plan
        await anyio.sleep(2 * AGAIN_S)
        counts.append(compute.trained)
        assert node.plan is plan

    play(cluster, two_waits)
    assert (counts[1] > counts[0]) == is_measured
