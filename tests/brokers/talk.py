"""Short words for what the broker tests say to each other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from crowd.ports import BrokerSession, Delivery
from crowd.units import Address, Channel, DeviceId

ANNA, BEN, CARL = DeviceId("anna"), DeviceId("ben"), DeviceId("carl")
PATIENCE_S = 20.0


def letter(source: DeviceId | None, destination: DeviceId | None) -> Address:
    return Address(channel=Channel.TO, source=source, destination=destination)


def of(channel: Channel, source: DeviceId | None = None) -> Address:
    return Address(channel=channel, source=source)


def chunk(source: DeviceId | None, destination: DeviceId | None, transfer: str | None, n: int | None) -> Address:
    return Address(channel=Channel.BLOB, source=source, destination=destination, name=transfer, chunk=n)


async def take(session: BrokerSession) -> Delivery:
    with anyio.fail_after(PATIENCE_S):
        return await session.receive()


async def payloads(session: BrokerSession, count: int) -> list[bytes]:
    return [(await take(session)).payload for _ in range(count)]


@asynccontextmanager
async def in_background(*jobs: object) -> AsyncIterator[None]:
    """Runs coroutine functions next to the body, and waits for them at the end, for a while."""
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for job in jobs:
                tasks.start_soon(job)  # type: ignore[arg-type]  # any coroutine function without parameters
            yield
