"""What happens again and again is told at once, and then now and then: `Seldom`."""

import anyio

TOLD_EVERY_S = 60.0


class Seldom:
    """Says when something is to be told: the first time, and then at most once in `TOLD_EVERY_S` seconds of the event
    loop's clock."""

    def __init__(self) -> None:
        self._told_s: float | None = None

    def is_due(self) -> bool:
        """Whether to tell it now; if so, the next time is so much later."""
        now_s = anyio.current_time()
        if self._told_s is not None and now_s - self._told_s < TOLD_EVERY_S:
            return False
        self._told_s = now_s
        return True
