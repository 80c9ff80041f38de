"""A run whose devices lose their power goes on from the last checkpoint that any of them has."""

from collections.abc import Mapping
from typing import Any

import anyio
import pytest
import structlog
import torch
from structlog.testing import capture_logs

from crowd.actors.probe import Probe
from crowd.actors.trainer.checkpoints import ASIDE, FILES
from crowd.learning.replica import ReplicaState
from tests.node.cluster import Cluster, blobs, round_of
from tests.support.disk import Disk
from tests.support.virtual import virtual_time

log = structlog.get_logger()

NAMES = ("ada", "ben", "cy")


class Told(Probe):
    """Remembers from which round the device has gone on, with what was left of its deltas."""

    def __init__(self) -> None:
        self.resumed_at: list[int] = []

    def resumed(self, state: ReplicaState, residual: torch.Tensor) -> None:
        assert residual.any()
        self.resumed_at.append(state.round)


def cluster_of(disks: Mapping[str, Disk], probes: Mapping[str, Probe] | None = None, **task: Any) -> Cluster:
    cluster = Cluster(*disks)
    for name, disk in disks.items():
        disk.has_power = True
        own = blobs(**{"target": 1.0, "epochs_max": 60} | task)
        probe = (probes or {}).get(name)
        cluster.add(name, own, store=disk, probe=probe, checkpoint_s=2, members_min=len(disks))
    return cluster


def power_fails(cluster: Cluster, disks: Mapping[str, Disk]) -> None:
    log.info("power_fails")
    for name, disk in disks.items():
        disk.has_power = False
        cluster.unplug(name)


async def until(cluster: Cluster, disks: Mapping[str, Disk], number: int) -> None:
    """Train until that round is complete on the first device; then the power fails on all."""

    async def cut() -> None:
        await round_of(next(iter(cluster.nodes.values())), number)
        power_fails(cluster, disks)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cut)
        await cluster.train()


def saved(logs: list[Any]) -> int:
    """The last round that was saved before the power failed."""
    events = [line["event"] for line in logs]
    return max(
        int(line["round"]) for line in logs[: events.index("power_fails")] if line["event"] == "checkpoint_saved"
    )


def resumed(logs: list[Any]) -> list[int]:
    """The rounds from which devices have gone on."""
    return [line["round"] for line in logs if line["event"] == "run_resumed"]


@virtual_time
async def test_after_a_power_cut_on_all_devices_the_run_goes_on_from_the_last_checkpoint() -> None:
    disks = {name: Disk() for name in NAMES}
    with capture_logs() as logs:
        await until(cluster_of(disks), disks, 20)
        again = cluster_of(disks, probes := {name: Told() for name in disks})
        await again.train()
    assert max(resumed(logs)) == saved(logs) > min(resumed(logs)) > 0
    told = [probe.resumed_at for probe in probes.values()]
    assert sorted(told) == sorted([saved(logs)] if at == saved(logs) else [] for at in resumed(logs)), "the rest is old"
    firsts = [line["start_round"] for line in logs if line["event"] == "plan_activated"]
    assert firsts[-1] == saved(logs)
    assert len(set(again.digests.values())) == 1
    assert None not in again.digests.values()


@virtual_time
async def test_one_device_s_checkpoint_is_enough() -> None:
    disks = {name: Disk() for name in NAMES}
    with capture_logs() as logs:
        await until(cluster_of(disks), disks, 20)
        again = cluster_of({"ada": Disk(), "ben": disks["ben"], "cy": Disk()})
        await again.train()
    assert len(resumed(logs)) == 1
    firsts = [line["start_round"] for line in logs if line["event"] == "plan_activated"]
    assert firsts[-1] == resumed(logs)[0] > 0
    assert len(set(again.digests.values())) == 1


@virtual_time
async def test_a_run_that_has_ended_is_not_trained_again_whatever_the_broker_has_kept() -> None:
    disks = {name: Disk() for name in NAMES[:2]}
    await (first := cluster_of(disks)).train()
    with capture_logs() as logs:
        await (second := cluster_of(disks)).train()
    assert second.digests == first.digests
    assert [node.results[node.name].progress.run for node in second.nodes.values()] == [1, 1]
    assert not [line for line in logs if line["event"] == "round_complete"]


@virtual_time
@pytest.mark.parametrize("changes", [{"batch_size": 8}, {"epochs_max": 61}])
async def test_a_checkpoint_of_another_task_is_named_and_kept_aside(changes: dict[str, Any]) -> None:
    disks = {name: Disk() for name in NAMES[:2]}
    with capture_logs() as logs:
        await until(cluster_of(disks), disks, 20)
        kept = disks["ada"].read(FILES[0])
        await cluster_of(disks, **changes).train()
    assert resumed(logs) == []
    warnings = [line for line in logs if line["event"] == "checkpoint_not_used"]
    assert {line["kept_as"] for line in warnings} <= {file + ASIDE for file in FILES}
    assert "another task" in warnings[0]["error"]
    assert kept == disks["ada"].read(FILES[0] + ASIDE) is not None


@virtual_time
async def test_a_device_that_comes_back_to_those_that_have_finished_ends_with_their_model_at_once() -> None:
    disks = {name: Disk() for name in NAMES[:2]}
    cluster = cluster_of(disks, epochs_max=4)
    over = anyio.Event()

    async def stay() -> None:
        async with cluster.nodes["ben"] as ben:
            await ben.wait()
            await over.wait()

    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stay)
            await cluster.train("ada")
            first = cluster.nodes["ada"].digest
            again = cluster.add("ada", blobs(target=1.0, epochs_max=4), store=disks["ada"], checkpoint_s=2)
            await cluster.train("ada")
            over.set()
    assert again.digest == first is not None
    assert again.trained.is_saved
    assert not [line for line in logs if line["event"] == "state_fetched" and line["round"]], "it has it on its disk"
    rounds = [line["round"] for line in logs if line["event"] == "round_complete"]
    assert rounds.count(max(rounds)) == 2, "nothing is trained again"
