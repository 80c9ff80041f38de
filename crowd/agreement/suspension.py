"""A device whose work stands still: `Suspension` (it lives, and is heard, but plans give it no part), `Given` and
`Stalls` (what one device remembers of those that it has suspended, and of its own)."""

from collections.abc import Mapping

import attrs

from crowd.units import DeviceId, Life

ROUNDS_REMEMBERED = 8
"""Rounds whose lengths say how long one may take."""


@attrs.frozen(kw_only=True, order=True)
class Suspension:
    """A suspension of one life of a device. Of two the greater counts: a later one, or the end of the same."""

    life: Life
    number: int
    """Number of the suspension within that life, from 1."""
    lifted: bool = False
    """Whether the device has shown progress since, and takes part again."""


@attrs.frozen(kw_only=True)
class Given:
    """A suspension that this device has given, and how long it had waited before."""

    suspension: Suspension
    at_us: int
    waited_us: int


@attrs.frozen(kw_only=True)
class Stalls:
    """How long rounds take, how reliable suspicions of standing still have been, and the own suspension."""

    rounds_us: tuple[int, ...] = ()
    """Lengths of the latest rounds."""
    began_us: int = 0
    """When the round in hand began here."""
    awake_us: int = 0
    """When this device last found that it had slept, or been too busy to listen."""
    given: Mapping[DeviceId, Given] = attrs.field(factory=dict)
    """The last suspension of each other device by this one."""
    doubted: frozenset[DeviceId] = frozenset()
    """Devices that were back before this device would have waited twice as long. That it waited too shortly is certain
    once they have done their part."""
    mistakes: int = 0
    """How often waiting twice as long would have been right."""
    mistake_us: int = 0
    """When the last mistake was noticed."""
    asked: Suspension | None = None
    """The own suspension whose end waits for a sign of progress, or has had it."""
    lifts_us: int | None = None
    """When the own suspension ends; `None` if progress has not been seen."""

    def with_round(self, now_us: int) -> "Stalls":
        """The record when a round is complete."""
        latest = (*self.rounds_us, now_us - self.began_us)
        return attrs.evolve(self, rounds_us=latest[-ROUNDS_REMEMBERED:], began_us=now_us)
