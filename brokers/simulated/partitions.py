"""Network partitions: which devices can reach the broker at this moment, and which it can reach: `Partitions`."""

import anyio

from crowd.units import DeviceId


class Partitions:
    """The links that are cut. Everybody reaches everybody until `cut`. All others depend on the link of the broker's
    `host`, but not the host itself."""

    def __init__(self, host: DeviceId | None) -> None:
        self._host = host
        self._cut_up: set[DeviceId] = set()
        self._cut_down: set[DeviceId] = set()
        self._mended = anyio.Event()

    def cut(self, device: DeviceId, *, up: bool, down: bool) -> None:
        """Cut the link of `device` in these directions."""
        if up:
            self._cut_up.add(device)
        if down:
            self._cut_down.add(device)

    def mend(self, device: DeviceId) -> None:
        """Mend the link of `device` in both directions."""
        self._cut_up.discard(device)
        self._cut_down.discard(device)
        self._mended.set()
        self._mended = anyio.Event()

    def up(self, device: DeviceId) -> bool:
        """Whether what `device` sends reaches the broker."""
        return device == self._host or not (device in self._cut_up or self._host in self._cut_down)

    def down(self, device: DeviceId) -> bool:
        """Whether what the broker sends reaches `device`."""
        return device == self._host or not (device in self._cut_down or self._host in self._cut_up)

    def both(self, device: DeviceId) -> bool:
        """Whether `device` and the broker reach each other."""
        return self.up(device) and self.down(device)

    async def restored(self, device: DeviceId) -> None:
        """Wait until both directions carry; return at once if they do."""
        while not self.both(device):
            await self._mended.wait()
