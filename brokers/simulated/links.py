"""Simulated links, on which messages take time.

Layout: `Pipe` (what carries one thing after the other), `LinkSpec` (what a device's link can do), `Link` (that link),
`_Flow` (its bytes in one direction) and `Route` (from a device to the broker and back).
"""

import random
from collections import deque

import anyio
import attrs
from attrs.validators import ge, gt, lt

from brokers.accounting import Crossing
from crowd.experiment.metering import LinkBusy, Occupancy
from crowd.ports import Traffic


class Pipe:
    """One direction of a link, or a half-duplex one: carries one thing after the other."""

    def __init__(self) -> None:
        self._free_at_s = 0.0

    def free_at_s(self, ready_at_s: float) -> float:
        """The time at which a thing that is ready at `ready_at_s` would begin to cross, after all that was put
        before."""
        return ready_at_s if ready_at_s > self._free_at_s else self._free_at_s

    def put(self, takes_s: float, *, ready_at_s: float) -> float:
        """Put a thing on the pipe; returns the time at which it will have crossed."""
        self._free_at_s = self.free_at_s(ready_at_s) + takes_s
        return self._free_at_s


@attrs.frozen(kw_only=True)
class LinkSpec:
    """The abilities of one device's link."""

    uplink_bytes_s: int = attrs.field(validator=gt(0))
    downlink_bytes_s: int = attrs.field(validator=gt(0))
    latency_s: float = attrs.field(default=0.0, validator=ge(0.0))
    """Seconds from the device to the broker, and as many back."""
    jitter_s: float = attrs.field(default=0.0, validator=ge(0.0))
    """Largest addition to the latency, drawn for each crossing. The order is kept, as TCP keeps it."""
    half_duplex: bool = False
    """Whether only one direction works at a time, each at its own rate."""
    loss: float = attrs.field(default=0.0, validator=[ge(0.0), lt(1.0)])
    """Fraction of the packets that are lost. TCP sends them again: time and bytes grow by 1 / (1 - loss)."""


class Link:
    """The link of one device: messages on it take time, headers and acknowledgements too, and are counted."""

    def __init__(self, spec: LinkSpec) -> None:
        self._spec = spec
        self._uplink = Pipe()
        self._downlink = self._uplink if spec.half_duplex else Pipe()
        self._up = _Flow()
        self._down = _Flow()
        self._sending = Occupancy()
        self._taking = Occupancy()

    @property
    def transfers(self) -> LinkBusy:
        """The times at which messages crossed, those included that are on their way; without their acknowledgements."""
        return LinkBusy(up=self._sending.spans, down=self._taking.spans)

    @property
    def traffic(self) -> Traffic:
        """The bytes that have crossed by now; of a message on its way a part."""
        now_s = anyio.current_time()
        return Traffic(up_bytes=self._up.bytes_at(now_s), down_bytes=self._down.bytes_at(now_s))

    def send(self, message: Crossing, *, ready_at_s: float) -> float:
        """Put a message on the uplink; returns the time at which it will have left the device, if it is ready at
        `ready_at_s`."""
        message = self._with_resends(message)
        self._down.add(message.backward_bytes)
        self._downlink.put(message.backward_bytes / self._spec.downlink_bytes_s, ready_at_s=ready_at_s)
        takes_s = message.forward_bytes / self._spec.uplink_bytes_s
        ends_s = self._uplink.put(takes_s, ready_at_s=ready_at_s)
        self._up.put(message.forward_bytes, ready_at_s=ready_at_s, began_s=ends_s - takes_s, ended_s=ends_s)
        self._sending.note(ended_s=ends_s, took_s=takes_s)
        return ends_s

    def take(self, message: Crossing, *, ready_at_s: float) -> float:
        """Put a message on the downlink; returns the time at which it will have come in, if it waits for the device
        since `ready_at_s`."""
        message = self._with_resends(message)
        self._up.add(message.backward_bytes)
        self._uplink.put(message.backward_bytes / self._spec.uplink_bytes_s, ready_at_s=ready_at_s)
        takes_s = message.forward_bytes / self._spec.downlink_bytes_s
        ends_s = self._downlink.put(takes_s, ready_at_s=ready_at_s)
        self._down.put(message.forward_bytes, ready_at_s=ready_at_s, began_s=ends_s - takes_s, ended_s=ends_s)
        self._taking.note(ended_s=ends_s, took_s=takes_s)
        return ends_s

    def sent_from_s(self, ready_at_s: float) -> float:
        """The time at which a message that is ready at `ready_at_s` would begin to leave the device."""
        return self._uplink.free_at_s(ready_at_s)

    def taken_from_s(self, ready_at_s: float) -> float:
        """The time at which a message that waits for the device since `ready_at_s` would begin to come in."""
        return self._downlink.free_at_s(ready_at_s)

    def delay_s(self, chance: random.Random) -> float:
        """Draw the seconds from leaving to arriving."""
        if self._spec.jitter_s == 0.0:
            return self._spec.latency_s
        return self._spec.latency_s + self._spec.jitter_s * chance.random()

    def _with_resends(self, message: Crossing) -> Crossing:
        if self._spec.loss == 0.0:
            return message
        arriving = 1.0 - self._spec.loss
        return Crossing(
            forward_bytes=round(message.forward_bytes / arriving),
            backward_bytes=round(message.backward_bytes / arriving),
        )


class _Flow:
    """The bytes of one direction, counted as they cross."""

    def __init__(self) -> None:
        self._crossed_bytes = 0
        self._coming: deque[tuple[float, float, int]] = deque()
        """Messages that have not crossed wholly, in order: `(began_s, ended_s, size_bytes)`."""

    def add(self, size_bytes: int) -> None:
        """Count bytes that have crossed."""
        self._crossed_bytes += size_bytes

    def put(self, size_bytes: int, *, ready_at_s: float, began_s: float, ended_s: float) -> None:
        """Note that so many bytes cross between the two moments, after all that was put before; it is not later than
        `ready_at_s`."""
        self._count_until(ready_at_s)
        self._coming.append((began_s, ended_s, size_bytes))

    def bytes_at(self, now_s: float) -> int:
        """The bytes that have crossed by `now_s`."""
        self._count_until(now_s)
        parts = (
            int((now_s - began_s) / (ended_s - began_s) * size)
            for began_s, ended_s, size in self._coming
            if began_s < now_s
        )
        return self._crossed_bytes + sum(parts)

    def _count_until(self, time_s: float) -> None:
        while self._coming and self._coming[0][1] <= time_s:
            self._crossed_bytes += self._coming.popleft()[2]


class Route:
    """The path between a device and the broker: over the link of the device, and over that of the broker's host if it
    has one. A message is on all of them at the same time."""

    def __init__(self, *, own: Link | None, host: Link | None, chance: random.Random) -> None:
        self._own = own
        self._host = host
        self._chance = chance

    def up(self, message: Crossing, *, ready_at_s: float) -> float:
        """Send a message to the broker; returns the time at which it will have left the last link, if it is ready at
        `ready_at_s`."""
        own_s = ready_at_s if self._own is None else self._own.send(message, ready_at_s=ready_at_s)
        host_s = ready_at_s if self._host is None else self._host.take(message, ready_at_s=ready_at_s)
        return max(own_s, host_s)

    def down(self, message: Crossing, *, ready_at_s: float) -> float:
        """Send a message to the device; returns the time at which it will have left the last link, if it is ready at
        `ready_at_s`."""
        own_s = ready_at_s if self._own is None else self._own.take(message, ready_at_s=ready_at_s)
        host_s = ready_at_s if self._host is None else self._host.send(message, ready_at_s=ready_at_s)
        return max(own_s, host_s)

    def begins_down_s(self, ready_at_s: float) -> float:
        """The time at which a message to the device that is ready at `ready_at_s` would leave the broker, all links
        being free."""
        own_s = ready_at_s if self._own is None else self._own.taken_from_s(ready_at_s)
        host_s = ready_at_s if self._host is None else self._host.sent_from_s(ready_at_s)
        return max(own_s, host_s)

    def delay_s(self) -> float:
        """Draw the seconds from leaving to arriving, over all links."""
        own_s = 0.0 if self._own is None else self._own.delay_s(self._chance)
        host_s = 0.0 if self._host is None else self._host.delay_s(self._chance)
        return own_s + host_s
