"""A cluster's network in simulation: links with a rate and a delay around a broker in memory, and all that can go wrong
with them. For an asyncio loop, of which it uses timers; under virtual time equal seeds give equal runs.

Layout: `Network` (the broker, who can reach it, and the faults), `_NetworkBroker` (one device's access to it) and
`_NetworkSession`. The links are in `links`, the faults of single messages in `subscriber_queue`.

A message crosses the uplink of its sender, waits at the broker until the downlink of each subscriber is free for it,
and crosses that, whether somebody reads there or not: a reader that is late finds what came meanwhile. Sent and
received messages take their turns on a half-duplex link in the order in which they were ready. There are no tasks of
the network's own: a device's messages are carried by its own calls, and rest while its process does; those sent to it
take a timer.
"""

import asyncio
import contextvars
import functools
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import attrs

from brokers.in_process import InProcessBroker, InProcessSession, PublishedMessage
from brokers.session_state import KEEPALIVE_S
from brokers.simulated.links import Link, LinkSpec, Route
from brokers.simulated.partitions import Partitions
from brokers.simulated.subscriber_queue import NO_MISHAPS, FaultRates, SubscriberQueue
from brokers.topics import Topics
from crowd.errors import BrokerLost
from crowd.experiment.metering import LinkBusy
from crowd.ports import Broker, BrokerSession, Delivery, Traffic, Will
from crowd.units import Address, Channel, DeviceId

__all__ = ["FaultRates", "LinkSpec", "Network"]

MOSQUITTO_QUEUE_MESSAGES_MAX = 1000

Handle = Callable[[int], Awaitable[None]]


class Network(InProcessBroker):
    """A broker that drops messages beyond `queue_messages_max` that wait for a subscriber, and the links to it.

    With a `host` the broker runs on that device: its own messages cross no link, everybody else's cross its link too.
    """

    def __init__(
        self,
        *,
        seed: int,
        queue_messages_max: int = MOSQUITTO_QUEUE_MESSAGES_MAX,
        host: DeviceId | None = None,
        fault_rates: FaultRates = NO_MISHAPS,
    ) -> None:
        super().__init__(queue_messages_max=queue_messages_max)
        self.fault_rates = fault_rates
        self.dropped: Counter[str] = Counter()
        """Numbers of dropped messages by cause: `lost`, `overflow`, `cut`, `muted`."""
        self.published = 0
        self._host = host
        self.chance = random.Random(seed)
        self._links: dict[DeviceId, Link] = {}
        self.partitions = Partitions(host)
        self._muted: dict[DeviceId, Callable[[Delivery], bool]] = {}
        self._latest: dict[DeviceId, InProcessSession] = {}
        self._crashes = 0
        self._refuses_until_s = float("-inf")

    def broker(self, device: DeviceId, spec: LinkSpec, *, cluster: str, handle: Handle | None = None) -> Broker:
        """The access of `device`, over a new link; its `traffic` is all that crossed that link, resends included.

        `handle` is awaited with the size of each payload, before it is sent and before it is received: it returns when
        the device's processor has done what belongs to it.
        """
        self._links[device] = Link(spec)
        return _NetworkBroker(self, device, self._links[device], Topics(cluster), handle)

    def transfers(self, device: DeviceId) -> LinkBusy:
        """The times at which the link of `device` was busy so far."""
        return self._links[device].transfers

    def saw(self, device: DeviceId, delivery: Delivery) -> None:
        """Notice a message of `device` as it begins to leave it; called once for each; for checkers to override."""

    # --- faults -------------------------------------------------------------------------------------------------------

    def cut(self, device: DeviceId, *, up: bool = True, down: bool = True) -> None:
        """Cut the link of `device`: what it sends (`up`) and what is sent to it (`down`) vanishes from now on, and it
        can open no session.

        A session that is not mended ends: for the client after `KEEPALIVE_S`; for the broker, which then publishes the
        will, at the same time if it can still hear the client go, else half as much later.
        """
        self.partitions.cut(device, up=up, down=down)
        for session in self._all_sessions():
            self._note_silence(session)
            if not self.partitions.down(session.device):
                session.lose_what_is_coming()

    def mend(self, device: DeviceId) -> None:
        """Mend the link of `device` in both directions; sessions that have not ended go on."""
        self.partitions.mend(device)
        for session in self._all_sessions():
            self._note_silence(session)

    def drop(self, device: DeviceId, *, will_after_s: float = 0.0) -> None:
        """End the connection of `device` now. The broker notices, and publishes the will, `will_after_s` later, even if
        the device is back by then."""
        for session in self._sessions_of(device):
            self._forget(session, "connection lost: the link was cut")
            if will_after_s == 0.0:
                self._publish_will(session)
            else:
                self._later(will_after_s, functools.partial(self._publish_will, session))

    def crash(self, *, down_s: float = 0.0) -> None:
        """Crash the broker: it comes back after `down_s` with an empty memory, and until then refuses sessions."""
        super().crash()
        self._latest.clear()
        self._crashes += 1
        self._refuses_until_s = anyio.current_time() + down_s

    def mute(self, device: DeviceId, matching: Callable[[Delivery], bool]) -> None:
        """Drop all `matching` messages of `device` at the broker, which still acknowledges them."""
        self._muted[device] = matching

    def unmute(self, device: DeviceId) -> None:
        """Let the broker carry all messages of `device` again."""
        self._muted.pop(device, None)

    def stale_will(self, device: DeviceId) -> None:
        """Publish the will of the latest session of `device` now, whether the device is online or not."""
        if device in self._latest:
            self._publish_will(self._latest[device])

    # --- for brokers and sessions -------------------------------------------------------------------------------------

    def route(self, device: DeviceId, link: Link) -> Route:
        """The path from `device` over its `link`; `ValueError` if the broker's host has no link yet."""
        if self._host is None:
            return Route(own=link, host=None, chance=self.chance)
        if device == self._host:
            return Route(own=None, host=None, chance=self.chance)
        if self._host not in self._links:
            raise ValueError(f"{self._host} hosts the broker and has no link: call `broker` for it first")
        return Route(own=link, host=self._links[self._host], chance=self.chance)

    def admit(self, device: DeviceId) -> None:
        """Raise `BrokerLost` if `device` can open no session now."""
        if not self.partitions.both(device):
            raise BrokerLost(f"the broker is out of reach: the link of {device} is cut")
        if anyio.current_time() < self._refuses_until_s:
            raise BrokerLost("the broker is out of reach: it crashed and is not back yet")

    def attach(self, session: InProcessSession) -> None:
        super().attach(session)
        self._latest[session.device] = session

    def detach(self, session: InProcessSession) -> None:
        """Close a session: cleanly, without the will, if the broker hears of it."""
        if self.partitions.up(session.device) and not session.session_state.lost:
            super().detach(session)
        session.session_state.lose("the session is closed")

    async def carry(self, message: PublishedMessage, *, publisher: InProcessSession, retain: bool) -> None:
        device = publisher.device
        if not self.partitions.up(device):
            self.dropped["cut"] += 1
        elif device in self._muted and self._muted[device](message.delivery):
            self.dropped["muted"] += 1
        else:
            await super().carry(message, publisher=publisher, retain=retain)

    def _all_sessions(self) -> list["_NetworkSession"]:
        return [session for session in self._sessions if isinstance(session, _NetworkSession)]

    # --- keep-alive ---------------------------------------------------------------------------------------------------

    def _note_silence(self, session: "_NetworkSession") -> None:
        whole = self.partitions.both(session.device)
        if not whole and session.silent_since_s is None:
            session.silent_since_s = since_s = anyio.current_time()
            self._later(KEEPALIVE_S, functools.partial(self._client_gives_up, session, since_s))
            self._later(KEEPALIVE_S * 1.5, functools.partial(self._broker_gives_up, session, since_s))
        elif whole and not session.session_state.lost:
            session.silent_since_s = None

    def _client_gives_up(self, session: "_NetworkSession", since_s: float) -> None:
        if session.silent_since_s != since_s:
            return
        session.session_state.lose("connection lost: the broker was not heard within the keep-alive")
        if self.partitions.up(session.device):
            self._broker_gives_up(session, since_s)

    def _broker_gives_up(self, session: "_NetworkSession", since_s: float) -> None:
        if session.silent_since_s == since_s and session in self._sessions:
            self._forget(session, "connection lost: the client was not heard within the keep-alive")
            self._publish_will(session)

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call `action` unless the broker has crashed by then, which forgets what it had in mind."""
        crashes = self._crashes

        def act() -> None:
            if self._crashes == crashes:
                action()

        # A context of its own: no simulated process owns this timer.
        asyncio.get_running_loop().call_later(delay_s, act, context=contextvars.Context())


class _NetworkBroker(Broker):
    def __init__(self, network: Network, device: DeviceId, link: Link, topics: Topics, handle: Handle | None) -> None:
        self._network = network
        self._device = device
        self._link = link
        self._topics = topics
        self._handle = handle

    def session(self, *, will: Will | None = None) -> AbstractAsyncContextManager[BrokerSession]:
        return self._session(will)

    @property
    def traffic(self) -> Traffic:
        return self._link.traffic

    @asynccontextmanager
    async def _session(self, will: Will | None) -> AsyncIterator[BrokerSession]:
        route = self._network.route(self._device, self._link)
        for _ in ("SYN", "SYN ACK", "CONNECT", "CONNACK"):
            await anyio.sleep(route.delay_s())
        self._network.admit(self._device)
        session = _NetworkSession(self._network, self._device, route, self._topics, will, self._handle)
        self._network.attach(session)
        try:
            yield session
        finally:
            self._network.detach(session)


class _NetworkSession(InProcessSession):
    def __init__(
        self,
        network: Network,
        device: DeviceId,
        route: Route,
        topics: Topics,
        will: Will | None,
        handle: Handle | None,
    ) -> None:
        super().__init__(network, device, topics, will)
        self.silent_since_s: float | None = None
        """Time since which not all that one side sends reaches the other; `None`: it does."""
        self._network = network
        self._route = route
        self._handler = handle
        self._sending = anyio.Lock(fast_acquire=True)
        self._landing = anyio.Lock(fast_acquire=True)
        self._queue = SubscriberQueue(
            network.queue_messages_max, arrival=self._arrival_s, chance=network.chance, dropped=network.dropped
        )
        self.session_state.call_when_lost(self._queue.wake)

    async def publish(
        self, address: Address, payload: bytes, *, retain: bool = False, expiry_s: int | None = None
    ) -> None:
        message = self.message(address, payload, expiry_s=expiry_s)
        with self.session_state.holding():
            async with self._sending:  # one after the other, as on one socket
                self._network.published += 1
                self._network.saw(self.device, message.delivery)
                leaves_at_s = self._route.up(message.crossing, ready_at_s=anyio.current_time())
                await self._handle(payload)  # while its first bytes cross the link
                await anyio.sleep_until(leaves_at_s)
                lands_at_s = anyio.current_time() + self._route.delay_s()
            async with self._landing:  # none overtakes another, whatever the jitter
                await anyio.sleep_until(lands_at_s)
                await self._network.carry(self._stamped(message, expiry_s), publisher=self, retain=retain)
            if address.channel is not Channel.BEAT:
                await self._cross()  # the PUBACK

    async def subscribe(self, *patterns: Address) -> None:
        with self.session_state.holding():
            await self._cross()
            await super().subscribe(*patterns)
            await self._cross()

    async def unsubscribe(self, *patterns: Address) -> None:
        with self.session_state.holding():
            await self._cross()
            await super().unsubscribe(*patterns)
            await self._cross()

    async def receive(self) -> Delivery:
        message = None
        while message is None:
            self.session_state.check()
            await self._queue.wait()
            self.session_state.check()
            message = self._queue.arrived()
        # taken from the queue afterwards: a receive that is cancelled here loses nothing
        await self._handle(message.delivery.payload)
        self.session_state.check()
        self._queue.take()
        return message.delivery

    async def _handle(self, payload: bytes) -> None:
        if self._handler is not None:
            await self._handler(len(payload))

    async def offer(self, message: PublishedMessage) -> None:
        self.deliver(message)

    def deliver(self, message: PublishedMessage) -> None:
        if not self.session_state.lost:
            self._queue.put(message, self._network.fault_rates)

    def release(self) -> None:
        """Do nothing, as nobody waits: messages that find no room are dropped."""

    def lose_what_is_coming(self) -> None:
        """Drop the messages that were on the link to this device, or waiting for it, when it was cut."""
        self._network.dropped["cut"] += self._queue.clear_coming()

    def _arrival_s(self, message: PublishedMessage, ready_at_s: float) -> float | None:
        """Put a message on the link to this device; returns the time at which it will be there, or `None` if it does
        not go."""
        if not self._network.partitions.down(self.device):
            self._network.dropped["cut"] += 1
            return None
        if message.expires_at_s <= self._route.begins_down_s(ready_at_s):
            return None
        return self._route.down(message.crossing, ready_at_s=ready_at_s) + self._route.delay_s()

    async def _cross(self) -> None:
        """Wait as long as a small packet needs in one direction, which TCP repeats until it gets there."""
        await self._network.partitions.restored(self.device)
        await anyio.sleep(self._route.delay_s())

    def _stamped(self, message: PublishedMessage, expiry_s: int | None) -> PublishedMessage:
        """The message with its age counted from its arrival at the broker, as brokers do."""
        return message if expiry_s is None else attrs.evolve(message, expires_at_s=anyio.current_time() + expiry_s)
