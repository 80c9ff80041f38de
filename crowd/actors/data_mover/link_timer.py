"""How fast bytes come in over this device's link: `LinkTimer`."""

from crowd.runtime.clock import now_us
from crowd.units import SECOND_US, DeviceId

CHUNK_GAP_US_MAX = 2 * SECOND_US
"""Longest gap between two chunks that measures the link; after a longer one they were waited for."""


class LinkTimer:
    """Measures the downlink by two chunks of one transfer that follow each other closely."""

    def __init__(self) -> None:
        self._latest: tuple[DeviceId, str, int] | None = None

    def time(self, source: DeviceId, transfer: str, *, is_awaited: bool) -> int | None:
        """The microseconds that a chunk took which comes now; `None`: nobody can tell. `is_awaited`: this device takes
        part in the transfer."""
        previous, self._latest = self._latest, (source, transfer, now_us())
        if previous is None or previous[:2] != (source, transfer) or not is_awaited:
            return None
        elapsed_us = now_us() - previous[2]
        return elapsed_us if elapsed_us < CHUNK_GAP_US_MAX else None
