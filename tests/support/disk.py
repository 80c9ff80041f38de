"""The disk of a device that can be unplugged: `Disk`."""

from collections.abc import Collection

from devices.store import MemoryStore


class Disk(MemoryStore):
    """Keeps what is written to it as long as there is power: what a node does in its last moments, as its tasks are
    cancelled, a power cut would not let it do."""

    def __init__(self) -> None:
        super().__init__()
        self.has_power = True
        self._written: dict[str, None] = {}
        """Names, those written last at the end."""

    def write(self, name: str, data: bytes) -> None:
        if not self.has_power:
            raise OSError("the power has failed")
        super().write(name, data)
        self._written.pop(name, None)
        self._written[name] = None

    def put(self, name: str, data: bytes) -> None:
        """Write what somebody puts there while the device is off."""
        super().write(name, data)

    def damage(self, names: Collection[str]) -> bool:
        """Change a byte of that of these files which was written last; whether there is one."""
        for name in reversed(self._written):
            data = self.read(name) if name in names else None
            if data is not None:
                super().write(name, data[:-1] + bytes([data[-1] ^ 1]))
                self._written.pop(name)
                return True
        return False
