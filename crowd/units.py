"""The ground floor: identifiers and integer units that every other module shares.

Layout: `DeviceId` (who), `Life` (which start of that device), `Channel` and `Address` (where a message goes), and the
constants by which planning counts in integers only.
"""

import enum
import re
from typing import NewType

import attrs

DeviceId = NewType("DeviceId", str)
"""A device's name in its cluster: lower-case letters, digits and inner hyphens, at most 48 characters."""

EVERYBODY = "all"
"""The name that stands for all devices where a destination is named, so no device may have it."""

SECOND_US = 1_000_000
"""Microseconds of a second."""
MEBIBYTE = 1 << 20
DIGEST_BYTES = 16
"""The length of every BLAKE2b digest by which devices compare plans, states and chunks."""

_IDENTIFIER = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?")


def is_identifier(text: str) -> bool:
    """Whether `text` may name a device, a cluster or a transfer (it becomes one level of a topic)."""
    return _IDENTIFIER.fullmatch(text) is not None


def device_id(text: str) -> DeviceId:
    """`text` as a device ID; raises `ValueError` if it may not be one."""
    if not is_identifier(text) or text == EVERYBODY:
        raise ValueError(f"{text!r} is no device ID: use a-z, 0-9 and inner hyphens, at most 48 characters, not 'all'")
    return DeviceId(text)


def ceil_div(numerator: int, denominator: int) -> int:
    """`numerator / denominator`, rounded up, in integers."""
    return -(-numerator // denominator)


@attrs.frozen(kw_only=True)
class Life:
    """One life of a device: a start of its process, or its return after it was evicted. Later lives compare greater."""

    incarnation: int
    boot: bytes = attrs.field(repr=lambda boot: boot.hex()[:8])
    """Boot ID: 128 random bits, drawn once for each start of the process."""

    # written out: attrs' own take ten times as long, and lives are compared with each message
    def __lt__(self, other: "Life") -> bool:
        return (self.incarnation, self.boot) < (other.incarnation, other.boot)

    def __le__(self, other: "Life") -> bool:
        return (self.incarnation, self.boot) <= (other.incarnation, other.boot)

    def __gt__(self, other: "Life") -> bool:
        return (self.incarnation, self.boot) > (other.incarnation, other.boot)

    def __ge__(self, other: "Life") -> bool:
        return (self.incarnation, self.boot) >= (other.incarnation, other.boot)


class Channel(enum.Enum):
    """The kinds of address; the value is the name that a carrier may use for it."""

    STATUS = "status"
    """Retained plain text `online` or `offline`; the last will of the device's connection."""
    INFO = "info"
    """Retained JSON: version, incarnation, share level."""
    PROFILE = "profile"
    """Retained: the device's profile."""
    ACK = "ack"
    """Retained: the device's latest ack."""
    RESULT = "result"
    """Retained: the result of the device's last run."""
    BEAT = "beat"
    """The device's heartbeat, not retained."""
    ALL = "all"
    """Messages from one device to every member."""
    TO = "to"
    """Messages from one device to another."""
    BLOB = "blob"
    """One chunk of a transfer, to one device or, with no destination, to all."""


@attrs.frozen(kw_only=True)
class Address:
    """The destination of a message. A broker adapter maps it to its own kind of name (MQTT: a topic).

    As a subscription pattern, a field that is `None` matches anything, except that a `BLOB` pattern without a
    destination matches the chunks meant for all.
    """

    channel: Channel
    source: DeviceId | None = None
    """The device that sends."""
    destination: DeviceId | None = None
    """The device that receives, on `TO` and `BLOB`; on `BLOB` `None` means all."""
    name: str | None = None
    """Name of the transfer on `BLOB`."""
    chunk: int | None = None
    """Number of the chunk on `BLOB`."""


def bytes_per_second(mbps: float) -> int:
    """Bytes per second of so many megabits per second, in integers as planning needs them."""
    return round(mbps * 125_000)
