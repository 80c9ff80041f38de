"""Emulated links: `ThrottledBroker` makes any broker as slow as a device's radio."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio

from brokers.simulated.links import Pipe
from crowd.ports import Broker, BrokerSession, Delivery, Traffic, Will
from crowd.units import Address


class ThrottledBroker(Broker):
    """A broker behind an emulated link: `inner`, which carries no more than `uplink_bytes_s` and `downlink_bytes_s`
    (both above 0).

    A message is handed to `inner` when its last byte has crossed the uplink, and to the receiver when its last byte has
    crossed the downlink; headers and acknowledgements, as `inner.traffic` counts them, delay what follows.
    """

    def __init__(self, inner: Broker, *, uplink_bytes_s: int, downlink_bytes_s: int) -> None:
        self._inner = inner
        self._uplink = _Direction(uplink_bytes_s)
        self._downlink = _Direction(downlink_bytes_s)

    def session(self, *, will: Will | None = None) -> AbstractAsyncContextManager[BrokerSession]:
        return self._session(will)

    @property
    def traffic(self) -> Traffic:
        return self._inner.traffic

    @asynccontextmanager
    async def _session(self, will: Will | None) -> AsyncIterator[BrokerSession]:
        async with self._inner.session(will=will) as inner:
            yield _ThrottledSession(inner, self)

    async def cross_uplink(self, size_bytes: int) -> None:
        """Wait until `size_bytes` of payload have crossed, after all that was put on the uplink before."""
        await anyio.sleep_until(self._uplink.put(size_bytes))
        self._uplink.waited_for(size_bytes)

    def enter_downlink(self, size_bytes: int) -> float:
        """The time at which `size_bytes` of payload will have crossed, after all that was put on the downlink
        before."""
        self._downlink.waited_for(size_bytes)
        return self._downlink.put(size_bytes)

    def settle(self) -> None:
        """Charge each direction with bytes that crossed it beyond the payloads that were waited for."""
        self._uplink.settle(self._inner.traffic.up_bytes)
        self._downlink.settle(self._inner.traffic.down_bytes)


class _ThrottledSession(BrokerSession):
    def __init__(self, inner: BrokerSession, link: ThrottledBroker) -> None:
        self._inner = inner
        self._link = link
        self._sending = anyio.Lock()
        self._receiving = anyio.Lock()
        self._arriving: tuple[Delivery, float] | None = None

    @property
    def message_bytes_max(self) -> int:
        return self._inner.message_bytes_max

    async def publish(
        self, address: Address, payload: bytes, *, retain: bool = False, expiry_s: int | None = None
    ) -> None:
        async with self._sending:  # one after the other, which keeps the order
            await self._link.cross_uplink(len(payload))
        await self._inner.publish(address, payload, retain=retain, expiry_s=expiry_s)
        self._link.settle()

    async def subscribe(self, *patterns: Address) -> None:
        await self._inner.subscribe(*patterns)

    async def unsubscribe(self, *patterns: Address) -> None:
        await self._inner.unsubscribe(*patterns)

    async def receive(self) -> Delivery:
        async with self._receiving:
            if self._arriving is None:
                delivery = await self._inner.receive()
                # Kept, so that a receive that is cancelled here loses nothing.
                self._arriving = (delivery, self._link.enter_downlink(len(delivery.payload)))
                self._link.settle()
            delivery, arrives_at_s = self._arriving
            await anyio.sleep_until(arrives_at_s)
            self._arriving = None
            return delivery


class _Direction:
    """One direction of a link, and how many of the bytes that crossed it were put on its pipe."""

    def __init__(self, bytes_s: int) -> None:
        self._bytes_s = bytes_s
        self._pipe = Pipe()
        self._charged_bytes = 0

    def put(self, size_bytes: int) -> float:
        """The time at which the last of these bytes has crossed."""
        return self._pipe.put(size_bytes / self._bytes_s, ready_at_s=anyio.current_time())

    def waited_for(self, size_bytes: int) -> None:
        """Count bytes that were put before, and that the broker counts as crossed from now on."""
        self._charged_bytes += size_bytes

    def settle(self, crossed_bytes: int) -> None:
        """Put the bytes that were not put before, if `crossed_bytes` in all have crossed."""
        owed_bytes = max(0, crossed_bytes - self._charged_bytes)
        self._charged_bytes += owed_bytes
        self.put(owed_bytes)
