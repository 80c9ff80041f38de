"""When a device asks for the next run by the clock: `Timetable`."""

import hashlib
from datetime import date, datetime, time, timedelta

import attrs

DAY = timedelta(days=1)
LATER_MAX = timedelta(minutes=5)
"""Not all clusters of a house, or of a street, begin at 02:00 sharp."""
LATER_PARTS = 20
"""Of a period, the part by which a run begins later at most."""


@attrs.frozen(kw_only=True)
class Timetable:
    """At which time of day, and how long after the last one, the next run is due; with both, at that time on the day on
    which it is due by the other. All devices ask for it at about the same time, and the first one counts."""

    cluster: str
    at: time | None
    """Local time of day."""
    every: timedelta | None

    @property
    def is_empty(self) -> bool:
        """Whether no run is ever due by the clock."""
        return self.at is None and self.every is None

    def due(self, run: int, ended: datetime) -> datetime | None:
        """When the run after `run`, which ended then, is due; `None`: never by the clock. Both are local times that
        know their offset from UTC."""
        if self.at is None:
            return None if self.every is None else ended + self.every + self._later(run, self.every / LATER_PARTS)
        since = ended + (self.every or DAY) - DAY
        later = self._later(run, LATER_MAX)
        days = (since.date() + number * DAY for number in range(3))
        return next(due for day in days if (due := _local(day, self.at)) > since) + later

    def _later(self, run: int, most: timedelta) -> timedelta:
        """How much later, up to `most` and five minutes: the same on all devices of a cluster, another for each run and
        each cluster."""
        drawn = hashlib.blake2b(f"{self.cluster}\0{run}".encode(), digest_size=4).digest()
        return min(most, LATER_MAX) * (int.from_bytes(drawn, "big") / (1 << 32))


def _local(day: date, at: time) -> datetime:
    return datetime.combine(day, at).astimezone()
