"""The common parts of the brokers inside this process: no network, no threads.

Layout: `PublishedMessage` (what is carried), `InProcessBroker` (carries, retains, publishes wills, can break) and
`InProcessSession` (one device's connection to it; its kinds differ in how they deliver).
"""

import abc
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import attrs

from brokers.accounting import Crossing, crossing
from brokers.session_state import SessionState
from brokers.topics import Topics, matches
from crowd.ports import BrokerSession, Delivery, Will
from crowd.units import Address, Channel, DeviceId

QUEUE_MESSAGES_MAX = 256


@attrs.frozen(kw_only=True)
class PublishedMessage:
    """A message on its way, with its size on a link and the time at which it expires."""

    cluster: str
    delivery: Delivery
    crossing: Crossing
    expires_at_s: float


class InProcessBroker:
    """A broker for the sessions of one process; a queue holds `queue_messages_max` for each session."""

    def __init__(self, *, queue_messages_max: int = QUEUE_MESSAGES_MAX) -> None:
        self.queue_messages_max = queue_messages_max
        self._sessions: list[InProcessSession] = []
        self._listeners: dict[_Spot, dict[InProcessSession, None]] = {}
        self._retained: dict[tuple[str, Channel], dict[Address, tuple[PublishedMessage, InProcessSession]]] = {}

    def drop(self, device: DeviceId) -> None:
        """Cut the connection of `device`: its session raises `BrokerLost`, its will is published."""
        for session in self._sessions_of(device):
            self._forget(session, "connection lost: the link was cut")
            self._publish_will(session)

    def crash(self) -> None:
        """Crash and be back at once, with an empty memory: no retained messages, no wills, no sessions."""
        self._retained.clear()
        for session in list(self._sessions):
            self._forget(session, "connection lost: the broker crashed")

    def attach(self, session: "InProcessSession") -> None:
        """Admit a session."""
        self._sessions.append(session)

    def detach(self, session: "InProcessSession") -> None:
        """Close a session cleanly: the will is not published."""
        if session in self._sessions:
            self._forget(session, "the session is closed")

    def listen(self, session: "InProcessSession", pattern: Address) -> None:
        """Let `session` receive messages that match `pattern`."""
        self._listeners.setdefault(_spot(session.cluster, pattern), {})[session] = None

    def ignore(self, session: "InProcessSession", pattern: Address) -> None:
        """Remove the index entry of `pattern`, as no pattern of `session` is left that names the same source and
        destination."""
        self._listeners.get(_spot(session.cluster, pattern), {}).pop(session, None)

    async def carry(self, message: PublishedMessage, *, publisher: "InProcessSession", retain: bool) -> None:
        """Deliver a message to all subscribers, but not to its publisher, except on `Channel.BEAT`."""
        if retain:
            self._retain(message, publisher)
        for session in self._subscribers(message):
            if session is publisher and message.delivery.address.channel is not Channel.BEAT:
                continue
            await session.offer(message)

    def retained(self, pattern: Address, *, reader: "InProcessSession") -> list[PublishedMessage]:
        """The retained messages that match and were not published by `reader` itself."""
        kept = self._retained.get((reader.cluster, pattern.channel), {})
        return [
            attrs.evolve(message, delivery=attrs.evolve(message.delivery, retained=True))
            for address, (message, publisher) in kept.items()
            if matches(pattern, address) and publisher is not reader
        ]

    def _sessions_of(self, device: DeviceId) -> list["InProcessSession"]:
        return [session for session in self._sessions if session.device == device]

    def _subscribers(self, message: PublishedMessage) -> list["InProcessSession"]:
        address = message.delivery.address
        near: dict[InProcessSession, None] = {}
        for index_key in _spots(message.cluster, address):
            near |= self._listeners.get(index_key, {})
        return [session for session in near if session.wants(address)]

    def _retain(self, message: PublishedMessage, publisher: "InProcessSession") -> None:
        address = message.delivery.address
        kept = self._retained.setdefault((message.cluster, address.channel), {})
        if message.delivery.payload:
            kept[address] = (message, publisher)
        else:
            kept.pop(address, None)

    def _forget(self, session: "InProcessSession", reason: str) -> None:
        self._sessions.remove(session)
        for pattern in session.patterns:
            self.ignore(session, pattern)
        session.session_state.lose(reason)
        session.release()

    def _publish_will(self, session: "InProcessSession") -> None:
        if session.will is None:
            return
        message = session.message(session.will.address, session.will.payload, expiry_s=None)
        self._retain(message, session)
        for subscriber in self._subscribers(message):
            subscriber.deliver(message)


class InProcessSession(BrokerSession):
    """One connection of `device` to the in-process broker `hub`, with its subscriptions."""

    def __init__(self, hub: InProcessBroker, device: DeviceId, topics: Topics, will: Will | None) -> None:
        self.device = device
        self.cluster = topics.cluster
        self.will = will
        self.session_state = SessionState()
        self._hub = hub
        self._topics = topics
        self._patterns: dict[Channel, list[Address]] = {}

    @abc.abstractmethod
    async def offer(self, message: PublishedMessage) -> None:
        """Queue `message` for `receive`, when there is room."""

    @abc.abstractmethod
    def deliver(self, message: PublishedMessage) -> None:
        """Queue `message` at once, whatever the room: for what the broker itself sends, retained messages and wills."""

    @abc.abstractmethod
    def release(self) -> None:
        """Release all who wait for room, as nobody reads any more."""

    async def subscribe(self, *patterns: Address) -> None:
        with self.session_state.holding():
            for pattern in patterns:
                self._topics.pattern(pattern)  # raises for a pattern that no broker would take
                subscribed = self._patterns.setdefault(pattern.channel, [])
                if pattern not in subscribed:
                    subscribed.append(pattern)
                    self._hub.listen(self, pattern)
                for message in self._hub.retained(pattern, reader=self):
                    self.deliver(message)
            await anyio.lowlevel.checkpoint()

    async def unsubscribe(self, *patterns: Address) -> None:
        with self.session_state.holding():
            for pattern in patterns:
                subscribed = self._patterns.get(pattern.channel, [])
                if pattern in subscribed:
                    subscribed.remove(pattern)
                    index_key = _spot(self.cluster, pattern)
                    if all(_spot(self.cluster, other) != index_key for other in subscribed):
                        self._hub.ignore(self, pattern)
            await anyio.lowlevel.checkpoint()

    @property
    def patterns(self) -> Iterator[Address]:
        for subscribed in self._patterns.values():
            yield from subscribed

    def wants(self, address: Address) -> bool:
        return any(matches(pattern, address) for pattern in self._patterns.get(address.channel, ()))

    def message(self, address: Address, payload: bytes, *, expiry_s: int | None) -> PublishedMessage:
        """The message that carries `payload`; `ValueError` if nothing can be published to `address`."""
        cost = crossing(
            topic_bytes=len(self._topics.topic(address)),
            payload_bytes=len(payload),
            qos=0 if address.channel is Channel.BEAT else 1,
            expiry=expiry_s is not None,
        )
        return PublishedMessage(
            cluster=self.cluster,
            delivery=Delivery(address=address, payload=payload),
            crossing=cost,
            expires_at_s=float("inf") if expiry_s is None else anyio.current_time() + expiry_s,
        )


_Spot = tuple[str, Channel, DeviceId | None, DeviceId | None]
"""A key of the broker's index of patterns: cluster, channel, source and destination."""


def _spot(cluster: str, pattern: Address) -> _Spot:
    return (cluster, pattern.channel, pattern.source, pattern.destination)


def _spots(cluster: str, address: Address) -> Iterator[_Spot]:
    """The index keys of all patterns that could match `address`."""
    for source in {address.source: None, None: None}:
        for destination in {address.destination: None, None: None}:
            yield (cluster, address.channel, source, destination)
