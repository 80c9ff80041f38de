"""What a transfer asks of its caller. Destination `None` means all."""

import attrs

from crowd.protocol.messages import Done, Offer, Want
from crowd.units import DeviceId


@attrs.frozen(kw_only=True)
class SendOffer:
    destination: DeviceId | None
    offer: Offer


@attrs.frozen(kw_only=True)
class SendChunk:
    destination: DeviceId | None
    transfer: str
    index: int
    data: memoryview = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    """A view of the bytes that were given to `send`, not a copy."""


@attrs.frozen(kw_only=True)
class SendWant:
    destination: DeviceId
    want: Want


@attrs.frozen(kw_only=True)
class SendDone:
    destination: DeviceId
    done: Done


@attrs.frozen(kw_only=True)
class Received:
    """All bytes of a transfer are here; said once."""

    sender: DeviceId
    offer: Offer
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


@attrs.frozen(kw_only=True)
class Sent:
    """The one receiver has all bytes; the transfer is forgotten."""

    transfer: str


@attrs.frozen(kw_only=True)
class Failed:
    """The one receiver was silent for too long, refused, or left; the transfer is forgotten."""

    transfer: str
    destination: DeviceId


Effect = SendOffer | SendChunk | SendWant | SendDone | Received | Sent | Failed
