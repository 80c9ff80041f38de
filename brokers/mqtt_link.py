"""One connection to an MQTT 5 broker, as aiomqtt and paho keep it; the only file that knows these libraries.

Layout: `Arrival` (a message as it came), `MqttLink` (connects, publishes, subscribes, hands on what comes) and
`_BufferedSocket`, by which a flood of small messages costs a third.

What comes is handed on at once: neither library keeps it in a queue of its own, which would have no limit.
"""

import asyncio
import contextlib
import logging
import math
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import aiomqtt
import anyio
import attrs
import structlog
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from brokers.accounting import HEADERS_BYTES_MAX
from brokers.endpoint import Endpoint
from crowd.errors import BrokerLost, BrokerRefused, PublishDenied
from crowd.ports import MESSAGE_BYTES_MAX

RECEIVE_MESSAGES_MAX = 32
"""Messages of QoS 1 that the broker sends before the first of them is acknowledged (Receive Maximum)."""
CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0

_READ_BYTES = 16 << 10
_FAILURE = 0x80
"""Reason codes from here on are failures (MQTT 5, section 2.4)."""
_PROTOCOL_ERROR, _NOT_AUTHORIZED, _PACKET_TOO_LARGE = 0x82, 0x87, 0x95
_SENT = 0

T = TypeVar("T")

_log = structlog.get_logger(__name__)
# Whatever the libraries would complain about reaches the caller as an error.
_library_log = logging.getLogger(f"{__name__}.library")
_library_log.setLevel(logging.CRITICAL)


@attrs.frozen(kw_only=True)
class Arrival:
    """A message as it came, not acknowledged yet."""

    topic: str
    payload: bytes
    qos: int
    retained: bool
    number: int
    """Its packet identifier, by which it is acknowledged."""
    expires: bool
    """Whether the packet has an expiry."""


@attrs.frozen(kw_only=True)
class LastWord:
    """The message that the broker publishes, retained, if the link breaks."""

    topic: str
    payload: bytes


class MqttLink:
    """A connection to the broker at `endpoint`; `arrived` is called for every message that comes, on the event loop.

    Every call raises `BrokerLost` once the connection has gone, and `BrokerRefused` if it went because the broker does
    not take a message of that size.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        identifier: str,
        last_word: LastWord | None,
        keepalive_s: int,
        arrived: Callable[[Arrival], None],
    ) -> None:
        self._endpoint = endpoint
        self._arrived = arrived
        self._announced: Properties | None = None
        """What the broker said of itself when it accepted the connection."""
        self._answers: dict[int, asyncio.Future[ReasonCode]] = {}
        """Of messages that are being published, by their packet identifiers."""
        self._sizes: dict[int, int] = {}
        """The bytes of their payloads."""
        self._acknowledgements = bytearray()
        """PUBACK packets that are about to leave (MQTT 5, section 3.4)."""
        properties = _properties(
            PacketTypes.CONNECT,
            ReceiveMaximum=RECEIVE_MESSAGES_MAX,
            MaximumPacketSize=MESSAGE_BYTES_MAX + HEADERS_BYTES_MAX,
        )
        self._client = aiomqtt.Client(
            endpoint.host,
            endpoint.port,
            username=endpoint.username,
            password=endpoint.password,
            identifier=identifier,
            logger=_library_log,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=None if last_word is None else aiomqtt.Will(last_word.topic, last_word.payload, qos=1, retain=True),
            timeout=CONNECT_TIMEOUT_S,
            keepalive=keepalive_s,
            clean_start=True,
            properties=properties,
            tls_context=endpoint.tls,
            socket_options=_socket_options(keepalive_s),
        )
        self._client.pending_calls_threshold = sys.maxsize  # many at once are normal here
        # aiomqtt has none of these: to acknowledge later, a queue that counts, what the broker answers, no late writes
        self._paho: PahoClient = self._client._client  # noqa: SLF001
        self._paho.manual_ack_set(True)
        self._paho.on_message = self._on_message
        self._paho.on_publish = self._on_publish
        self._loop = asyncio.get_running_loop()
        self._paho.on_socket_register_write = self._on_socket_register_write
        self._tell_aiomqtt: Any = self._paho.on_connect
        self._paho.on_connect = self._on_connect

    async def connect(self) -> None:
        """Connect. Raises `BrokerRefused` or `BrokerLost`. A cancelled attempt takes until `CONNECT_TIMEOUT_S` to give
        up its socket."""
        await self._find_host()
        complaints: list[str] = []
        self._paho.on_log = lambda _, __, ___, text: complaints.append(text)
        try:
            # aiomqtt connects in a thread that cannot be interrupted: cancelled half-way, it would leave a live
            # connection behind that nobody owns.
            with anyio.CancelScope(shield=True):
                await self._client.__aenter__()
        except aiomqtt.exceptions.MqttConnectError as error:
            raise self._endpoint.refused(
                error.rc.getName() if isinstance(error.rc, ReasonCode) else str(error)
            ) from error
        except aiomqtt.MqttError as error:
            cause = error.__context__  # aiomqtt hides the cause with `from None`
            if isinstance(cause, TimeoutError) and self._paho.socket() is None:
                raise self._endpoint.hung_up("\n".join(complaints)) from error
            raise self._endpoint.not_connected(cause if isinstance(cause, OSError) else None) from error
        finally:
            self._paho.on_log = None
        self._paho._sock = _BufferedSocket(self._paho._sock)  # noqa: SLF001

    @property
    def packet_bytes_max(self) -> int | None:
        """Bytes of the longest packet that the broker says it takes; `None` if it does not say."""
        return getattr(self._announced, "MaximumPacketSize", None)

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool, expiry_s: int | None) -> None:
        """Publish; returns when the broker has taken it, at QoS 0 when it was sent. Raises `PublishDenied` if an access
        list denies it."""
        properties = None if expiry_s is None else _properties(PacketTypes.PUBLISH, MessageExpiryInterval=expiry_s)
        message = self._paho.publish(topic, payload, qos, retain, properties)
        if message.rc != _SENT:
            raise BrokerLost(f"connection to {self._endpoint.url} lost: it is closed")
        if message.is_published():
            return
        answer = self._answers[message.mid] = asyncio.get_running_loop().create_future()
        self._sizes[message.mid] = len(payload)
        try:
            reason = await answer
        finally:
            del self._answers[message.mid], self._sizes[message.mid]
        if reason.value == _NOT_AUTHORIZED:
            raise PublishDenied(self._endpoint.denied(topic))
        if reason.value >= _FAILURE:
            _log.warning("message_refused_by_broker", topic=topic, reason=reason.getName())

    async def subscribe(self, filters: Sequence[tuple[str, SubscribeOptions]]) -> list[str | None]:
        """Subscribe to topic filters; returns for each why it was refused, or `None`."""
        answers = await self._call(self._client.subscribe(list(filters), timeout=math.inf))
        return [
            answer.getName().lower() if isinstance(answer, ReasonCode) and answer.value >= _FAILURE else None
            for answer in answers
        ]

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        await self._call(self._client.unsubscribe(list(filters), timeout=math.inf))

    def acknowledge(self, arrival: Arrival) -> None:
        """Let the broker forget a message, and send the next one. What is acknowledged in one turn of the event loop
        leaves together."""
        if arrival.qos > 0:
            if not self._acknowledgements:
                asyncio.get_running_loop().call_soon(self._send_acknowledgements)
            self._acknowledgements += struct.pack("!BBH", PacketTypes.PUBACK << 4, 2, arrival.number)

    async def until_lost(self) -> BrokerLost | BrokerRefused:
        """Wait until the connection goes; returns why."""
        try:
            async for _ in self._client.messages:
                raise AssertionError("messages are taken as they come")
        except aiomqtt.MqttError as error:
            return self._loss(error)
        raise AssertionError("messages end by an error")

    async def say_goodbye(self) -> None:
        """Send a clean DISCONNECT if the broker still takes one."""
        try:
            with anyio.move_on_after(CLOSE_TIMEOUT_S):
                await self._client.__aexit__(None, None, None)
        except (aiomqtt.MqttError, OSError) as error:
            _log.debug("disconnect_failed", reason=str(error))

    def close_socket(self) -> None:
        """Close the socket now if it is still open. paho does so itself once it reads the end of the stream."""
        stuck: Any = self._paho.socket()
        if stuck is None:
            return
        with contextlib.suppress(OSError):
            stuck.shutdown(socket.SHUT_RDWR)
        while self._paho.socket() is not None:
            self._paho.loop_read()

    async def _find_host(self) -> None:
        """Resolve the host's name; only here can a resolver that does not answer be cancelled."""
        try:
            with anyio.fail_after(CONNECT_TIMEOUT_S):
                await anyio.getaddrinfo(self._endpoint.host, self._endpoint.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            raise self._endpoint.out_of_reach("host name not found; is it spelled right?") from error

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except aiomqtt.MqttError as error:
            raise self._loss(error) from error

    def _loss(self, error: aiomqtt.MqttError) -> BrokerLost | BrokerRefused:
        cause = error.__cause__ or error
        code = getattr(getattr(cause, "rc", None), "value", None)
        # Mosquitto (2.0.11) answers what is over its message_size_limit with a code that MQTT has not for that answer
        if code in (_PROTOCOL_ERROR, _PACKET_TOO_LARGE) and self._sizes:
            return self._endpoint.takes_none_of(max(self._sizes.values()))
        return BrokerLost(f"connection to {self._endpoint.url} lost: {cause}")

    def _send_acknowledgements(self) -> None:
        """Write them at once if nothing else waits to be written: by way of paho and aiomqtt that takes three turns of
        the event loop, at each of which a thread that trains may take 5 ms for itself."""
        packets, self._acknowledgements = self._acknowledgements, bytearray()
        open_socket: Any = self._paho.socket()
        if open_socket is None:
            return
        written = 0
        if not self._paho.want_write():
            with contextlib.suppress(OSError):  # full, or broken, which whoever reads will notice
                written = open_socket.send(packets)
        if written < len(packets):
            self._paho._packet_queue(PacketTypes.PUBACK << 4, packets[written:], 0, 0)  # noqa: SLF001

    def _on_connect(self, client: PahoClient, user: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._announced = properties
        self._tell_aiomqtt(client, user, flags, reason, properties)

    def _on_message(self, _: PahoClient, __: Any, message: MQTTMessage) -> None:
        self._arrived(
            Arrival(
                topic=message.topic,
                payload=bytes(message.payload),
                qos=message.qos,
                retained=message.retain,
                number=message.mid,
                expires=hasattr(message.properties, "MessageExpiryInterval"),
            )
        )

    def _on_socket_register_write(self, _: PahoClient, __: Any, full_socket: Any) -> None:
        """Wait for room in the socket; called in the event loop, or in the thread that connects.

        aiomqtt would do so a turn later by the socket's number alone. One that was closed meanwhile has none, or that
        of another file by then.
        """
        self._loop.call_soon_threadsafe(self._await_room, full_socket)

    def _await_room(self, full_socket: Any) -> None:
        if (number := full_socket.fileno()) >= 0:
            self._loop.add_writer(number, self._write)

    def _write(self) -> None:
        try:
            self._paho.loop_write()
        except Exception as error:  # as aiomqtt does: it ends the connection, whatever it is
            if not self._client._disconnected.done():  # noqa: SLF001
                self._client._disconnected.set_exception(error)  # noqa: SLF001

    def _on_publish(self, _: PahoClient, __: Any, number: int, reason: ReasonCode, ___: Any) -> None:
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result(reason)


class _BufferedSocket:
    """A socket that is read in large pieces. paho reads a packet in three or more calls, and at each of them a thread
    that trains may take the interpreter away for 5 ms. As with TLS, `pending` tells that there is more to read."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._read = b""
        self._at = 0

    def recv(self, size: int) -> bytes:
        if self._at == len(self._read):
            if size >= _READ_BYTES:
                data: bytes = self._inner.recv(size)
                return data
            self._read, self._at = self._inner.recv(_READ_BYTES), 0
        piece = self._read[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def pending(self) -> int:
        """Bytes that can be read although the operating system has nothing to tell of them."""
        below = self._inner.pending() if hasattr(self._inner, "pending") else 0
        return len(self._read) - self._at + int(below)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


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
