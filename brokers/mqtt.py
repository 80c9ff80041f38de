"""An MQTT 5 broker, by aiomqtt; the only file that knows the library.

Layout: `MqttBroker` (one device's access to the broker), `_MqttSession` (a live connection) and `from_url` (`mqtt://`
and `mqtts://`).

Everything is QoS 1 but heartbeats (QoS 0). A slow receiver holds the broker back by MQTT's own means: an arrived
message is acknowledged only when `receive` hands it out, and the broker sends no more than `RECEIVE_MESSAGES_MAX`
unacknowledged ones (Receive Maximum: MQTT 5, sections 3.1.2.11.3 and 4.9). It then queues, and past its limit drops.
"""

import contextlib
import logging
import math
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import aiomqtt
import anyio
import attrs
import structlog
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from brokers import endpoint
from brokers.accounting import Crossing, Meter, crossing
from brokers.endpoint import Endpoint
from brokers.session_state import KEEPALIVE_S, Drops, SessionState
from brokers.topics import Topics
from crowd.errors import BrokerLost, BrokerRefused, MalformedMessage
from crowd.ports import Broker, BrokerSession, Delivery, Traffic, Will
from crowd.units import Address, Channel, DeviceId

RECEIVE_MESSAGES_MAX = 32
BEATS_MAX = 256
KEEPALIVE_S_MAX = 65_535
"""The longest keep-alive that fits into CONNECT (MQTT 5, section 3.1.2.10)."""
CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0

_FAILURE = 0x80

T = TypeVar("T")

_log = structlog.get_logger(__name__)
# Whatever the libraries would complain about reaches the caller as an error.
_library_log = logging.getLogger(f"{__name__}.library")
_library_log.setLevel(logging.CRITICAL)


class MqttBroker(Broker):
    """The access of `device` to the broker at `endpoint`; made by `from_url`."""

    def __init__(self, endpoint: Endpoint, *, cluster: str, device: DeviceId, slower: float = 1.0) -> None:
        self._endpoint = endpoint
        self._device = device
        self._slower = slower
        self._topics = Topics(cluster)
        self._meter = Meter()

    def session(self, *, will: Will | None = None) -> AbstractAsyncContextManager[BrokerSession]:
        """Connect. A cancelled attempt takes until `CONNECT_TIMEOUT_S` to give up its socket."""
        return self._session(will)

    @property
    def traffic(self) -> Traffic:
        return self._meter.traffic

    @asynccontextmanager
    async def _session(self, will: Will | None) -> AsyncIterator[BrokerSession]:
        await self._find_host()
        client = self._client(will)
        session = _MqttSession(client, self._endpoint, self._device, self._topics, self._meter, self._slower)
        failure: Exception | None = None
        try:
            await self._connect(client)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(session.take_arrivals)
                try:
                    yield session
                except Exception as error:
                    # Raised again below: the task group would wrap it in an ExceptionGroup.
                    failure = error
                finally:
                    tasks.cancel_scope.cancel()
                    with anyio.CancelScope(shield=True):
                        await _say_goodbye(client)
        finally:
            session.end()
            _close_socket(client)
        if failure is not None:
            raise failure

    def _client(self, will: Will | None) -> aiomqtt.Client:
        keepalive_s = min(KEEPALIVE_S_MAX, round(KEEPALIVE_S * self._slower))
        client = aiomqtt.Client(
            self._endpoint.host,
            self._endpoint.port,
            username=self._endpoint.username,
            password=self._endpoint.password,
            # A name of its own for every session: under its old one a device need not be sent, as its own, what it
            # retained in an earlier life (MQTT 5, section 3.8.3.1).
            identifier=f"crowd-{self._device}-{secrets.token_hex(4)}",
            logger=_library_log,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=None
            if will is None
            else aiomqtt.Will(self._topics.topic(will.address), will.payload, qos=1, retain=True),
            timeout=CONNECT_TIMEOUT_S,
            keepalive=keepalive_s,
            clean_start=True,
            properties=_properties(PacketTypes.CONNECT, ReceiveMaximum=RECEIVE_MESSAGES_MAX),
            tls_context=self._endpoint.tls,
            socket_options=_socket_options(keepalive_s),
        )
        client.pending_calls_threshold = sys.maxsize  # many at once are normal here: each waits for its PUBACK
        _paho(client).manual_ack_set(True)
        return client

    async def _find_host(self) -> None:
        """Resolve the host's name; only here can a resolver that does not answer be cancelled."""
        try:
            with anyio.fail_after(CONNECT_TIMEOUT_S):
                await anyio.getaddrinfo(self._endpoint.host, self._endpoint.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            raise self._endpoint.out_of_reach("host name not found; is it spelled right?") from error

    async def _connect(self, client: aiomqtt.Client) -> None:
        complaints: list[str] = []
        _paho(client).on_log = lambda _, __, ___, text: complaints.append(text)
        try:
            # aiomqtt connects in a thread that cannot be interrupted: cancelled half-way, it would leave a live
            # connection behind that nobody owns.
            with anyio.CancelScope(shield=True):
                await client.__aenter__()
        except aiomqtt.exceptions.MqttConnectError as error:
            raise self._endpoint.refused(
                error.rc.getName() if isinstance(error.rc, ReasonCode) else str(error)
            ) from error
        except aiomqtt.MqttError as error:
            cause = error.__context__  # aiomqtt hides the cause with `from None`
            if isinstance(cause, TimeoutError) and _paho(client).socket() is None:
                raise self._endpoint.hung_up("\n".join(complaints)) from error
            raise self._endpoint.not_connected(cause if isinstance(cause, OSError) else None) from error
        finally:
            _paho(client).on_log = None


@attrs.frozen(kw_only=True)
class _Arrival:
    address: Address | None
    """The address that the topic stands for; `None` for a topic that is not ours."""
    message: aiomqtt.Message

    @property
    def crossing(self) -> Crossing:
        return crossing(
            topic_bytes=len(self.message.topic.value.encode()),
            payload_bytes=len(self.message.payload),
            qos=self.message.qos,
            expiry=hasattr(self.message.properties, "MessageExpiryInterval"),
        )


class _MqttSession(BrokerSession):
    def __init__(
        self,
        client: aiomqtt.Client,
        endpoint: Endpoint,
        device: DeviceId,
        topics: Topics,
        meter: Meter,
        slower: float,
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._topics = topics
        self._meter = meter
        self._slower = slower
        self._lifeline = SessionState()
        self._drops = Drops(device)
        self._own_retained: dict[Address, bytes] = {}
        self._put, self._arrivals = anyio.create_memory_object_stream[_Arrival](RECEIVE_MESSAGES_MAX + BEATS_MAX)

    async def publish(
        self, address: Address, payload: bytes, *, retain: bool = False, expiry_s: int | None = None
    ) -> None:
        topic = self._topics.topic(address)
        qos = _qos(address)
        properties = (
            None
            if expiry_s is None
            else _properties(PacketTypes.PUBLISH, MessageExpiryInterval=round(expiry_s * self._slower))
        )
        with self._lifeline.holding():
            if retain:
                self._own_retained[address] = payload
            self._meter.sent(
                crossing(topic_bytes=len(topic), payload_bytes=len(payload), qos=qos, expiry=expiry_s is not None)
            )
            # No timeout of its own: a slow link is not a lost one. The session state ends it.
            await self._call(self._client.publish(topic, payload, qos, retain, properties=properties, timeout=math.inf))

    async def subscribe(self, *patterns: Address) -> None:
        filters = [
            (
                self._topics.pattern(pattern),
                SubscribeOptions(qos=_qos(pattern), noLocal=pattern.channel is not Channel.BEAT),
            )
            for pattern in patterns
        ]
        with self._lifeline.holding():
            answers = await self._call(self._client.subscribe(filters, timeout=math.inf))
        for (pattern, _), answer in zip(filters, answers, strict=True):
            if isinstance(answer, ReasonCode) and answer.value >= _FAILURE:
                raise BrokerRefused(
                    f"broker {self._endpoint.url} refused {self._endpoint.who} the subscription to {pattern}: "
                    f"{answer.getName().lower()}; allow reading it in the broker's access list"
                )

    async def unsubscribe(self, *patterns: Address) -> None:
        filters = [self._topics.pattern(pattern) for pattern in patterns]
        with self._lifeline.holding():
            await self._call(self._client.unsubscribe(filters, timeout=math.inf))

    async def receive(self) -> Delivery:
        with self._lifeline.holding():
            arrival = await self._arrivals.receive()
        assert arrival.address is not None, "only what is ours is queued"
        self._settle(arrival)
        return Delivery(address=arrival.address, payload=arrival.message.payload, retained=arrival.message.retain)

    async def take_arrivals(self) -> None:
        """Move arriving messages into the bounded queue until the connection goes."""
        try:
            async for message in self._client.messages:
                self._take(message)
        except aiomqtt.MqttError as error:
            self._lose(error)

    def end(self) -> None:
        """End all calls, and count the arrived messages that were not handed out: they have crossed the link."""
        self._lifeline.lose(f"the session with {self._endpoint.url} is closed")
        self._put.close()
        with self._arrivals, contextlib.suppress(anyio.EndOfStream):
            while True:
                self._meter.received(self._arrivals.receive_nowait().crossing)

    def _take(self, message: aiomqtt.Message) -> None:
        arrival = _Arrival(address=self._address(message), message=message)
        # Mosquitto (2.0.11) sends retained messages back to their publisher in spite of No Local.
        own = message.retain and arrival.address is not None and self._own_retained.get(arrival.address)
        if own == message.payload:
            self._settle(arrival)
            return
        # Heartbeats may fill the queue but for the slots that the Receive Maximum keeps for the rest.
        places = BEATS_MAX if message.qos == 0 else BEATS_MAX + RECEIVE_MESSAGES_MAX
        if arrival.address is not None and self._put.statistics().current_buffer_used < places:
            self._put.send_nowait(arrival)
            return
        if arrival.address is not None:
            self._drops.count(address=arrival.address)
        self._settle(arrival)

    def _address(self, message: aiomqtt.Message) -> Address | None:
        try:
            return self._topics.parse(message.topic.value)
        except MalformedMessage as error:
            _log.debug("foreign_topic_ignored", reason=str(error))
            return None

    def _settle(self, arrival: _Arrival) -> None:
        """Count the message and acknowledge it, which lets the broker send the next one."""
        self._meter.received(arrival.crossing)
        if arrival.message.qos > 0:
            _paho(self._client).ack(arrival.message.mid, arrival.message.qos)

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except aiomqtt.MqttError as error:
            raise self._lose(error) from error

    def _lose(self, error: aiomqtt.MqttError) -> BrokerLost:
        reason = f"connection to {self._endpoint.url} lost: {error.__cause__ or error}"
        self._lifeline.lose(reason, error)
        return BrokerLost(reason)


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


def _properties(packet_type: int, **values: int) -> Properties:
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]  # paho leaves its constructor untyped
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


def _socket_options(keepalive_s: int) -> list[tuple[int, int, int]]:
    """Socket options: no waiting to fill a segment; on Linux, bytes unacknowledged for a keep-alive end it."""
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    if sys.platform == "linux":
        options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, keepalive_s * 1000))
    return options


def _paho(client: aiomqtt.Client) -> PahoClient:
    """The paho client inside: aiomqtt offers neither acknowledging later nor closing a socket that is stuck."""
    return client._client  # noqa: SLF001


async def _say_goodbye(client: aiomqtt.Client) -> None:
    """Send a clean DISCONNECT if the broker still takes one."""
    try:
        with anyio.move_on_after(CLOSE_TIMEOUT_S):
            await client.__aexit__(None, None, None)
    except (aiomqtt.MqttError, OSError) as error:
        _log.debug("disconnect_failed", reason=str(error))


def _close_socket(client: aiomqtt.Client) -> None:
    """Close the socket now if it is still open. paho does so itself once it reads the end of the stream."""
    paho = _paho(client)
    stuck = paho.socket()
    if stuck is None:
        return
    assert isinstance(stuck, socket.socket), "a TCP or TLS connection"
    with contextlib.suppress(OSError):
        stuck.shutdown(socket.SHUT_RDWR)
    while paho.socket() is not None:
        paho.loop_read()
