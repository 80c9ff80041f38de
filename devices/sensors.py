"""Readings: `MachineSensor` (this machine, live) and `FixedSensor` (an emulated one)."""

import attrs
import psutil

from crowd.ports import Readings, Sensor


class MachineSensor(Sensor):
    """A sensor of this machine."""

    def read(self) -> Readings:
        return Readings(memory_free_bytes=psutil.virtual_memory().available)


@attrs.frozen(kw_only=True)
class FixedSensor(Sensor):
    """A sensor of a device that always has the same memory free."""

    memory_free_bytes: int

    def read(self) -> Readings:
        return Readings(memory_free_bytes=self.memory_free_bytes)
