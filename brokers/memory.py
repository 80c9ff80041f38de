"""A broker inside this process, for tests: no network, no threads, any event loop of anyio.

Layout: `MemoryBroker` (one device's access to an `InProcessBroker`), `MemorySession`, its `_Inbox`, and `from_url`
(`memory://NAME`: within a process one broker for a name).

Unlike a network's broker it holds publishers back and drops nothing but heartbeats: `publish` waits while the queue of
a subscriber is full. Whoever publishes must therefore receive in another task, or two full devices wait for each other.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel

from brokers.accounting import Meter
from brokers.in_process import InProcessBroker, InProcessSession, PublishedMessage
from brokers.session_state import Drops
from brokers.topics import Topics
from crowd.errors import BadConfig
from crowd.ports import Broker, BrokerSession, Delivery, Traffic, Will
from crowd.units import Address, Channel, DeviceId, is_identifier

__all__ = ["InProcessBroker", "MemoryBroker", "from_url"]

_hubs: dict[str, InProcessBroker] = {}


class MemoryBroker(Broker):
    """The access of `device` to the in-process broker `hub`. Devices of different clusters on one broker do not hear
    each other."""

    def __init__(self, hub: InProcessBroker, device: DeviceId, *, cluster: str = "memory") -> None:
        self._hub = hub
        self._device = device
        self._topics = Topics(cluster)
        self._meter = Meter()

    def session(self, *, will: Will | None = None) -> AbstractAsyncContextManager[BrokerSession]:
        return self._session(will)

    @property
    def traffic(self) -> Traffic:
        return self._meter.traffic

    @asynccontextmanager
    async def _session(self, will: Will | None) -> AsyncIterator[BrokerSession]:
        session = MemorySession(self._hub, self._device, self._topics, self._meter, will)
        self._hub.attach(session)
        try:
            yield session
        finally:
            self._hub.detach(session)


class MemorySession(InProcessSession):
    """A connection to an `InProcessBroker` that holds publishers back."""

    def __init__(self, hub: InProcessBroker, device: DeviceId, topics: Topics, meter: Meter, will: Will | None) -> None:
        super().__init__(hub, device, topics, will)
        self._inbox = _Inbox(hub.queue_messages_max)
        self._meter = meter
        self._drops = Drops(device)

    async def publish(
        self, address: Address, payload: bytes, *, retain: bool = False, expiry_s: int | None = None
    ) -> None:
        message = self.message(address, payload, expiry_s=expiry_s)
        with self.session_state.holding():
            self._meter.sent(message.crossing)
            await self._hub.carry(message, publisher=self, retain=retain)
            await anyio.lowlevel.checkpoint()

    async def receive(self) -> Delivery:
        with self.session_state.holding():
            await anyio.lowlevel.checkpoint()
            message = await self._inbox.get()
            while message.expires_at_s <= anyio.current_time():
                message = await self._inbox.get()
        self._meter.received(message.crossing)
        return message.delivery

    async def offer(self, message: PublishedMessage) -> None:
        """Queue `message`; wait for room, except that a heartbeat without room is dropped: the next one says the
        same."""
        if self.session_state.lost:
            return
        if message.delivery.address.channel is Channel.BEAT and self._inbox.full:
            self._drops.count(address=message.delivery.address)
            return
        await self._inbox.put(message)

    def deliver(self, message: PublishedMessage) -> None:
        self._inbox.force(message)

    def release(self) -> None:
        self._inbox.release()


class _Inbox:
    """A first-in-first-out queue with room for `size` messages; whoever finds it full waits in turn."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._messages: deque[PublishedMessage] = deque()
        self._waiting: deque[tuple[PublishedMessage, anyio.Event]] = deque()
        self._arrival = anyio.Event()

    @property
    def full(self) -> bool:
        return len(self._messages) >= self._size

    def force(self, message: PublishedMessage) -> None:
        """Queue `message` at once, whatever the size."""
        self._messages.append(message)
        self._arrival.set()

    async def put(self, message: PublishedMessage) -> None:
        if not self.full:
            self.force(message)
            return
        turn = (message, anyio.Event())
        self._waiting.append(turn)
        try:
            await turn[1].wait()
        finally:
            if not turn[1].is_set():
                self._waiting.remove(turn)

    async def get(self) -> PublishedMessage:
        while not self._messages:
            if self._arrival.is_set():
                self._arrival = anyio.Event()
            await self._arrival.wait()
        message = self._messages.popleft()
        if self._waiting and not self.full:
            self._admit()
        return message

    def release(self) -> None:
        """Admit all who wait for room, as nobody reads any more."""
        while self._waiting:
            self._admit()

    def _admit(self) -> None:
        message, admitted = self._waiting.popleft()
        self.force(message)
        admitted.set()


def from_url(
    url: str,
    *,
    cluster: str,
    device: DeviceId,
    username: str | None = None,
    password: str | None = None,
    ca_file: str | None = None,
    slower: float = 1.0,
) -> Broker:
    """The access of `device` to the in-process broker called NAME, for `memory://NAME`; there is nobody to show
    credentials to, and the broker is on the clock of this event loop, however slow.

    Raises `BadConfig` for another kind of URL.
    """
    parts = urlsplit(url)
    if parts.scheme != "memory" or not is_identifier(parts.netloc) or parts.path not in ("", "/"):
        raise BadConfig(f"broker {url!r}: write memory://NAME, with a NAME of a-z, 0-9 and inner hyphens")
    return MemoryBroker(_hubs.setdefault(parts.netloc, InProcessBroker()), device, cluster=cluster)
