"""Which planned trainers the rounds go on without: `Attendance`."""

from collections.abc import Collection

from crowd.units import SECOND_US, DeviceId

ABSENT_US = 10 * SECOND_US
"""How long a trainer's contributions may be missing before that is worth a line; about as long as it is waited for
where rounds cannot go on without it."""


class Attendance:
    """The trainers that were missing in the latest rounds, and since when. Integer microseconds."""

    def __init__(self) -> None:
        self._missing_us: dict[DeviceId, int] = {}
        self._named: set[DeviceId] = set()

    def note(self, planned: Collection[DeviceId], senders: Collection[DeviceId], now_us: int) -> tuple[DeviceId, ...]:
        """Note who contributed to a complete round; the trainers that have been absent for too long since then, by ID,
        each once until it is back."""
        missing = set(planned) - set(senders)
        self._missing_us = {device: self._missing_us.get(device, now_us) for device in missing}
        absent = {device for device, since_us in self._missing_us.items() if now_us - since_us >= ABSENT_US}
        new = absent - self._named
        self._named = (self._named & missing) | absent
        return tuple(sorted(new))
