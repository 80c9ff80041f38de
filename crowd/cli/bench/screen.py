"""The screen of `crowd bench` while it computes: runs that are done and under way, and the time that is left."""

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from crowd.bench.cells import Cell, Entry
from crowd.bench.matrix import CellStatus, MatrixListener
from crowd.cli.live_view import LiveView
from crowd.cli.terminal import bar, verdict
from crowd.formatting import quality, seconds


class BenchScreen(LiveView, MatrixListener):
    """The progress of a comparison: on a terminal a view that is drawn anew, else a line for each cell that was
    computed."""

    def __init__(self, console: Console, cells: int) -> None:
        self._cells = cells
        self._found = self._done = self._failed = 0
        self._running: dict[Cell, CellStatus | None] = {}
        self._began_s = time.monotonic()
        super().__init__(
            console, Live(get_renderable=self._view, console=console, transient=True, refresh_per_second=4)
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._say(f"{self._counts()}, in {seconds(time.monotonic() - self._began_s)}")

    def found(self, cell: Cell) -> None:
        self._found += 1

    def began(self, cell: Cell) -> None:
        self._running[cell] = None

    def heard(self, cell: Cell, news: CellStatus) -> None:
        self._running[cell] = news

    def ended(self, cell: Cell, entry: Entry) -> None:
        del self._running[cell]
        self._done += 1
        self._say(f"{cell.label}: {verdict(entry.run)}")

    def failed(self, cell: Cell, cause: str) -> None:
        del self._running[cell]
        self._failed += 1
        self._say(f"{cell.label}: failed: {cause}")

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _counts(self) -> str:
        counts = [f"{self._found + self._done + self._failed} of {self._cells} runs"]
        counts += [f"{self._found} of them known before"] if self._found else []
        counts += [f"{self._failed} failed"] if self._failed else []
        return ", ".join(counts)

    def _view(self) -> Table:
        settled = self._found + self._done + self._failed
        grid = Table.grid(padding=(0, 2))
        done = settled / self._cells if self._cells else 1.0
        grid.add_row(bar(done), f"{self._counts()}{self._time_left(self._cells - settled)}")
        for cell, news in self._running.items():
            grid.add_row(cell.label, "it measures itself" if news is None else _progress(news))
        return grid

    def _time_left(self, cells: int) -> str:
        """The time that is left if the cells to come take as long as those that were computed, for people."""
        computed = self._done + self._failed
        if not computed:
            return ""
        return f", about {seconds((time.monotonic() - self._began_s) / computed * cells)} left"


def _progress(news: CellStatus) -> str:
    value = "" if news.value is None else f", {quality(news.metric, news.value)}"
    return f"round {news.round}{value}, {seconds(news.elapsed_s)} simulated"
