"""Bounded work for what may be junk: `Budget`."""

from crowd.units import SECOND_US


class Budget:
    """A number of uses in a second on average, and more of them at once after a rest (a token bucket)."""

    def __init__(self, *, per_s: int, at_once: int) -> None:
        self._per_s = per_s
        self._most_us = at_once * SECOND_US // per_s
        self._left_us = self._most_us
        """What is left, in microseconds of rest."""
        self._seen_us: int | None = None

    def is_left(self, now_us: int) -> bool:
        """Whether there is something left at this time."""
        if self._seen_us is not None:
            self._left_us = min(self._most_us, self._left_us + now_us - self._seen_us)
        self._seen_us = now_us
        return self._left_us > 0

    def spend(self) -> None:
        """Use one of them, whether it is left or not; nothing is owed for long."""
        self._left_us = max(self._left_us - SECOND_US // self._per_s, -SECOND_US // self._per_s)
