"""Lives over restarts: the present one outranks all former ones, with a disk or, once it hears of them, without."""

import random
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from crowd.actors.lives import INCARNATION_MAX, LIFE_FILE, Lives
from crowd.ports import Store
from crowd.units import Channel, Life
from devices.store import FileStore, MemoryStore
from tests.node.cluster import Cluster, blobs, round_of
from tests.support.virtual import virtual_time


def begin(store: Store, seed: int = 0) -> Life:
    return Lives(store, random.Random(seed)).begin()


class FailingStore(MemoryStore):
    def write(self, name: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")


# --- the counter ------------------------------------------------------------------------------------------------------


def test_each_start_of_a_process_is_a_later_life(tmp_path: Path) -> None:
    lives = [begin(FileStore(tmp_path), seed) for seed in range(20)]
    assert lives == sorted(lives)
    assert [life.incarnation for life in lives] == list(range(1, 21))


def test_the_life_is_in_the_store_before_it_is_known() -> None:
    class Ordered(MemoryStore):
        def write(self, name: str, data: bytes) -> None:
            super().write(name, data)
            assert name == LIFE_FILE
            written.append(int(data))

    written: list[int] = []
    lives = Lives(Ordered(), random.Random(0))
    assert lives.begin().incarnation == written[-1] == 1
    lives.reach(7)
    assert written[-1] == 7
    lives.reach(3)
    assert lives.begin().incarnation == written[-1] == 8
    assert written == [1, 7, 8]


@pytest.mark.parametrize("damaged", [b"", b"-3", b"\xff\xfe", b"9" * 4000, str(INCARNATION_MAX).encode(), "³".encode()])
def test_a_damaged_counter_is_said_and_costs_no_start(damaged: bytes) -> None:
    store = MemoryStore()
    store.write(LIFE_FILE, damaged)
    with capture_logs() as logs:
        assert begin(store).incarnation == 1
    assert [entry["event"] for entry in logs] == ["life_not_read"]
    assert begin(store).incarnation == 2


def test_a_store_that_takes_nothing_is_said_once_and_costs_no_start() -> None:
    lives = Lives(FailingStore(), random.Random(0))
    with capture_logs() as logs:
        assert [lives.begin().incarnation for _ in range(3)] == [1, 2, 3]
    assert [entry["event"] for entry in logs] == ["life_not_saved"]


RETAINED = frozenset({Channel.STATUS, Channel.PROFILE, Channel.ACK, Channel.RESULT})


# --- recorded messages ------------------------------------------------------------------------------------------------


async def replay(cluster: Cluster, recorded: list[Any], *, times: int = 1) -> None:
    """Somebody who has no key says again, in everybody's name, what was said before; the broker keeps what it kept."""
    async with cluster.raw("mallory").session() as session:
        for _ in range(times):
            for _, delivery in recorded:
                await session.publish(delivery.address, delivery.payload, retain=delivery.address.channel in RETAINED)


@virtual_time
async def test_a_former_run_that_is_replayed_evicts_nobody_and_costs_no_plan() -> None:
    stores = {name: MemoryStore() for name in ("ada", "ben", "cy")}
    former = Cluster(*stores, "mallory")
    for seed, name in enumerate(stores):  # with another network, and boot IDs that are high
        chance = random.Random(seed)
        former.add(name, blobs(batch_size=8), store=stores[name], chance=chance, members_min=3)
    await former.train()

    cluster = Cluster(*stores, "mallory")
    for seed, name in enumerate(stores):
        cluster.add(
            name,
            blobs(epochs_max=200, target=1.0),
            store=stores[name],
            chance=random.Random(10 + seed),
            members_min=3,
        )
    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            for name in stores:
                tasks.start_soon(cluster.play, name)
            await round_of(cluster.nodes["ada"], 2)
            began = len(logs)
            await replay(cluster, former.hub.published)
            await round_of(cluster.nodes["ada"], 60)
            said = {entry["event"] for entry in logs[began:]}
            tasks.cancel_scope.cancel()
    assert not said & {"plan_activated", "device_evicted", "device_left_out", "samples_given_back"}
    assert "former_life_heard" in said


@pytest.mark.parametrize("disk", ["lost", "rolled back", "cloned"])
@virtual_time
async def test_a_disk_that_is_wrong_does_no_harm_when_a_former_run_is_replayed(disk: str) -> None:
    names = ("ada", "ben", "cy")
    stores = {name: MemoryStore() for name in names}
    for store in stores.values():
        store.write(LIFE_FILE, b"40")
    former = Cluster(*names, "mallory")
    for name in names:
        former.add(name, blobs(batch_size=8), store=stores[name], members_min=3)
    await former.train()

    if disk == "lost":
        stores["ada"] = MemoryStore()
    else:
        stores["ada"].write(LIFE_FILE, b"12" if disk == "rolled back" else b"4000")
    cluster = Cluster(*names, "mallory")
    for name in names:
        cluster.add(name, blobs(epochs_max=60, target=1.0), store=stores[name], members_min=3)

    async def disturb() -> None:
        await round_of(cluster.nodes["ben"], 2)
        await replay(cluster, former.hub.published, times=3)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(disturb)
        await cluster.train()
    assert len(set(cluster.digests.values())) == 1
    assert None not in cluster.digests.values()
    assert int(stores["ada"].read(LIFE_FILE) or b"0") > 40
