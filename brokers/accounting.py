"""The bytes that a message costs on one device's link; every adapter counts by this one formula.

A PUBLISH (MQTT 5, section 3.3) of `t` topic bytes, `p` payload bytes and a quality of service `q` is

    remaining = 2 + t                       topic name                          section 3.3.2.1
              + 2 if q > 0                  packet identifier                   section 3.3.2.2
              + 1 (+ 5 with an expiry)      property length and expiry          sections 3.3.2.3.1 and 3.3.2.3.3
              + p                           payload                             section 3.3.3
    packet    = 1 + varint(remaining) + remaining    fixed header               sections 2.1 and 1.5.5

bytes long, and its PUBACK 4 (section 3.4; the success code is left out, section 3.4.2.1). On the link a packet of `n`
bytes is `s = ceil(n / 1448)` TCP segments with 52 bytes of headers each: IPv4 20, TCP 20, timestamp option 12. They are
acknowledged by one empty segment for every two, `ceil(s / 2)`, in the other direction (RFC 5681, section 4.2); a PUBACK
takes the place of the last of them, and is acknowledged in turn.

Left out: TLS records (22 bytes for every 16 KiB), the link layer, connecting, subscribing and keep-alives (under 2 kB
for a session and 1 kB a minute), and the resends of TCP, which no program sees. A message that the caller publishes
again is counted again.
"""

import attrs

from crowd.ports import Traffic
from crowd.units import ceil_div

SEGMENT_PAYLOAD_BYTES = 1448
SEGMENT_HEADER_BYTES = 52
PUBACK_BYTES = 4
HEADERS_BYTES_MAX = 512
"""Bytes of the longest PUBLISH packet without its payload: the longest topic has 270."""


@attrs.frozen(kw_only=True)
class Crossing:
    """The bytes that one message puts on a link: `forward` in the direction of the PUBLISH, `backward` against it."""

    forward_bytes: int
    backward_bytes: int


def publish_packet_bytes(*, topic_bytes: int, payload_bytes: int, qos: int, expiry: bool = False) -> int:
    """Bytes of the PUBLISH packet alone (MQTT 5, section 3.3)."""
    remaining = 2 + topic_bytes + (2 if qos > 0 else 0) + (6 if expiry else 1) + payload_bytes
    return 1 + _varint_bytes(remaining) + remaining


def crossing(*, topic_bytes: int, payload_bytes: int, qos: int, expiry: bool = False) -> Crossing:
    """The bytes of a message in both directions of one link, by the formula of this module."""
    packet = publish_packet_bytes(topic_bytes=topic_bytes, payload_bytes=payload_bytes, qos=qos, expiry=expiry)
    segments = ceil_div(packet, SEGMENT_PAYLOAD_BYTES)
    forward = packet + segments * SEGMENT_HEADER_BYTES
    backward = ceil_div(segments, 2) * SEGMENT_HEADER_BYTES
    if qos > 0:
        forward += SEGMENT_HEADER_BYTES
        backward += PUBACK_BYTES
    return Crossing(forward_bytes=forward, backward_bytes=backward)


class Meter:
    """The sum of the crossings of one device's link."""

    def __init__(self) -> None:
        self._up_bytes = 0
        self._down_bytes = 0

    def sent(self, message: Crossing) -> None:
        self._up_bytes += message.forward_bytes
        self._down_bytes += message.backward_bytes

    def received(self, message: Crossing) -> None:
        self._up_bytes += message.backward_bytes
        self._down_bytes += message.forward_bytes

    @property
    def traffic(self) -> Traffic:
        return Traffic(up_bytes=self._up_bytes, down_bytes=self._down_bytes)


def _varint_bytes(value: int) -> int:
    """Length of a variable byte integer (MQTT 5, section 1.5.5)."""
    return 1 if value < 1 << 7 else 2 if value < 1 << 14 else 3 if value < 1 << 21 else 4
