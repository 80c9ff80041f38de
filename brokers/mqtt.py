"""An MQTT 5 broker: the adapter of the port.

Layout: `MqttBroker` (one device's access to the broker), `_MqttSession` (a live connection), `_Inbox` (what has come
and was not read yet) and `from_url` (`mqtt://` and `mqtts://`).

Everything is QoS 1 but heartbeats (QoS 0). A slow receiver holds the broker back by MQTT's own means: an arrived
message is acknowledged only when `receive` hands it out, and the broker sends no more than `RECEIVE_MESSAGES_MAX`
unacknowledged ones (Receive Maximum: MQTT 5, sections 3.1.2.11.3 and 4.9). It then queues, and past its limit drops.
Nothing holds back what has QoS 0: of heartbeats `BEATS_MAX` wait, and all else is dropped, as no device sends it.
"""

import functools
import secrets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import anyio.lowlevel
import attrs
import structlog
from paho.mqtt.subscribeoptions import SubscribeOptions

from brokers import endpoint
from brokers.accounting import HEADERS_BYTES_MAX, Crossing, Meter, crossing
from brokers.echo import Echo
from brokers.endpoint import Endpoint
from brokers.mqtt_link import Arrival, LastWord, MqttLink
from brokers.session_state import KEEPALIVE_S, Drops, SessionState
from brokers.topics import Topics
from crowd.errors import BrokerRefused, MalformedMessage
from crowd.ports import MESSAGE_BYTES_MAX, Broker, BrokerSession, Delivery, Traffic, Will
from crowd.units import Address, Channel, DeviceId

BEATS_MAX = 256
BEAT_BYTES_MAX = 1024
"""Bytes of the longest heartbeat that is let in."""
ADDRESSES_MAX = 256
"""Topics of which a session remembers what they stand for."""
READ_IN_A_ROW = 32
"""Messages that are read in one turn of the event loop, at whose end a thread that trains may take 5 ms for itself."""
KEEPALIVE_S_MAX = 65_535
"""The longest keep-alive that fits into CONNECT (MQTT 5, section 3.1.2.10)."""

_log = structlog.get_logger(__name__)


class MqttBroker(Broker):
    """The access of `device` to the broker at `endpoint`; made by `from_url`."""

    def __init__(self, endpoint: Endpoint, *, cluster: str, device: DeviceId, slower: float = 1.0) -> None:
        self._endpoint = endpoint
        self._device = device
        self._slower = slower
        self._topics = Topics(cluster)
        self._meter = Meter()
        self._drops = Drops(device)

    def session(self, *, will: Will | None = None) -> AbstractAsyncContextManager[BrokerSession]:
        return self._session(will)

    @property
    def traffic(self) -> Traffic:
        return self._meter.traffic

    @asynccontextmanager
    async def _session(self, will: Will | None) -> AsyncIterator[BrokerSession]:
        session = _MqttSession(self._endpoint, self._device, self._topics, self._meter, self._drops, self._slower, will)
        failure: Exception | None = None
        try:
            await session.link.connect()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(session.watch)
                try:
                    yield session
                except Exception as error:
                    # Raised again below: the task group would wrap it in an ExceptionGroup.
                    failure = error
                finally:
                    tasks.cancel_scope.cancel()
                    with anyio.CancelScope(shield=True):
                        await session.link.say_goodbye()
        finally:
            session.end()
            session.link.close_socket()
        if failure is not None:
            raise failure


class _MqttSession(BrokerSession):
    def __init__(
        self,
        endpoint: Endpoint,
        device: DeviceId,
        topics: Topics,
        meter: Meter,
        drops: Drops,
        slower: float,
        will: Will | None,
    ) -> None:
        self._endpoint = endpoint
        self._topics = topics
        self._meter = meter
        self._slower = slower
        self._lifeline = SessionState()
        self._drops = drops
        self._own_retained: dict[Address, bytes] = {}
        self._inbox = _Inbox()
        self._address_of = functools.lru_cache(maxsize=ADDRESSES_MAX)(self._address)
        self._echo = Echo(device)
        self._beat_taken = False
        self._in_a_row = 0
        self.link = MqttLink(
            endpoint,
            # A name of its own for every session: under its old one a device need not be sent, as its own, what it
            # retained in an earlier life (MQTT 5, section 3.8.3.1).
            identifier=f"crowd-{device}-{secrets.token_hex(4)}",
            last_word=None if will is None else LastWord(topic=topics.topic(will.address), payload=will.payload),
            keepalive_s=min(KEEPALIVE_S_MAX, round(KEEPALIVE_S * slower)),
            arrived=self._take,
        )

    @property
    def message_bytes_max(self) -> int:
        packet_bytes_max = self.link.packet_bytes_max
        if packet_bytes_max is None:
            return MESSAGE_BYTES_MAX
        return min(MESSAGE_BYTES_MAX, packet_bytes_max - HEADERS_BYTES_MAX)

    async def publish(
        self, address: Address, payload: bytes, *, retain: bool = False, expiry_s: int | None = None
    ) -> None:
        topic = self._topics.topic(address)
        # the first heartbeat too, as at QoS 0 nobody would hear that an access list denies it
        qos = _qos(address) if self._beat_taken else 1
        with self._lifeline.holding():
            if retain:
                self._own_retained[address] = payload
            self._meter.sent(
                crossing(topic_bytes=len(topic), payload_bytes=len(payload), qos=qos, expiry=expiry_s is not None)
            )
            # No timeout of its own: a slow link is not a lost one. The session state ends it.
            await self.link.publish(
                topic,
                payload,
                qos=qos,
                retain=retain,
                expiry_s=None if expiry_s is None else round(expiry_s * self._slower),
            )
            self._beat_taken = self._beat_taken or address.channel is Channel.BEAT
            self._echo.sent(address, topic)

    async def subscribe(self, *patterns: Address) -> None:
        filters = [
            (
                self._topics.pattern(pattern),
                SubscribeOptions(qos=_qos(pattern), noLocal=pattern.channel is not Channel.BEAT),
            )
            for pattern in patterns
        ]
        with self._lifeline.holding():
            refusals = await self.link.subscribe(filters)
        for (pattern, _), refusal in zip(filters, refusals, strict=True):
            if refusal is not None:
                raise BrokerRefused(
                    f"broker {self._endpoint.url} refused {self._endpoint.who} the subscription to {pattern}: "
                    f"{refusal}; allow reading it in the broker's access list"
                )
        self._echo.subscribed(patterns)

    async def unsubscribe(self, *patterns: Address) -> None:
        filters = [self._topics.pattern(pattern) for pattern in patterns]
        with self._lifeline.holding():
            await self.link.unsubscribe(filters)
        self._echo.unsubscribed(patterns)

    async def receive(self) -> Delivery:
        self._lifeline.check()
        self._in_a_row = (self._in_a_row + 1) % READ_IN_A_ROW
        if self._in_a_row == 0 or self._inbox.is_empty:
            with self._lifeline.holding():
                await anyio.lowlevel.checkpoint()
                await self._inbox.wait()
        message = self._inbox.take()
        self._settle(message.arrival)
        return message.delivery

    async def watch(self) -> None:
        """Wait until the connection goes, and let all calls fail then."""
        loss = await self.link.until_lost()
        self._lifeline.lose(str(loss), loss, kind=type(loss))

    def end(self) -> None:
        """End all calls, and count the arrived messages that were not handed out: they have crossed the link."""
        self._lifeline.lose(f"the session with {self._endpoint.url} is closed")
        for message in self._inbox.drain():
            self._meter.received(_crossing_of(message.arrival))

    def _take(self, arrival: Arrival) -> None:
        """Keep a message until it is read, if it is ours and there is room."""
        address = self._address_of(arrival.topic)
        # Mosquitto (2.0.11) sends retained messages back to their publisher in spite of No Local.
        if address is not None:
            self._echo.came(address)
        own = arrival.retained and address is not None and self._own_retained.get(address)
        if address is None or own == arrival.payload:
            self._settle(arrival)
        elif not self._inbox.put(_Unread(address=address, arrival=arrival)):
            self._drops.count(address=address)
            self._settle(arrival)

    def _address(self, topic: str) -> Address | None:
        try:
            return self._topics.parse(topic)
        except MalformedMessage as error:
            _log.debug("foreign_topic_ignored", reason=str(error))
            return None

    def _settle(self, arrival: Arrival) -> None:
        """Count the message and acknowledge it, which lets the broker send the next one."""
        self._meter.received(_crossing_of(arrival))
        self.link.acknowledge(arrival)


@attrs.frozen(kw_only=True)
class _Unread:
    address: Address
    arrival: Arrival

    @property
    def delivery(self) -> Delivery:
        return Delivery(address=self.address, payload=self.arrival.payload, retained=self.arrival.retained)


class _Inbox:
    """The messages that nobody has read yet: heartbeats, at most `BEATS_MAX`, and all else, which the Receive Maximum
    bounds. They are read in turns, so that neither holds up the other."""

    def __init__(self) -> None:
        self._beats: deque[_Unread] = deque()
        self._others: deque[_Unread] = deque()
        self._beat_is_next = False
        self._filled = anyio.Event()

    def put(self, message: _Unread) -> bool:
        """Keep `message`; whether there was room for it."""
        if message.arrival.qos == 0:
            is_beat = message.address.channel is Channel.BEAT and len(message.arrival.payload) <= BEAT_BYTES_MAX
            if not is_beat or len(self._beats) >= BEATS_MAX:
                return False
            self._beats.append(message)
        else:
            self._others.append(message)
        self._filled.set()
        return True

    @property
    def is_empty(self) -> bool:
        return not self._beats and not self._others

    async def wait(self) -> None:
        """Wait until there is a message."""
        while self.is_empty:
            self._filled = anyio.Event()
            await self._filled.wait()

    def take(self) -> _Unread:
        """The next message, if it is not empty."""
        self._beat_is_next = not self._beat_is_next
        queue = self._beats if (self._beat_is_next and self._beats) or not self._others else self._others
        return queue.popleft()

    def drain(self) -> list[_Unread]:
        """All that is left, for good."""
        left = [*self._beats, *self._others]
        self._beats.clear()
        self._others.clear()
        return left


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
    """The access of `device` to the broker at `mqtt://host[:port]` or, with TLS, `mqtts://host[:port]`. Nothing is
    connected yet.

    `ca_file` holds the certificates (PEM) to trust; without it those of the system are. `slower` tells how many times
    slower than the broker's the clock of this event loop goes: times that the broker is told are so much longer. Raises
    `BadConfig` for a URL or a file that cannot be used.
    """
    return MqttBroker(
        endpoint.from_url(url, username=username, password=password, ca_file=ca_file),
        cluster=cluster,
        device=device,
        slower=slower,
    )


def _qos(address: Address) -> int:
    return 0 if address.channel is Channel.BEAT else 1


def _crossing_of(arrival: Arrival) -> Crossing:
    return crossing(
        topic_bytes=len(arrival.topic.encode()),
        payload_bytes=len(arrival.payload),
        qos=arrival.qos,
        expiry=arrival.expires,
    )
