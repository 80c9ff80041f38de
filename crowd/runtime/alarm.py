"""An actor's alarm clock."""

import math
from collections.abc import Callable
from typing import NoReturn

import anyio


class Alarm:
    """Rings at the time that it was set for, or before: an actor's deadline moves with nearly every message, and mostly
    on, so that a timer for each would cost more than a needless look round now and then."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._set_for = math.inf
        self._set_anew = anyio.Event()

    def set_for(self, time_s: float) -> None:
        """A later time than it is set for changes nothing; it will ring, and is to be set again then."""
        if time_s < self._set_for:
            self._set_for = time_s
            self._set_anew.set()

    async def run(self) -> NoReturn:
        """Rings until it is cancelled."""
        while True:
            self._set_anew = anyio.Event()
            with anyio.CancelScope(deadline=self._set_for):
                await self._set_anew.wait()
            if anyio.current_time() >= self._set_for:
                self._set_for = math.inf
                self._ring()
