"""The log of a process of this project: `logs_to_stderr`, and `OnceAMinute`, which keeps warnings from repetition."""

import re
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

SILENCE_S = 60.0
KEPT_MAX = 256
_NUMBER = re.compile(r"\d+")


class OnceAMinute:
    """A processor of structlog that lets a warning through once a minute: what comes meanwhile and differs from it in
    numbers alone is dropped, and counted as `repeated` of the next one. Less than warnings always passes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._said: dict[tuple[str, ...], tuple[float, int]] = {}
        """The time at which each was last let through, and how many were dropped since."""

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        """Raises `structlog.DropEvent` for what is dropped."""
        import structlog

        if method not in ("warning", "error"):
            return event
        key = tuple(f"{name} {_NUMBER.sub('', str(value))}" for name, value in sorted(event.items()))
        now_s = self._clock()
        said_s, dropped = self._said.pop(key, (-SILENCE_S, 0))
        if now_s < said_s + SILENCE_S:
            self._said[key] = said_s, dropped + 1
            raise structlog.DropEvent
        self._said[key] = now_s, 0
        while len(self._said) > KEPT_MAX:
            del self._said[next(iter(self._said))]
        return {**event, "repeated": dropped} if dropped else event


def logs_to_stderr(*, verbose: bool = False) -> None:
    """Send structlog's events to standard error, warnings and above only unless `verbose`, and each of these once a
    minute: standard output is for the result."""
    import logging

    import structlog

    processors = structlog.get_config()["processors"]
    structlog.configure(
        processors=processors
        if any(isinstance(one, OnceAMinute) for one in processors)
        else [OnceAMinute(), *processors],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if verbose else logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
