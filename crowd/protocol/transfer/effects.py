"""The effects that a transfer asks of its caller. Destination `None` means all devices."""

import attrs

from crowd.protocol.messages import Done, Offer, Want
from crowd.units import DeviceId


@attrs.frozen(kw_only=True)
class SendOffer:
    """Publish this offer."""

    destination: DeviceId | None
    offer: Offer


@attrs.frozen(kw_only=True)
class SendChunk:
    """Publish this chunk of a transfer."""

    destination: DeviceId | None
    transfer: str
    index: int
    data: memoryview = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    """The chunk: a view of the bytes that were given to `send`, not a copy."""


@attrs.frozen(kw_only=True)
class SendWant:
    """Send this want to the sender of a transfer."""

    destination: DeviceId
    want: Want


@attrs.frozen(kw_only=True)
class SendDone:
    """Tell the sender of a transfer that it is over."""

    destination: DeviceId
    done: Done


@attrs.frozen(kw_only=True)
class Received:
    """All bytes of a transfer are here; reported once."""

    sender: DeviceId
    offer: Offer
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


@attrs.frozen(kw_only=True)
class Sent:
    """A transfer's one receiver has all bytes; the transfer is forgotten."""

    transfer: str


@attrs.frozen(kw_only=True)
class Failed:
    """A transfer's one receiver was silent for too long, refused, or left; the transfer is forgotten."""

    transfer: str
    destination: DeviceId


Effect = SendOffer | SendChunk | SendWant | SendDone | Received | Sent | Failed
