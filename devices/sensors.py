"""Readings: `MachineSensor` (this machine, live) and `FixedSensor` (an emulated one)."""

import attrs
import psutil

from crowd.ports import Readings, Sensor


@attrs.frozen(kw_only=True)
class CpuTimes:
    """Seconds of processor time since some start, summed over all cores."""

    total_s: float
    idle_s: float
    own_s: float
    """Seconds spent by this process."""


def busy_permille(earlier: CpuTimes, later: CpuTimes) -> int | None:
    """The use of all cores by others than this process between two readings, in thousandths; `None` if no time has
    passed."""
    total_s = later.total_s - earlier.total_s
    if total_s <= 0:
        return None
    others_s = total_s - (later.idle_s - earlier.idle_s) - (later.own_s - earlier.own_s)
    return min(1000, max(0, round(1000 * others_s / total_s)))


class MachineSensor(Sensor):
    """A sensor of this machine. The processor's load is the mean since the reading before, the first one's since it was
    made."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._times = self._read_times()
        self._busy_permille = 0

    def read(self) -> Readings:
        times = self._read_times()
        busy = busy_permille(self._times, times)
        if busy is not None:
            self._times, self._busy_permille = times, busy
        return Readings(memory_free_bytes=psutil.virtual_memory().available, cpu_busy_permille=self._busy_permille)

    def _read_times(self) -> CpuTimes:
        machine = psutil.cpu_times()
        own = self._process.cpu_times()
        # A guest's time is part of its host's user time already.
        guests_s = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)
        return CpuTimes(
            total_s=sum(machine) - guests_s,
            idle_s=machine.idle + getattr(machine, "iowait", 0.0),
            own_s=own.user + own.system,
        )


@attrs.frozen(kw_only=True)
class FixedSensor(Sensor):
    """A sensor of a device on which nothing else runs and that always has the same memory free."""

    memory_free_bytes: int

    def read(self) -> Readings:
        return Readings(memory_free_bytes=self.memory_free_bytes, cpu_busy_permille=0)
