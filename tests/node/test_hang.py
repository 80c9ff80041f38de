"""A device whose training stands still while its process lives: it costs the others a wait that has an end."""

from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from crowd.progress import Progress
from tests.node.cluster import LIMIT_S, SPEED_KFLOPS, Cluster, blobs, round_of
from tests.support.hanging import HangingCompute
from tests.support.virtual import virtual_time

HANGS_S = 60.0
EPOCHS = 90
"""More than go by while it hangs."""
EQUAL = {"ada": 200, "ben": 200, "cy": 200}
WAIT_S_MAX = 25.0
"""In which a device is waited for, the others agree on a plan without it, and a round is complete."""


class _Hang:
    """A cluster of devices with so many samples each, one of which hangs after round 5, for a minute."""

    def __init__(
        self,
        samples: Mapping[str, int],
        hung: str,
        speeds: Mapping[str, int] | None = None,
        epochs: int = EPOCHS,
        **train: Any,
    ) -> None:
        self.cluster = Cluster(*samples, "dan")
        self.hung = hung
        self.watched = next(name for name in samples if name != hung)
        self.rounds: list[tuple[float, int]] = []
        """When which rounds were complete on a device that did not hang."""
        self.hangs_s = 0.0
        self.plan: Progress
        self.computes = {
            name: HangingCompute((speeds or {}).get(name, SPEED_KFLOPS), executes=False) for name in samples
        }
        for name, count in samples.items():
            task = blobs(count, target=1.0, epochs_max=epochs)
            self.cluster.add(name, task, compute=self.computes[name], members_min=len(samples), **train)

    async def play(self, *beside: Any) -> list[Any]:
        """To the end of the run; the log."""
        with capture_logs() as logs:
            async with anyio.create_task_group() as tasks:
                for task in (self._hang, self._watch, *beside):
                    tasks.start_soon(task)
                await self.cluster.train(*self.computes)
        return logs

    async def _hang(self) -> None:
        self.plan = await round_of(self.cluster.nodes[self.watched], 5)
        self.hangs_s = anyio.current_time()
        self.computes[self.hung].hang()
        await anyio.sleep(HANGS_S)
        self.computes[self.hung].go_on()

    async def _watch(self) -> None:
        async for progress in self.cluster.nodes[self.watched].progress():
            self.rounds.append((anyio.current_time(), progress.round))

    @property
    def rounds_meanwhile(self) -> int:
        """Complete while it hung, but for the first seconds."""
        first_s, last_s = self.hangs_s + WAIT_S_MAX, self.hangs_s + HANGS_S
        numbers = [number for at_s, number in self.rounds if first_s <= at_s <= last_s]
        return max(numbers, default=0) - min(numbers, default=0)


def named(logs: list[Any], event: str, field: str) -> list[str]:
    return [entry[field] for entry in logs if entry["event"] == event]


@pytest.mark.parametrize(
    ("hung", "samples", "speeds", "train"),
    [
        ("ada", EQUAL, {}, {"policy": "crowd_learning"}),
        ("cy", {"ada": 100, "ben": 100, "cy": 1500}, {"cy": 2000}, {"policy": "crowd_learning", "epochs": 150}),
        ("cy", EQUAL, {"cy": 2000}, {"policy": "ship_once"}),
        ("ben", EQUAL, {}, {"policy": "fedavg"}),
        (
            "cy",
            {**EQUAL, "eve": 200},
            dict.fromkeys(("ada", "ben", "cy", "eve"), 200),
            {"policy": "d_psgd", "epochs": 40},
        ),
    ],
    ids=["owner", "most of the weight", "only trainer", "all are waited for", "neighbours wait"],
)
@virtual_time
async def test_who_stands_still_is_suspended_named_everywhere_and_takes_part_again(
    hung: str, samples: dict[str, int], speeds: dict[str, int], train: dict[str, Any]
) -> None:
    hang = _Hang(samples, hung, speeds, **train)
    logs = await hang.play()
    assert named(logs, "device_suspended", "suspended") == [hung] * len(samples), "one line on each device"
    assert named(logs, "device_resumed", "resumed") == [hung] * len(samples)
    assert not named(logs, "device_evicted", "departed")
    assert hang.rounds_meanwhile >= 10
    assert len(set(hang.cluster.digests.values())) == 1
    assert None not in hang.cluster.digests.values()


@virtual_time
async def test_rounds_go_on_without_a_trainer_that_is_not_needed_and_every_other_device_says_so() -> None:
    hang = _Hang(EQUAL, "cy", policy="crowd_learning")
    logs = await hang.play()
    assert not named(logs, "device_suspended", "suspended")
    assert named(logs, "trainer_absent", "absent") == ["cy", "cy"]
    assert hang.rounds_meanwhile >= 10
    assert len(set(hang.cluster.digests.values())) == 1
    assert None not in hang.cluster.digests.values()


@virtual_time
async def test_who_hangs_and_is_rounds_behind_agrees_to_the_next_plan_all_the_same() -> None:
    hang = _Hang(EQUAL, "cy", policy="crowd_learning")
    hang.cluster.add("dan", blobs(200, target=1.0, epochs_max=EPOCHS))

    async def join() -> None:
        """When some rounds have gone on without it."""
        await round_of(hang.cluster.nodes["ada"], 10)
        await hang.cluster.play("dan")

    logs = await hang.play(join)
    assert "cy" in named(logs, "trainer_absent", "absent")
    assert not named(logs, "device_evicted", "departed")
    assert hang.rounds_meanwhile >= 10
    assert len(set(hang.cluster.digests.values())) == 1
    assert None not in hang.cluster.digests.values()


@virtual_time
async def test_a_lender_that_does_not_lend_is_to_blame_and_not_those_who_wait_for_its_samples() -> None:
    hang = _Hang({"ada": 100, "ben": 100, "cy": 1500}, "cy", {"cy": 2000}, epochs=300, policy="crowd_learning")
    hang.cluster.add("dan", blobs(100, target=1.0, epochs_max=300))

    async def join() -> None:
        """A new plan begins, under which it is to lend again."""
        await round_of(hang.cluster.nodes["ada"], 5)
        await anyio.sleep(1.0)
        await hang.cluster.play("dan")

    logs = await hang.play(join)
    assert any(assignment.lender == "cy" != assignment.trainer for assignment in hang.plan.plan.assignments)  # type: ignore[union-attr]
    assert set(named(logs, "device_suspended", "suspended")) == {"cy"}
    assert not named(logs, "device_evicted", "departed")
    assert hang.rounds_meanwhile >= 10
    assert len(set(hang.cluster.digests.values())) == 1
    assert None not in hang.cluster.digests.values()


async def hang_at(hang: _Hang, number: int) -> None:
    """Let the device that is to hang do so for good in that round."""
    await round_of(hang.cluster.nodes[hang.watched], number)
    hang.computes[hang.hung].hang()


@virtual_time
async def test_a_run_ends_without_a_device_that_hangs_before_its_end() -> None:
    hang = _Hang(EQUAL, "cy", policy="crowd_learning")

    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hang_at, hang, EPOCHS - 5)
            tasks.start_soon(hang.cluster.play, "cy")
            await hang.cluster.train("ada", "ben")
            tasks.cancel_scope.cancel()
    assert set(named(logs, "device_suspended", "suspended")) == {"cy"}
    assert not named(logs, "device_evicted", "departed")
    digests = hang.cluster.digests
    assert digests["ada"] == digests["ben"] is not None
    assert digests["cy"] is None


@virtual_time
async def test_a_device_that_goes_on_when_the_run_has_ended_without_it_gets_its_model_and_ends() -> None:
    hang = _Hang(EQUAL, "cy", policy="crowd_learning", epochs=30)
    cluster, others = hang.cluster, ("ada", "ben")

    async def stay(name: str) -> None:
        async with cluster.nodes[name] as node:
            await node.wait()
            ended[name].set()
            await anyio.sleep_forever()

    ended = {name: anyio.Event() for name in others}
    async with anyio.create_task_group() as tasks:
        for name in others:
            tasks.start_soon(stay, name)
        tasks.start_soon(hang_at, hang, 20)
        async with anyio.create_task_group() as hung:
            hung.start_soon(cluster.play, "cy")
            with anyio.fail_after(LIMIT_S):
                for event in ended.values():
                    await event.wait()
            assert cluster.digests["cy"] is None
            with anyio.fail_after(WAIT_S_MAX):
                hang.computes["cy"].go_on()
                await cluster.nodes["cy"].wait()
        tasks.cancel_scope.cancel()
    assert len(set(cluster.digests.values())) == 1
    assert None not in cluster.digests.values()


@virtual_time
async def test_a_device_that_goes_on_when_all_have_left_after_the_end_of_their_run_ends_too() -> None:
    hang = _Hang(EQUAL, "cy", policy="crowd_learning", epochs=30)
    cluster = hang.cluster
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hang_at, hang, 20)
        tasks.start_soon(cluster.play, "cy")
        await cluster.train("ada", "ben")
        assert cluster.digests["cy"] is None
        hang.computes["cy"].go_on()
        with anyio.fail_after(LIMIT_S):
            await cluster.nodes["cy"].wait()
    assert cluster.digests["cy"] is not None
