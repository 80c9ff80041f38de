"""A view that is drawn anew on a terminal, and is not there where there is no terminal: `LiveView`."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from crowd.logs import logs_to_stderr


class LiveView:
    """A view that is shown from entry to exit, with warnings above it."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
            logs_to_stderr()  # again, so that warnings go above the live view
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
            logs_to_stderr()
