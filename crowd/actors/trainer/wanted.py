"""A state that this device lacks, and whom it asks for it: `Wanted`. Pure."""

import attrs

from crowd.agreement.ack import StateProgress
from crowd.units import DeviceId


@attrs.frozen(kw_only=True)
class Wanted:
    """A state that others hold, and when to ask for it (again), in microseconds."""

    progress: StateProgress
    holders: tuple[DeviceId, ...]
    attempt: int = 0
    again_us: int = 0
    since_us: int = 0
    """When it was first asked for, and what it takes over this device's link."""

    @property
    def holder(self) -> DeviceId:
        """The device to ask in this attempt: one after the other."""
        return self.holders[self.attempt % len(self.holders)]

    def once_more(self, also: frozenset[DeviceId]) -> "Wanted":
        """The next attempt, as the last one has brought nothing; `also` hold that state by now, or a later one."""
        holders = (*self.holders, *sorted(also.difference(self.holders)))
        return attrs.evolve(self, holders=holders, attempt=self.attempt + 1)
