"""`Partitions`: which devices can reach the broker at this moment, and which it can reach."""

import anyio

from crowd.units import DeviceId


class Partitions:
    """Everybody reaches everybody until `cut`. On the link of the broker's `host` all others depend, but not the host
    itself."""

    def __init__(self, host: DeviceId | None) -> None:
        self._host = host
        self._cut_up: set[DeviceId] = set()
        self._cut_down: set[DeviceId] = set()
        self._mended = anyio.Event()

    def cut(self, device: DeviceId, *, up: bool, down: bool) -> None:
        """The link of `device` no longer carries in these directions."""
        if up:
            self._cut_up.add(device)
        if down:
            self._cut_down.add(device)

    def mend(self, device: DeviceId) -> None:
        """Its link carries in both directions again."""
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
        return self.up(device) and self.down(device)

    async def restored(self, device: DeviceId) -> None:
        """Returns when both directions carry, at once if they do."""
        while not self.both(device):
            await self._mended.wait()
