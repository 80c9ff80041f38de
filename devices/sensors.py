"""Readings: `MachineSensor` (this machine, live) and `FixedSensor` (an emulated one)."""

import attrs
import psutil

from crowd.ports import Readings, Sensor
from devices import cgroup_limits


class MachineSensor(Sensor):
    """A sensor of this machine, as far as the limits of a container or a service leave it to this process."""

    def read(self) -> Readings:
        free_bytes, left_bytes = psutil.virtual_memory().available, cgroup_limits.memory_free_bytes()
        return Readings(
            memory_free_bytes=free_bytes if left_bytes is None else min(free_bytes, left_bytes),
            processors=cgroup_limits.processors(),
        )


@attrs.frozen(kw_only=True)
class FixedSensor(Sensor):
    """A sensor of a device that always has the same memory free."""

    memory_free_bytes: int

    def read(self) -> Readings:
        return Readings(memory_free_bytes=self.memory_free_bytes)
