"""The receiving end of a transfer: `Incoming` asks for what it lacks; `ArrivalPace` is how fast a sender's chunks come.

Pure: what is to be done comes back as effects, and the time is an argument.

A chunk that has not come may be lost or late, and asking for a late one doubles the load of a link that is slow
already. So silence costs one chunk at first: the receiver asks for those that later ones have overtaken and for one
more; only when this was answered, and nothing else came, it asks for the rest of its window.
"""

import enum
import io
import itertools
from collections.abc import Iterable

from crowd.protocol.messages import Offer, Want
from crowd.protocol.transfer.effects import Effect, SendWant
from crowd.protocol.transfer.manifest import chunk_span, is_chunk
from crowd.protocol.transfer.outgoing import WINDOW
from crowd.units import SECOND_US, DeviceId

_WAIT_US = SECOND_US
_WAIT_US_MAX = 16 * SECOND_US
_WAIT_FAN_OUT_US = 4 * SECOND_US
"""Wait for the first chunk of a transfer to all: if it is only late, every receiver would ask for it. Multiplied by the
transfers that are coming in already, since they share the link."""


class ArrivalPace:
    """The longest gap between two chunks of one sender, slowly forgotten; shared by all that it sends."""

    def __init__(self) -> None:
        self._gap_us = 0

    def observe(self, gap_us: int) -> None:
        self._gap_us = max(gap_us, self._gap_us * 15 // 16)

    @property
    def wait_us(self) -> int:
        """Microseconds to wait for a chunk before it is missed."""
        return min(max(_WAIT_US, 2 * self._gap_us), _WAIT_US_MAX)


class _Silence(enum.Enum):
    """The state of knowledge about the chunks that do not come."""

    UNKNOWN = enum.auto()
    PROBED = enum.auto()
    """Some chunks were asked for again."""
    LOST = enum.auto()
    """The sender lives, and the chunks have not come."""


class Incoming:
    """The receiving end of one transfer of more than one message, of which at most `WINDOW` chunks are asked for at a
    time (all of them in a fan-out, until some are lost)."""

    def __init__(
        self, now_us: int, sender: DeviceId, offer: Offer, *, to_all: bool, pace: ArrivalPace, others_coming: int
    ) -> None:
        self.sender = sender
        self.offer = offer
        self.to_all = to_all
        self._pace = pace
        self._missing = dict.fromkeys(range(len(offer.digests)))
        self._asked = set(self._missing if to_all else itertools.islice(self._missing, WINDOW))
        self._top = -1
        """The highest chunk that has come."""
        self._silence = _Silence.UNKNOWN
        self._heard_us = now_us
        patience_us = _WAIT_FAN_OUT_US if to_all else _WAIT_US
        self._wait_us = max(pace.wait_us, min(patience_us * (1 + others_coming), _WAIT_US_MAX))
        self._wait_from_us = now_us
        # Unlike joining a list of chunks, this ends with the bytes without ever holding them twice.
        self._buffer = io.BytesIO()
        self._buffer.seek(offer.size_bytes - 1)
        self._buffer.write(b"\0")

    @property
    def deadline_us(self) -> int:
        """The time at which `on_tick` is due, in microseconds of the caller's clock."""
        return self._wait_from_us + self._wait_us

    @property
    def heard_us(self) -> int:
        """The time at which the sender was last heard in this transfer, in microseconds of the caller's clock."""
        return self._heard_us

    @property
    def is_flowing(self) -> bool:
        """Whether no chunk of this transfer has been missed."""
        return self._silence is _Silence.UNKNOWN

    @property
    def is_complete(self) -> bool:
        """Whether all chunks have come."""
        return not self._missing

    def data(self) -> bytes:
        """All bytes, once they are complete."""
        return self._buffer.getvalue()

    def on_offer(self, now_us: int) -> None:
        self._heard_us = now_us

    def on_chunk(self, now_us: int, index: int, data: bytes | memoryview) -> tuple[Effect, ...]:
        """Keep the chunk if it is the offered one and new."""
        if index not in self._missing or not is_chunk(self.offer, index, data):
            return ()
        self._buffer.seek(chunk_span(self.offer, index)[0])
        self._buffer.write(data)
        del self._missing[index]
        self._asked.discard(index)
        self._top = max(self._top, index)
        self._pace.observe(now_us - self._heard_us)
        self._heard_us = self._wait_from_us = now_us
        self._wait_us = self._pace.wait_us
        if self._silence is _Silence.PROBED:
            self._silence = _Silence.LOST
        return self._slide()

    def on_tick(self, now_us: int) -> tuple[Effect, ...]:
        if now_us < self.deadline_us:
            return ()
        effects = self._want_again()
        self._wait_from_us = now_us
        self._wait_us = min(2 * self._wait_us, _WAIT_US_MAX)
        return effects

    def reconnected(self, now_us: int) -> tuple[Effect, ...]:
        """Ask again for all chunks that were on their way, as the lost connection lost them."""
        self._silence = _Silence.LOST
        self._heard_us = self._wait_from_us = now_us
        self._wait_us = self._pace.wait_us
        return self._want_again()

    def _slide(self) -> tuple[Effect, ...]:
        """Ask for more when half of the window has come: a want for every half window, not for every chunk."""
        if len(self._asked) > WINDOW // 2 or len(self._asked) == len(self._missing):
            return ()
        unasked = (index for index in self._missing if index not in self._asked)
        wanted = list(itertools.islice(unasked, WINDOW - len(self._asked)))
        self._asked.update(wanted)
        self._silence = _Silence.UNKNOWN
        return self._want(wanted)

    def _want_again(self) -> tuple[Effect, ...]:
        asked = sorted(self._asked)
        if self._silence is _Silence.LOST:
            wanted = asked[:WINDOW]
            self._asked = set(wanted)
        else:
            overtaken = [index for index in asked if index < self._top]
            wanted = (overtaken + asked[len(overtaken) :][:1])[:WINDOW]
        self._silence = _Silence.PROBED
        return self._want(wanted)

    def _want(self, indices: list[int]) -> tuple[Effect, ...]:
        return (
            SendWant(destination=self.sender, want=Want(transfer=self.offer.transfer, chunks=tuple(_ranges(indices)))),
        )


def _ranges(indices: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending numbers as ranges `[start, stop)`."""
    ranges: list[tuple[int, int]] = []
    for index in indices:
        if ranges and ranges[-1][1] == index:
            ranges[-1] = (ranges[-1][0], index + 1)
        else:
            ranges.append((index, index + 1))
    return ranges
