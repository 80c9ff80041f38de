"""The ports that adapters implement: `Broker` (messages), `Signer` (identity), `Compute` (work on this device),
`Sensor` (live readings) and `Store` (files that outlive the process)."""

import abc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TypeVar

import attrs

from crowd.units import Address, DeviceId

T = TypeVar("T")

MESSAGE_BYTES_MAX = 1 << 20
"""Bytes of the longest message: nothing longer is published, and none is let in."""


@attrs.frozen(kw_only=True)
class Delivery:
    """One message as it came from the broker."""

    address: Address
    payload: bytes = attrs.field(repr=lambda payload: f"<{len(payload)} bytes>")
    retained: bool = False
    """Whether the broker had kept the message, so that it may be old."""


@attrs.frozen(kw_only=True)
class Will:
    """The message that the broker publishes, retained, when the session ends without `close`."""

    address: Address
    payload: bytes


@attrs.frozen(kw_only=True)
class Traffic:
    """Bytes that crossed this device's link since the adapter was made, headers by the stated formula included."""

    up_bytes: int = 0
    down_bytes: int = 0


class BrokerSession(abc.ABC):
    """A live connection to the broker. Every method raises `BrokerLost` once the connection has gone.

    Guarantees: a published message reaches every session that is subscribed to its address at least once while both
    live; no order across addresses, the order of one address is kept within a session; the inbound queue is bounded and
    a slow receiver holds the carrier back (which may then drop: the carrier is no promise, end-to-end acknowledgement
    is the caller's). A session does not receive what it publishes itself, except on `Channel.BEAT`.
    """

    @property
    def message_bytes_max(self) -> int:
        """Bytes of the longest payload that the broker takes from this session, at most `MESSAGE_BYTES_MAX`."""
        return MESSAGE_BYTES_MAX

    @abc.abstractmethod
    async def publish(
        self, address: Address, payload: bytes, *, retain: bool = False, expiry_s: int | None = None
    ) -> None:
        """Hand `payload` to the broker; returns when it was taken. Retained, it is kept for later subscribers; an empty
        retained payload clears the address. The broker may drop it if a receiver has not taken it after `expiry_s`
        seconds. Raises `PublishDenied` if the broker lets this device not publish there, `BrokerRefused` if it takes no
        message so long."""

    @abc.abstractmethod
    async def subscribe(self, *patterns: Address) -> None:
        """Receive messages published to addresses that match any of `patterns`; retained ones come at once."""

    @abc.abstractmethod
    async def unsubscribe(self, *patterns: Address) -> None:
        """Stop receiving messages that match `patterns`, given exactly as they were subscribed."""

    @abc.abstractmethod
    async def receive(self) -> Delivery:
        """The next message; waits for one."""


class Broker(abc.ABC):
    """The access of one device to its cluster's broker; sessions are opened one after the other, never two at once."""

    @abc.abstractmethod
    def session(self, *, will: Will | None = None) -> AbstractAsyncContextManager[BrokerSession]:
        """Connect, and publish `will` if the session ends without leaving the context cleanly.

        Raises `BrokerRefused` if the broker refuses this device, `BrokerLost` if it is out of reach. Leaving the
        context closes cleanly: the will is not published.
        """

    @property
    @abc.abstractmethod
    def traffic(self) -> Traffic:
        """Bytes that have crossed the link so far, over all sessions."""


class Signer(abc.ABC):
    """The identity of this device: signs in its name and verifies every member."""

    @abc.abstractmethod
    def sign(self, data: bytes) -> bytes:
        """The signature of `data` in the name of this device."""
        ...

    @abc.abstractmethod
    def verify(self, device: DeviceId, data: bytes, signature: bytes) -> bool:
        """Whether `device` is a member and `signature` is its own of `data`."""

    @abc.abstractmethod
    def is_member(self, device: DeviceId) -> bool:
        """Whether anything signed by `device` could be verified."""


class Compute(abc.ABC):
    """The processor of this device, or a model of one."""

    @property
    def executes(self) -> bool:
        """Whether training really happens. False in a simulation of the control plane: training takes its time but
        leaves the parameters as they are, and nothing is evaluated."""
        return True

    @property
    def is_virtual(self) -> bool:
        """Whether work takes a time that is worked out from its `flops`, whatever it does. Nothing is done then only to
        see how long it takes."""
        return False

    @property
    def torch_device(self) -> str:
        """Name of the torch device on which networks train, as `cpu` or `cuda`. Whatever devices have in common is on
        the CPU all the same. Not asked on the event loop, as it may load torch; raises `BadConfig` where it is not to
        be had."""
        return "cpu"

    @abc.abstractmethod
    async def run(self, work: Callable[[], T], *, flops: int = 0) -> T:
        """Run `work` away from the event loop and return what it returns.

        `flops` is how much training arithmetic it contains: an emulated device takes as long as the real one would.
        Exceptions pass through. When cancelled it waits for `work` to return, so keep each piece short.
        """

    async def run_aside(self, work: Callable[[], T], *, queue: str = "disk") -> T:
        """The same for work that waits for a disk: one after the other in each `queue`, and holding up nothing else."""
        return await self.run(work)


@attrs.frozen(kw_only=True)
class Readings:
    """The readings of a device at this moment."""

    memory_free_bytes: int
    """Memory that the process could still use."""
    processors: float = 1.0
    """Processors that the process may use, whole ones and parts."""


class Sensor(abc.ABC):
    """Live readings of this device."""

    @abc.abstractmethod
    def read(self) -> Readings:
        """The present readings. Called on the event loop, so it must return at once."""
        ...

    def local_time(self) -> datetime:
        """The time of day where the device is, with its offset from UTC."""
        return datetime.now().astimezone()


class Store(abc.ABC):
    """Small files that outlive the process. Writes are atomic: a reader sees the old or the new content, whole."""

    @abc.abstractmethod
    def check(self, size_bytes: int) -> None:
        """Raise `BadConfig` if a file of `size_bytes` could not be written now: better before the work than after
        it."""

    @abc.abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Replace the content of the file `name`. Raises `OSError` if it cannot be written."""
        ...

    @abc.abstractmethod
    def read(self, name: str) -> bytes | None:
        """The content of the file `name`, or `None` if there is none."""

    @abc.abstractmethod
    def move(self, name: str, new_name: str) -> None:
        """Give the file `name`, which must be there, another name, in place of what has that. Raises `OSError` if that
        cannot be done."""


@attrs.frozen(kw_only=True)
class Device:
    """The parts that a device plug-in (entry-point group `crowd.devices`) provides to a node."""

    compute: Compute
    sensor: Sensor
