"""The deadline by which an owner of a slice waits for contributions: `Deadlines`."""

from collections import Counter
from collections.abc import Collection, Iterable

from crowd.units import SECOND_US, DeviceId

SPREADS = 3
"""Factor k in `median + k * max(MAD, median / 4)`."""
LATE_FACTOR = 4
"""How many times that a trainer may take and is still waited for, where it came so late before."""


class Deadlines:
    """An owner's deadlines for contributions, from the last arrival of each trainer's. Integer microseconds."""

    def __init__(self) -> None:
        self._trainers: frozenset[DeviceId] = frozenset()
        self._latest_us: dict[DeviceId, int] = {}
        self._missed: Counter[DeviceId] = Counter()
        """Rounds in a row that were merged without a trainer."""
        self._merged = 0
        """Number of the last round that was merged."""

    def keep(self, trainers: Iterable[DeviceId]) -> None:
        """Wait for these trainers only, from now on."""
        self._trainers = frozenset(trainers)
        self._latest_us = {trainer: at for trainer, at in self._latest_us.items() if trainer in self._trainers}
        self._missed.clear()
        self._merged = 0

    def observe(self, trainer: DeviceId, arrival_us: int) -> None:
        """Note a contribution that came so long after its round began at the owner. Late ones must be noted too: a
        deadline that knew only those in time would shut out a slightly slower device for ever."""
        self._latest_us[trainer] = arrival_us

    def merged(self, number: int, missing: Collection[DeviceId]) -> None:
        """Note that slices of round `number` have been merged without these trainers: once a round, by the first."""
        if number == self._merged:
            return
        self._merged = number
        self._missed = Counter({trainer: self._missed[trainer] + 1 for trainer in missing})

    def deadline_us(self, planned_us: int) -> int:
        """Time from the owner's start of a round, planned to take `planned_us`, after which it no longer waits: `median
        + 3 * max(MAD, median / 4)` of the last arrivals, and never less than planned.

        A trainer that came later than that is waited for as it came, up to `LATE_FACTOR` times as long, and one that
        never came twice the planned time, or that and 2 s: in the first round that it misses, and then in the second,
        third, fifth, ninth and so on. So nobody is shut out for ever, and who comes no more costs little.
        """
        unknown_us = max(2 * planned_us, planned_us + 2 * SECOND_US)
        if not self._latest_us:
            return unknown_us
        arrivals_us = self._latest_us.values()
        median_us = _median(arrivals_us)
        mad_us = _median(abs(arrival_us - median_us) for arrival_us in arrivals_us)
        usual_us = max(planned_us, median_us + SPREADS * max(mad_us, median_us // 4))
        awaited_us = [usual_us]
        for trainer in self._trainers:
            missed = self._missed[trainer]
            if missed & (missed - 1):  # neither 0 nor a power of two
                continue
            came_us = self._latest_us.get(trainer)
            awaited_us.append(unknown_us if came_us is None else min(came_us + came_us // 4, LATE_FACTOR * usual_us))
        return max(awaited_us)


def _median(values: Iterable[int]) -> int:
    """The median of integers, rounded down."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2
