"""The computation of the comparison's cells: side by side, each in a process of its own, and none twice.

Layout: `CellStatus` and `MatrixListener` (progress), `Matrix` (all cells), `compare` (their results).
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import anyio
import attrs

from crowd.bench.cells import Cell, Entry, groups, read_entry
from crowd.bench.report import FAILED, TO_COME, Comparison, Scenario
from crowd.errors import BadConfig
from crowd.experiment.message_lines import MessageLines
from crowd.experiment.subprocesses import ProcessFailed, started

PATIENCE = 10.0
"""Times as long as the fastest of the leaders that a policy may take to the target."""


@attrs.frozen(kw_only=True)
class CellStatus:
    """A round that a cell has completed."""

    round: int
    elapsed_s: float
    metric: str
    value: float | None


STATUSES = MessageLines[CellStatus](CellStatus)
"""The lines in which the process of a cell reports its progress."""


class MatrixListener:
    """A listener to the progress of a matrix; this one ignores it."""

    def found(self, cell: Cell) -> None:
        """The entry of `cell` was there."""

    def began(self, cell: Cell) -> None:
        """The process of `cell` starts."""
        ...

    def heard(self, cell: Cell, news: CellStatus) -> None:
        """A round of `cell` was completed."""
        ...

    def ended(self, cell: Cell, entry: Entry) -> None:
        """The result of `cell` is there."""
        ...

    def failed(self, cell: Cell, cause: str) -> None:
        """The process of `cell` failed, for this cause."""
        ...


class Matrix:
    """All cells of a comparison, and the result of each.

    In each group of cells that are compared the `leaders` go first; the others are stopped when they have taken
    `PATIENCE` times as long as the fastest leader that reached the target. So a limit, and with it an entry, depends on
    no order in which cells happen to end. An entry that was there and tells more than the limit asks for is kept.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        *,
        leaders: Sequence[str],
        command: Callable[[Cell, float | None], Sequence[str]],
        watch: MatrixListener,
        processes: int,
    ) -> None:
        """Begin without results. `leaders` are policies; `command` starts the process that computes a cell within a
        limit of simulated seconds, writes a `CellStatus` per line, and leaves the entry at its path."""
        self.cells = cells
        self.entries: dict[Cell, Entry] = {}
        self.failures: dict[Cell, str] = {}
        self._leaders = leaders
        self._command = command
        self._watch = watch
        self._free = anyio.CapacityLimiter(processes)

    async def settle(self) -> None:
        """Return when every cell has its entry or has failed. When cancelled, all processes have ended."""
        async with anyio.create_task_group() as tasks:
            for group in groups(self.cells):
                tasks.start_soon(self._settle_group, group)

    async def _settle_group(self, group: list[Cell]) -> None:
        leaders = [cell for cell in group if cell.experiment.policy in self._leaders]
        await self._settle_all(leaders, None)
        times_s = [self.entries[cell].seconds_to_target for cell in leaders if cell in self.entries]
        fastest_s = min((time_s for time_s in times_s if time_s is not None), default=None)
        limit_s = None if fastest_s is None else round(PATIENCE * fastest_s, 3)
        await self._settle_all([cell for cell in group if cell not in leaders], limit_s)

    async def _settle_all(self, cells: Sequence[Cell], limit_s: float | None) -> None:
        async with anyio.create_task_group() as tasks:
            for cell in cells:
                tasks.start_soon(self._settle, cell, limit_s)

    async def _settle(self, cell: Cell, limit_s: float | None) -> None:
        entry = read_entry(cell.path)
        if entry is not None and entry.serves(limit_s):
            self.entries[cell] = entry
            self._watch.found(cell)
            return
        async with self._free:
            self._watch.began(cell)
            try:
                self.entries[cell] = entry = await self._compute(cell, limit_s)
            except (BadConfig, ProcessFailed, OSError) as error:
                self.failures[cell] = cause = _cause(error).removeprefix(f"{cell.label}: ")
                self._watch.failed(cell, cause)
            else:
                self._watch.ended(cell, entry)

    async def _compute(self, cell: Cell, limit_s: float | None) -> Entry:
        async with started(self._command(cell, limit_s), name=cell.label, grace_s=0.0) as process:
            async for line in process.lines():
                self._watch.heard(cell, STATUSES.from_line(line))
            await process.expect_success()
        entry = read_entry(cell.path)
        if entry is None:
            raise BadConfig(f"{cell.label}: its process left no entry in {cell.path}")
        return entry


def compare(cells: Sequence[Cell], entries: Mapping[Cell, Entry], failures: Collection[Cell]) -> Comparison:
    """The comparison of all `cells`; those with neither an entry nor a failure are still to come."""
    return Comparison(
        [entries[cell].run for cell in cells if cell in entries],
        {
            (Scenario(task=cell.experiment.task, cluster=cell.experiment.cluster.name), cell.experiment.policy): FAILED
            if cell in failures
            else TO_COME
            for cell in cells
            if cell not in entries
        },
    )


def _cause(error: Exception) -> str:
    return error.cause if isinstance(error, ProcessFailed) else str(error)
