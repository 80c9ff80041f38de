"""The codec between bytes and messages; the only module where anything from outside is decoded.

Layout: `Refused` (why bytes were not let in), `encode` and `decode` (a message and its payload), `Sealer` and `Opener`
(a message and its signed envelope).
"""

import enum
import functools
from collections import OrderedDict
from typing import Any, cast, get_args

import attrs
from cattrs import transform_error
from cattrs.errors import BaseValidationError
from cattrs.preconf.cbor2 import Cbor2Converter

from crowd.errors import MalformedMessage
from crowd.planning.profile import Module
from crowd.ports import MESSAGE_BYTES_MAX, Signer
from crowd.protocol import strict
from crowd.protocol.envelope import HEAD_BYTES, Envelope, Header, SequenceWindow, read, read_header
from crowd.protocol.messages import PROTOCOL_VERSION, AckMessage, Cargo, Message, ProfileMessage
from crowd.strict import Hook
from crowd.units import Address, Channel, DeviceId, Life

REMEMBERED_MAX = 512
"""Decoded envelopes, and as many payloads, that are kept in memory."""
REMEMBERED_BYTES_MAX = 4096
"""Bytes of the longest envelope or payload that is kept in memory, so 4 MiB at most for all."""
BOOTS_MAX = 16
"""Lives of one sender that an `Opener` remembers, a kilobyte at most for each."""


class Reason(enum.Enum):
    """The reason why bytes were refused, by which a caller counts them."""

    TOO_LONG = "too_long"
    MALFORMED = "malformed"
    WRONG_VERSION = "wrong_version"
    WRONG_CLUSTER = "wrong_cluster"
    WRONG_ADDRESS = "wrong_address"
    BAD_SIGNATURE = "bad_signature"
    DUPLICATE = "duplicate"
    UNKNOWN_KIND = "unknown_kind"


class Refused(MalformedMessage):
    """Bytes from outside that were not let in; the text is one line."""

    def __init__(self, reason: Reason, text: str, *, sender: DeviceId | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.sender = sender
        """The device in whose name they came, where that is why."""


# --- payloads ---------------------------------------------------------------------------------------------------------


def _make_converter() -> Cbor2Converter:
    # Seeds and integer buffers may be negative, nothing else is; a transfer's name becomes one level of a topic.
    fields: dict[str, Hook] = {
        "seed": strict.integer,
        "counters": strict.integers,
        "transfer": strict.identifier,
    }
    converter = strict.strict_converter(fields)
    strict.as_array(converter, Module)  # there are many in a profile
    for union in (Cargo, Message):
        strict.tag_union(converter, union, {kind: kind.tag for kind in get_args(union)})
    return converter


_CONVERTER = _make_converter()


def encode(message: Message) -> bytes:
    """The payload of `message`, in CBOR."""
    return _CONVERTER.dumps(message, unstructure_as=Message)


def decode(payload: bytes) -> Message:
    """The message in `payload`, not to be changed. Strict: nothing is converted, every field is there and no other,
    nothing follows.

    Raises `Refused`, and nothing else: `UNKNOWN_KIND` if this version does not know the kind of message or cargo, for
    all else `MALFORMED`.
    """
    return _decode_once(payload) if len(payload) <= REMEMBERED_BYTES_MAX else _decode(payload)


def _decode(payload: bytes) -> Message:
    try:
        # cattrs takes unions; only its type hints do not.
        return cast(Message, _CONVERTER.structure(strict.load_plain(payload), cast(Any, Message)))
    except BaseValidationError as error:
        reason = Reason.UNKNOWN_KIND if error.subgroup(strict.UnknownKind) else Reason.MALFORMED
        faults = transform_error(error, "message", format_exception=lambda cause, _: str(cause))
        raise Refused(reason, faults[0]) from error
    except strict.UnknownKind as error:
        raise Refused(Reason.UNKNOWN_KIND, str(error)) from error
    except ValueError as error:
        raise Refused(Reason.MALFORMED, str(error)) from error


# A message that the broker delivers twice, or in a simulation to hundreds of devices in one process, is decoded once.
_decode_once = functools.lru_cache(maxsize=REMEMBERED_MAX)(_decode)


# --- envelopes --------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Opened:
    """An opened message, and the device that signed it."""

    sender: DeviceId
    life: Life
    sequence: int
    message: Message


class Sealer:
    """The maker of this device's signed envelopes, numbered from 0. Set `life` when a new one begins."""

    def __init__(self, cluster: str, device: DeviceId, life: Life, signer: Signer) -> None:
        self.life = life
        self._header = Header(version=PROTOCOL_VERSION, cluster=cluster, sender=device)
        self._signer = signer
        self.sequence = 0
        """Number of the next envelope."""

    def seal(self, address: Address, message: Message) -> bytes:
        """The envelope of `message` for `address`, whose source is this device. Raises `Refused` if it would be longer
        than `MESSAGE_BYTES_MAX`."""
        sealed = Envelope(
            header=self._header, life=self.life, sequence=self.sequence, address=address, payload=encode(message)
        )
        data = sealed.write(self._signer.sign)
        if len(data) > MESSAGE_BYTES_MAX:
            raise Refused(Reason.TOO_LONG, f"an envelope of {len(data)} bytes; at most {MESSAGE_BYTES_MAX} may travel")
        self.sequence += 1
        return data


class Opener:
    """The gate for envelopes that members of this cluster sent to this device; lets in each of them once."""

    def __init__(self, cluster: str, device: DeviceId, signer: Signer) -> None:
        self._cluster = cluster
        self._device = device
        self._signer = signer
        self._seen: dict[DeviceId, OrderedDict[bytes, SequenceWindow]] = {}

    def names_known_life(self, sender: DeviceId, data: bytes) -> bool:
        """Whether `data` has the boot ID of a life in which `sender` was heard, where an envelope has it: nobody can
        guess it, and to look costs nothing."""
        head = data[:HEAD_BYTES]
        return any(boot in head for boot in self._seen.get(sender, ()))

    def open(self, address: Address, data: bytes) -> Opened:
        """The message in an envelope that came on `address`; raises `Refused`. The signature, which costs most, is
        looked at last."""
        if address.source is not None and not self._signer.is_member(address.source):
            raise _not_a_member(address.source)
        sealed = self._read(data)
        if sealed.address != address or address.destination not in (None, self._device):
            raise Refused(Reason.WRONG_ADDRESS, f"an envelope for {sealed.address} came on {address}")
        boots = self._seen.get(sealed.header.sender)
        window = None if boots is None else boots.get(sealed.life.boot)
        if window is not None and window.has(sealed.sequence, late_is_new=_may_be_late(sealed)):
            raise _come_before(sealed)
        self._verify(sealed)
        self._remember(sealed)
        return _open(sealed)

    def open_relayed(self, data: bytes) -> Opened:
        """The profile in an envelope that another device passed on, whomever it was for; raises `Refused`. May be asked
        again and again: a profile is state, not an event."""
        sealed = self._read(data)
        self._verify(sealed)
        opened = _open(sealed)
        if not isinstance(opened.message, ProfileMessage):
            raise Refused(Reason.MALFORMED, f"{opened.sender} sent something else as its profile")
        return opened

    def _read(self, data: bytes) -> Envelope:
        if len(data) > MESSAGE_BYTES_MAX:
            raise Refused(Reason.TOO_LONG, f"{len(data)} bytes; an envelope has at most {MESSAGE_BYTES_MAX}")
        sealed = _read_once(data) if len(data) <= REMEMBERED_BYTES_MAX else _read(data)
        header = sealed.header
        if header.cluster != self._cluster:
            text = f"{header.sender} sent this in cluster {header.cluster}, not {self._cluster}"
            raise Refused(Reason.WRONG_CLUSTER, text)
        if sealed.address.source != header.sender:
            raise Refused(Reason.WRONG_ADDRESS, f"{header.sender} sent as {sealed.address.source}")
        return sealed

    def _verify(self, sealed: Envelope) -> None:
        if not self._signer.verify(sealed.header.sender, sealed.signed, sealed.signature):
            raise _not_a_member(sealed.header.sender)

    def _remember(self, sealed: Envelope) -> None:
        boots = self._seen.setdefault(sealed.header.sender, OrderedDict())
        window = boots.setdefault(sealed.life.boot, SequenceWindow())
        if len(boots) > 1:
            boots.move_to_end(sealed.life.boot)
        if len(boots) > BOOTS_MAX:
            boots.popitem(last=False)
        if not window.add(sealed.sequence, late_is_new=_may_be_late(sealed)):
            raise _come_before(sealed)


def _read(data: bytes) -> Envelope:
    """The envelope of this version in `data`; raises `Refused`."""
    try:
        items = strict.load_plain(data)
        header = read_header(items)
        if header.version != PROTOCOL_VERSION:
            text = f"{header.sender} speaks protocol version {header.version}, this device {PROTOCOL_VERSION}"
            raise Refused(Reason.WRONG_VERSION, text, sender=header.sender)
        return read(header, items, data)
    except ValueError as error:
        raise Refused(Reason.MALFORMED, f"no envelope: {error}") from error


_read_once = functools.lru_cache(maxsize=REMEMBERED_MAX)(_read)

_RETAINED = frozenset({Channel.PROFILE, Channel.ACK, Channel.RESULT})


def _may_be_late(sealed: Envelope) -> bool:
    """Whether the broker keeps this message, so that it may hand it out after any number of later ones."""
    return sealed.address.channel in _RETAINED


def _not_a_member(sender: DeviceId) -> Refused:
    return Refused(Reason.BAD_SIGNATURE, f"not signed by a member named {sender}", sender=sender)


def _come_before(sealed: Envelope) -> Refused:
    return Refused(Reason.DUPLICATE, f"number {sealed.sequence} of {sealed.header.sender} has come before")


def _open(sealed: Envelope) -> Opened:
    """The message of a checked envelope, in which a device speaks for itself alone; raises `Refused`."""
    message, sender = decode(sealed.payload), sealed.header.sender
    match message:
        case ProfileMessage(profile=told) | AckMessage(ack=told) if told.device != sender:
            raise Refused(Reason.MALFORMED, f"{sender} speaks for {told.device}")
        case _:
            return Opened(sender=sender, life=sealed.life, sequence=sealed.sequence, message=message)
