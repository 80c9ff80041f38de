"""The sending end of a transfer: `Outgoing` (to one device) and `FanOut` (to all).

Pure: what is to be done comes back as effects, and the time is an argument.
"""

import itertools

from crowd.protocol.messages import Offer, Want
from crowd.protocol.transfer.effects import Effect, SendChunk, SendOffer
from crowd.protocol.transfer.manifest import chunk_span, is_inline
from crowd.units import SECOND_US, DeviceId

WINDOW = 8
"""Chunks that travel to one receiver before it has asked for more."""

_REPEAT_US = 2 * SECOND_US
_REPEAT_US_MAX = 30 * SECOND_US
_REPEAT_HEARD_US = 8 * SECOND_US
"""Interval of repeated offers once the receiver has been heard and drives the transfer: repeating then only replaces an
answer that was lost."""


class FanOut:
    """A transfer to all. Offer and chunks are published once; then each receiver that asks is served. It has no end of
    its own."""

    def __init__(self, offer: Offer, data: bytes) -> None:
        self._offer = offer
        self._data = memoryview(data)

    def start(self) -> tuple[Effect, ...]:
        """Publish the offer and all chunks."""
        return self._offer_and_push(None, len(self._offer.digests))

    def offer_to(self, device: DeviceId) -> tuple[Effect, ...]:
        """Offer the transfer to one device that missed it, as if it began now."""
        return self._offer_and_push(device, WINDOW)

    def serve(self, device: DeviceId, want: Want) -> tuple[Effect, ...]:
        """Send the wanted chunks, each once; at most two windows of them, whatever the receiver asks for."""
        count = len(self._offer.digests)
        ranges = (range(max(start, 0), min(stop, count)) for start, stop in want.chunks)
        wanted = dict.fromkeys(itertools.islice(itertools.chain.from_iterable(ranges), 2 * WINDOW))
        return tuple(self._chunk(device, index) for index in wanted) if not is_inline(self._offer) else ()

    def _offer_and_push(self, destination: DeviceId | None, chunks_max: int) -> tuple[Effect, ...]:
        offer = SendOffer(destination=destination, offer=self._offer)
        if is_inline(self._offer):
            return (offer,)
        pushed = range(min(chunks_max, len(self._offer.digests)))
        return (offer, *(self._chunk(destination, index) for index in pushed))

    def _chunk(self, destination: DeviceId | None, index: int) -> SendChunk:
        start, stop = chunk_span(self._offer, index)
        return SendChunk(
            destination=destination, transfer=self._offer.transfer, index=index, data=self._data[start:stop]
        )


class Outgoing:
    """A transfer to one device: a `FanOut` to it alone that repeats its offer until the receiver is heard."""

    def __init__(self, now_us: int, offer: Offer, data: bytes, destination: DeviceId, give_up_us: int) -> None:
        self.destination = destination
        self._offer = offer
        self._fan_out = FanOut(offer, data)
        self._give_up_us = give_up_us
        self._heard_us = now_us
        self._repeat_us = _REPEAT_US
        self._repeat_at_us = now_us + _REPEAT_US

    @property
    def deadline_us(self) -> int:
        """The time at which `on_tick` is due, in microseconds of the caller's clock."""
        return min(self._repeat_at_us, self._heard_us + self._give_up_us)

    def is_lost(self, now_us: int) -> bool:
        """Whether the receiver has been silent for so long that the sender gives up."""
        return now_us >= self._heard_us + self._give_up_us

    def start(self) -> tuple[Effect, ...]:
        return self._fan_out.offer_to(self.destination)

    def on_want(self, now_us: int, want: Want) -> tuple[Effect, ...]:
        self._heard_us = now_us
        self._repeat_us = _REPEAT_HEARD_US
        self._repeat_at_us = now_us + _REPEAT_HEARD_US
        return self._fan_out.serve(self.destination, want)

    def on_tick(self, now_us: int) -> tuple[Effect, ...]:
        if now_us < self._repeat_at_us:
            return ()
        self._repeat_us = min(2 * self._repeat_us, _REPEAT_US_MAX)
        return self._repeat(now_us)

    def reconnected(self, now_us: int) -> tuple[Effect, ...]:
        """Repeat the offer, which may be lost, and count the receiver's silence from now: silence without a connection
        says nothing of it."""
        self._heard_us = now_us
        self._repeat_us = _REPEAT_US
        return self._repeat(now_us)

    def _repeat(self, now_us: int) -> tuple[Effect, ...]:
        self._repeat_at_us = now_us + self._repeat_us
        return (SendOffer(destination=self.destination, offer=self._offer),)
