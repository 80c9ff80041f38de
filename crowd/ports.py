"""What an adapter must promise: `Broker` (messages), `Signer` (identity), `Compute` (work on this device),
`Sensor` (live readings) and `Store` (files that outlive the process)."""

import abc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import attrs

from crowd.units import Address, DeviceId

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Delivery:
    """One message as it came from the broker."""

    address: Address
    payload: bytes = attrs.field(repr=lambda payload: f"<{len(payload)} bytes>")
    retained: bool = False
    """Whether it was kept by the broker and may be old."""


@attrs.frozen(kw_only=True)
class Will:
    """What the broker publishes, retained, when the session ends without `close`."""

    address: Address
    payload: bytes


@attrs.frozen(kw_only=True)
class Traffic:
    """Bytes that crossed this device's link since the adapter was made, headers by the stated formula included."""

    up_bytes: int = 0
    down_bytes: int = 0


class BrokerSession(abc.ABC):
    """A live connection. Guarantees: a published message reaches every session that is subscribed to its address at
    least once while both live; no order across addresses, the order of one address is kept within a session; the
    inbound queue is bounded and a slow receiver holds the carrier back (which may then drop: the carrier is no
    promise, end-to-end acknowledgement is the caller's). Every method raises `BrokerLost` once the connection has gone.
    A session does not receive what it publishes itself, except on `Channel.BEAT`."""

    @abc.abstractmethod
    async def publish(
        self, address: Address, payload: bytes, *, retain: bool = False, expiry_s: int | None = None
    ) -> None:
        """Hand `payload` to the broker; returns when it was taken. An empty retained payload clears the address."""

    @abc.abstractmethod
    async def subscribe(self, *patterns: Address) -> None:
        """Receive what is published to addresses that match; retained messages come at once."""

    @abc.abstractmethod
    async def unsubscribe(self, *patterns: Address) -> None:
        """No longer receive what matches these patterns, given exactly as they were subscribed."""

    @abc.abstractmethod
    async def receive(self) -> Delivery:
        """The next message; waits for one."""


class Broker(abc.ABC):
    """A way to the cluster's broker for one device; sessions are opened one after the other, never two at once."""

    @abc.abstractmethod
    def session(self, *, will: Will | None = None) -> AbstractAsyncContextManager[BrokerSession]:
        """Connect. Raises `BrokerRefused` if the broker refuses this device, `BrokerLost` if it is out of reach.
        Leaving the context closes cleanly: the will is not published."""

    @property
    @abc.abstractmethod
    def traffic(self) -> Traffic:
        """What has crossed the link so far, over all sessions."""


class Signer(abc.ABC):
    """Signs as this device and verifies every member."""

    @abc.abstractmethod
    def sign(self, data: bytes) -> bytes: ...

    @abc.abstractmethod
    def verify(self, device: DeviceId, data: bytes, signature: bytes) -> bool:
        """Whether `device` is a member and signed `data`."""


class Compute(abc.ABC):
    """Runs work on this device."""

    @property
    def executes(self) -> bool:
        """False in a simulation of the control plane: training takes its time but leaves the parameters as they are,
        and nothing is evaluated."""
        return True

    @abc.abstractmethod
    async def run(self, work: Callable[[], T], *, flops: int = 0) -> T:
        """Run `work` away from the event loop and return what it returns. `flops` is how much training arithmetic it
        contains: an emulated device takes as long as the real one would. Exceptions pass through. When cancelled it
        waits for `work` to return, so keep each piece short."""


@attrs.frozen(kw_only=True)
class Readings:
    """What a device says of itself at this moment."""

    memory_free_bytes: int


class Sensor(abc.ABC):
    """Live readings of this device."""

    @abc.abstractmethod
    def read(self) -> Readings: ...


class Store(abc.ABC):
    """Small files that outlive the process. Writes are atomic: a reader sees the old or the new content, whole."""

    @abc.abstractmethod
    def write(self, name: str, data: bytes) -> None: ...

    @abc.abstractmethod
    def read(self, name: str) -> bytes | None:
        """The content, or `None` if there is none."""


@attrs.frozen(kw_only=True)
class Device:
    """What a device plug-in (entry-point group `crowd.devices`) provides to a node."""

    compute: Compute
    sensor: Sensor
