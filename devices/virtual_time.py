"""An asyncio loop whose clock leaps to the next timer instead of waiting for it.

    anyio.run(main, backend="asyncio", backend_options={"loop_factory": VirtualTimeLoop})

Time passes only while every task waits for a timer; the code itself takes none. So hours pass in seconds, and the same
code with the same seed takes the same course each time.
"""

import asyncio
import math
import selectors

from crowd.errors import CrowdError


class Deadlock(CrowdError):
    """Every task waits, and no timer is left that could wake one."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 0 s; a timer's callback sees exactly the time for which it was set. Raises `Deadlock`, which names the
    waiting tasks, out of the running call when no timer is left. Threads cannot be awaited: their results come from
    outside of virtual time.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_LeapingSelector(self))
        self._clock_resolution = math.ulp(self._now_s)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    def leap(self) -> None:
        """Move the clock to the next timer; for the selector, when there is nothing else to do."""
        # asyncio has no public way to its timers, and now + timeout would miss them by rounding.
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if not timers or timers[0].when() == math.inf:
            names = sorted(task.get_name() for task in asyncio.all_tasks(self))
            raise Deadlock(f"no timer left at {self._now_s} s, and these tasks wait: {', '.join(names)}")
        self._now_s = timers[0].when()
        # asyncio calls what is due before now + resolution: after months a nanosecond no longer changes that sum.
        self._clock_resolution = math.ulp(self._now_s)


class _LeapingSelector(selectors.DefaultSelector):
    """Polls and never blocks."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events and timeout != 0:
            self._loop.leap()
        return events
