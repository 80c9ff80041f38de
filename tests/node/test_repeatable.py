"""The same seed takes the same course: a whole cluster publishes the same bytes at the same virtual times."""

import hashlib
import logging
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import structlog

from crowd.actors.data_mover.connection import Connection, OutboxItem
from crowd.ports import Broker, BrokerSession, Delivery, Traffic, Will
from crowd.units import Address, Channel, device_id
from tests.node.cluster import Cluster, WatchedHub, blobs, round_of
from tests.support.virtual import run_virtually

SPEEDS_KFLOPS = {"ada": 400, "ben": 300, "cleo": 100, "dora": 1600}
UNPLUGGED, LOOSE, HELPER = "ben", "cleo", "dora"


class TracedHub(WatchedHub):
    """Sums up everything that anybody published, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.trace = hashlib.blake2b(digest_size=16)

    async def carry(self, message: Any, *, publisher: Any, retain: bool) -> None:
        self.trace.update(repr((anyio.current_time(), message.delivery.address, retain)).encode())
        self.trace.update(message.delivery.payload)
        await super().carry(message, publisher=publisher, retain=retain)


async def course(seed: int) -> str:
    """The trace of a run in which a device goes for ever, one loses its connection, and all do when the hub crashes."""
    chance = random.Random(seed)
    cluster = Cluster(*SPEEDS_KFLOPS)
    cluster.hub = hub = TracedHub()
    for name, speed_kflops in SPEEDS_KFLOPS.items():
        cluster.add(
            name,
            blobs(0 if name == HELPER else 300, target=1.0, epochs_max=15),
            speed_kflops=speed_kflops,
            members_min=len(SPEEDS_KFLOPS),
            chance=random.Random(chance.getrandbits(64)),
        )

    async def disturb() -> None:
        await round_of(cluster.nodes[UNPLUGGED], 2)
        cluster.unplug(UNPLUGGED)
        await round_of(cluster.nodes[LOOSE], 4)
        hub.drop(device_id(LOOSE))
        await round_of(cluster.nodes[LOOSE], 6)
        hub.crash()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(disturb)
        await cluster.train()
    finished = {cluster.digests[name] for name in SPEEDS_KFLOPS if name != UNPLUGGED}
    assert cluster.digests[UNPLUGGED] is None
    assert None not in finished
    assert len(finished) == 1
    return f"{len(hub.published)} messages until {anyio.current_time()} s: {hub.trace.hexdigest()}"


def test_a_course_repeats_in_another_process_whatever_the_hash_seed() -> None:
    courses = {}
    for hash_seed in ("0", "1"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            cwd=Path(__file__).parents[2],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        courses[hash_seed] = done.stdout
    assert courses["0"] == courses["1"]
    assert courses["0"].count("messages until") == 2  # the loop and the process have a history in the second
    assert len(set(courses["0"].splitlines())) == 1


def test_another_seed_takes_another_course() -> None:
    assert run_virtually(course, 1) != run_virtually(course, 2)


class Wire(BrokerSession, Broker):
    """A connection on which nothing moves; says which of its calls was cancelled first."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []

    @asynccontextmanager
    async def session(self, *, will: Will | None = None) -> AsyncIterator[BrokerSession]:
        yield self

    @property
    def traffic(self) -> Traffic:
        return Traffic()

    async def publish(
        self, address: Address, payload: bytes, *, retain: bool = False, expiry_s: int | None = None
    ) -> None:
        await self._hang("publish")

    async def receive(self) -> Delivery:
        await self._hang("receive")
        raise AssertionError("nothing ends this wait but cancellation")

    async def subscribe(self, *patterns: Address) -> None: ...

    async def unsubscribe(self, *patterns: Address) -> None: ...

    async def _hang(self, call: str) -> None:
        try:
            with anyio.CancelScope():  # as every adapter has for each call
                await anyio.sleep_forever()
        finally:
            self.cancelled.append(call)


async def order_of_the_end() -> list[str]:
    async def ignore(news: object) -> None: ...

    async def untimed(size_bytes: int, elapsed_us: int) -> None: ...

    wire, address = Wire(), Address(channel=Channel.ALL, source=device_id("ada"))
    link = Connection(
        wire,
        will=Will(address=address, payload=b""),
        subscriptions=lambda: (),
        changed=ignore,
        arrived=ignore,
        timed=untimed,
        farewell=lambda: None,
        message_bytes_min=0,
        seed=0,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(link.run)
        link.outbox.put(OutboxItem(address=address, payload=b"bulk"), bulk=True)
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()
    return wire.cancelled


def test_what_a_device_reads_and_writes_is_cancelled_in_the_same_order_each_time() -> None:
    # the objects of one course lie elsewhere in memory than those of another
    orders = [(run_virtually(order_of_the_end), bytearray(97 * number))[0] for number in range(30)]
    assert orders == [["receive", "publish"]] * 30


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for _ in range(2):
        print(run_virtually(course, 0))
