"""The deadline by which an owner of a slice waits for contributions: `Deadlines`."""

from collections.abc import Iterable

from crowd.units import SECOND_US, DeviceId

SPREADS = 3
"""Factor k in `median + k * max(MAD, median / 4)`."""


class Deadlines:
    """An owner's deadlines for contributions, from the last arrival of each trainer's. Integer microseconds."""

    def __init__(self) -> None:
        self._latest_us: dict[DeviceId, int] = {}

    def keep(self, trainers: Iterable[DeviceId]) -> None:
        """Wait for these trainers only, from now on."""
        wanted = set(trainers)
        self._latest_us = {trainer: at for trainer, at in self._latest_us.items() if trainer in wanted}

    def observe(self, trainer: DeviceId, arrival_us: int) -> None:
        """Note a contribution that came so long after its round began at the owner. Late ones must be noted too: a
        deadline that knew only those in time would shut out a slightly slower device for ever."""
        self._latest_us[trainer] = arrival_us

    def deadline_us(self, planned_us: int) -> int:
        """Time from the owner's start of a round, planned to take `planned_us`, after which it no longer waits: `median
        + 3 * max(MAD, median / 4)` of the last arrivals, and never less than planned."""
        if not self._latest_us:
            return max(2 * planned_us, planned_us + 2 * SECOND_US)
        arrivals_us = self._latest_us.values()
        median_us = _median(arrivals_us)
        mad_us = _median(abs(arrival_us - median_us) for arrival_us in arrivals_us)
        return max(planned_us, median_us + SPREADS * max(mad_us, median_us // 4))


def _median(values: Iterable[int]) -> int:
    """The median of integers, rounded down."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2
