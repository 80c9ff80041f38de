"""A broker inside this process, for tests and simulations: no network, no threads, any event loop of anyio.

Layout: `MemoryHub` (carries, retains, publishes wills, can break), `MemoryBroker` (one device's way to it), `from_url`
(`memory://NAME`: within a process one hub for a name).

Unlike a network's broker it holds publishers back and drops nothing but heartbeats: `publish` waits while the queue of
a subscriber is full. Whoever publishes must therefore receive in another task, or two full devices wait for each other.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import attrs

from brokers.accounting import Crossing, Meter, crossing
from brokers.lifeline import Drops, Lifeline
from brokers.topics import Topics, matches
from crowd.errors import BadConfig
from crowd.ports import Broker, BrokerSession, Delivery, Traffic, Will
from crowd.units import Address, Channel, DeviceId, is_identifier

QUEUE_MESSAGES_MAX = 256

_hubs: dict[str, "MemoryHub"] = {}


@attrs.frozen(kw_only=True)
class _Message:
    cluster: str
    delivery: Delivery
    crossing: Crossing
    expires_at_s: float


class _Inbox:
    """A first-in-first-out queue with room for `size` messages; whoever finds it full waits in turn."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._messages: deque[_Message] = deque()
        self._waiting: deque[tuple[_Message, anyio.Event]] = deque()
        self._arrival = anyio.Event()

    @property
    def full(self) -> bool:
        return len(self._messages) >= self._size

    def force(self, message: _Message) -> None:
        """In at once, whatever the size: for what the hub itself sends (retained messages, wills)."""
        self._messages.append(message)
        self._arrival.set()

    async def put(self, message: _Message) -> None:
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

    async def get(self) -> _Message:
        while not self._messages:
            if self._arrival.is_set():
                self._arrival = anyio.Event()
            await self._arrival.wait()
        message = self._messages.popleft()
        if self._waiting and not self.full:
            self._admit()
        return message

    def release(self) -> None:
        """Nobody reads any more: whoever waits need not."""
        while self._waiting:
            self._admit()

    def _admit(self) -> None:
        message, admitted = self._waiting.popleft()
        self.force(message)
        admitted.set()


class MemoryHub:
    """Carries messages between the sessions of one process; a queue holds `queue_messages_max` for each session."""

    def __init__(self, *, queue_messages_max: int = QUEUE_MESSAGES_MAX) -> None:
        self.queue_messages_max = queue_messages_max
        self._sessions: list[_MemorySession] = []
        self._retained: dict[tuple[str, Address], tuple[_Message, _MemorySession]] = {}

    def drop(self, device: DeviceId) -> None:
        """Cut the connection of `device`: its session raises `BrokerLost`, its will is published."""
        for session in [session for session in self._sessions if session.device == device]:
            self._forget(session, "connection lost: the link was cut")
            if session.will is not None:
                self._publish_will(session, session.will)

    def crash(self) -> None:
        """The hub dies and is back at once, with an empty memory: no retained messages, no wills, no sessions."""
        self._retained.clear()
        for session in list(self._sessions):
            self._forget(session, "connection lost: the broker crashed")

    def attach(self, session: "_MemorySession") -> None:
        self._sessions.append(session)

    def detach(self, session: "_MemorySession") -> None:
        """A clean end: the will is not published."""
        if session in self._sessions:
            self._forget(session, "the session is closed")

    async def carry(self, message: _Message, *, publisher: "_MemorySession", retain: bool) -> None:
        if retain:
            self._retain(message, publisher)
        for session in self._subscribers(message):
            if session is publisher and message.delivery.address.channel is not Channel.BEAT:
                continue
            await session.offer(message)

    def retained(self, cluster: str, pattern: Address, *, reader: "_MemorySession") -> list[_Message]:
        return [
            attrs.evolve(message, delivery=attrs.evolve(message.delivery, retained=True))
            for (of, address), (message, publisher) in self._retained.items()
            if of == cluster and matches(pattern, address) and publisher is not reader
        ]

    def _subscribers(self, message: _Message) -> list["_MemorySession"]:
        return [session for session in self._sessions if session.wants(message)]

    def _retain(self, message: _Message, publisher: "_MemorySession") -> None:
        key = (message.cluster, message.delivery.address)
        if message.delivery.payload:
            self._retained[key] = (message, publisher)
        else:
            self._retained.pop(key, None)

    def _forget(self, session: "_MemorySession", reason: str) -> None:
        self._sessions.remove(session)
        session.lifeline.lose(reason)
        session.inbox.release()

    def _publish_will(self, session: "_MemorySession", will: Will) -> None:
        message = session.message(will.address, will.payload, expiry_s=None)
        self._retain(message, session)
        for subscriber in self._subscribers(message):
            subscriber.inbox.force(message)


class MemoryBroker(Broker):
    """The way of `device` to `hub`. Devices of different clusters on one hub do not hear each other."""

    def __init__(self, hub: MemoryHub, device: DeviceId, *, cluster: str = "memory") -> None:
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
        session = _MemorySession(self._hub, self._device, self._topics, self._meter, will)
        self._hub.attach(session)
        try:
            yield session
        finally:
            self._hub.detach(session)


class _MemorySession(BrokerSession):
    def __init__(self, hub: MemoryHub, device: DeviceId, topics: Topics, meter: Meter, will: Will | None) -> None:
        self.device = device
        self.will = will
        self.lifeline = Lifeline()
        self.inbox = _Inbox(hub.queue_messages_max)
        self._hub = hub
        self._topics = topics
        self._meter = meter
        self._patterns: dict[Channel, list[Address]] = {}
        self._drops = Drops(device)

    async def publish(
        self, address: Address, payload: bytes, *, retain: bool = False, expiry_s: int | None = None
    ) -> None:
        message = self.message(address, payload, expiry_s=expiry_s)
        with self.lifeline.holding():
            self._meter.sent(message.crossing)
            await self._hub.carry(message, publisher=self, retain=retain)
            await anyio.lowlevel.checkpoint()

    async def subscribe(self, *patterns: Address) -> None:
        with self.lifeline.holding():
            for pattern in patterns:
                self._topics.pattern(pattern)  # refuses what no broker would take
                subscribed = self._patterns.setdefault(pattern.channel, [])
                if pattern not in subscribed:
                    subscribed.append(pattern)
                for message in self._hub.retained(self._topics.cluster, pattern, reader=self):
                    self.inbox.force(message)
            await anyio.lowlevel.checkpoint()

    async def unsubscribe(self, *patterns: Address) -> None:
        with self.lifeline.holding():
            for pattern in patterns:
                subscribed = self._patterns.get(pattern.channel, [])
                if pattern in subscribed:
                    subscribed.remove(pattern)
            await anyio.lowlevel.checkpoint()

    async def receive(self) -> Delivery:
        with self.lifeline.holding():
            await anyio.lowlevel.checkpoint()
            message = await self.inbox.get()
            while message.expires_at_s <= anyio.current_time():
                message = await self.inbox.get()
        self._meter.received(message.crossing)
        return message.delivery

    def wants(self, message: _Message) -> bool:
        address = message.delivery.address
        patterns = self._patterns.get(address.channel, ())
        return message.cluster == self._topics.cluster and any(matches(pattern, address) for pattern in patterns)

    async def offer(self, message: _Message) -> None:
        """Waits for room, except that a heartbeat without room is dropped: the next one says the same."""
        if self.lifeline.lost:
            return
        if message.delivery.address.channel is Channel.BEAT and self.inbox.full:
            self._drops.count(address=message.delivery.address)
            return
        await self.inbox.put(message)

    def message(self, address: Address, payload: bytes, *, expiry_s: int | None) -> _Message:
        cost = crossing(
            topic_bytes=len(self._topics.topic(address)),
            payload_bytes=len(payload),
            qos=0 if address.channel is Channel.BEAT else 1,
            expiry=expiry_s is not None,
        )
        return _Message(
            cluster=self._topics.cluster,
            delivery=Delivery(address=address, payload=payload),
            crossing=cost,
            expires_at_s=float("inf") if expiry_s is None else anyio.current_time() + expiry_s,
        )


def from_url(
    url: str,
    *,
    cluster: str,
    device: DeviceId,
    username: str | None = None,
    password: str | None = None,
    ca_file: str | None = None,
) -> Broker:
    """The way of `device` to the hub called NAME, for `memory://NAME`; there is nobody to show credentials to.

    Raises `BadConfig` for another kind of URL.
    """
    parts = urlsplit(url)
    if parts.scheme != "memory" or not is_identifier(parts.netloc) or parts.path not in ("", "/"):
        raise BadConfig(f"broker {url!r}: write memory://NAME, with a NAME of a-z, 0-9 and inner hyphens")
    return MemoryBroker(_hubs.setdefault(parts.netloc, MemoryHub()), device, cluster=cluster)
