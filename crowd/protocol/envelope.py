"""The signed envelope around every message, in its form on the wire; the payload in it is not decoded here.

The CBOR array `[protocol version, cluster, sender, incarnation, boot, sequence, address, payload, signature]`. The
first three keep their positions in every version. The signature covers all bytes before its own.

Layout: `Header` (what every version can read), `Envelope` and its functions, `SequenceWindow` (which numbers have
come).
"""

import reprlib
from collections.abc import Callable
from typing import Any

import attrs
import cbor2

from crowd.protocol import strict
from crowd.units import Address, Channel, DeviceId, Life

BOOT_BYTES_MAX = 16
"""Bytes of the longest boot ID."""
HEAD_BYTES = 192
"""Bytes of an envelope among which its boot ID is."""
WINDOW_SEQUENCES = 8192
"""Sequence numbers that a `SequenceWindow` remembers, back from the latest."""

_CHANNELS = {channel.value: channel for channel in Channel}


@attrs.frozen(kw_only=True)
class Header:
    """The part of an envelope that every version can read."""

    version: int
    cluster: str
    sender: DeviceId


@attrs.frozen(kw_only=True)
class Envelope:
    """A message under way: its sender, number, address and payload, and the signature over them."""

    header: Header
    life: Life
    sequence: int
    address: Address
    payload: bytes
    signature: bytes = b""
    signed: bytes = b""
    """The bytes that the signature covers."""

    def write(self, sign: Callable[[bytes], bytes]) -> bytes:
        """The bytes of this envelope, signed anew."""
        address = self.address
        items = [
            self.header.version,
            self.header.cluster,
            self.header.sender,
            self.life.incarnation,
            self.life.boot,
            self.sequence,
            [address.channel.value, address.source, address.destination, address.name, address.chunk],
            self.payload,
            b"",
        ]
        signed = cbor2.dumps(items)[: -len(cbor2.dumps(b""))]
        return signed + cbor2.dumps(sign(signed))


def read_header(items: Any) -> Header:
    """The header of the CBOR items that `strict.load_plain` found; raises `ValueError`."""
    if type(items) is not list or len(items) < 3:
        raise ValueError(f"{reprlib.repr(items)} is no array that begins with version, cluster and sender")
    version, cluster, sender = strict.natural(items[0]), strict.identifier(items[1]), strict.identifier(items[2])
    return Header(version=version, cluster=cluster, sender=DeviceId(sender))


def read(header: Header, items: list[Any], data: bytes) -> Envelope:
    """The envelope of this version whose bytes are `data`, and whose CBOR items are `items`; raises `ValueError`."""
    if len(items) != 9:
        raise ValueError(f"{len(items)} items instead of 9")
    boot, signature = strict.byte_string(items[4]), strict.byte_string(items[8])
    if len(boot) > BOOT_BYTES_MAX:
        raise ValueError(f"a boot ID of {len(boot)} bytes; at most {BOOT_BYTES_MAX}")
    return Envelope(
        header=header,
        life=Life(incarnation=strict.natural(items[3]), boot=boot),
        sequence=strict.natural(items[5]),
        address=_address(items[6]),
        payload=strict.byte_string(items[7]),
        signature=signature,
        signed=data[: -len(cbor2.dumps(signature))],
    )


def _address(items: Any) -> Address:
    """The address in CBOR form; raises `ValueError`."""
    if type(items) is not list or len(items) != 5 or type(items[0]) is not str or items[0] not in _CHANNELS:
        raise ValueError(f"{reprlib.repr(items)} is no address")
    channel, source, destination, name, chunk = items
    return Address(
        channel=_CHANNELS[channel],
        source=None if source is None else DeviceId(strict.identifier(source)),
        destination=None if destination is None else DeviceId(strict.identifier(destination)),
        name=None if name is None else strict.text(name),
        chunk=None if chunk is None else strict.natural(chunk),
    )


class SequenceWindow:
    """The sequence numbers of one life that have come, of the latest `WINDOW_SEQUENCES`."""

    _ALL = (1 << WINDOW_SEQUENCES) - 1

    def __init__(self) -> None:
        self._latest = -1
        self._come = 0
        """Bit n: whether number `latest - n` has come."""

    def has(self, sequence: int, *, late_is_new: bool) -> bool:
        """Whether `add` would find that `sequence` is not new."""
        behind = self._latest - sequence
        if behind >= WINDOW_SEQUENCES:
            return not late_is_new
        return behind >= 0 and bool(self._come >> behind & 1)

    def add(self, sequence: int, *, late_is_new: bool) -> bool:
        """Whether `sequence` is new; `late_is_new` decides for numbers that have left the window."""
        ahead = sequence - self._latest
        if ahead > 0:
            self._come = (self._come << ahead | 1) & self._ALL if ahead < WINDOW_SEQUENCES else 1
            self._latest = sequence
            return True
        if -ahead >= WINDOW_SEQUENCES:
            return late_is_new
        if self._come >> -ahead & 1:
            return False
        self._come |= 1 << -ahead
        return True
