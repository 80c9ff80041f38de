"""One cell of the comparison as a process of its own, for `crowd bench`:

    python -m crowd.cli.processes.bench_cell ORDER

with a `CellOrder` as a line. Writes a `CellStatus` for each round; a reader that is gone ends it. Leaves the entry at
its path. What a task of the user's own prints goes to standard error."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import TextIO

import attrs

from crowd.bench.cells import WORLD, Cell, Entry, make_entry, write_entry
from crowd.bench.matrix import STATUSES, CellStatus
from crowd.cli.experiments import read_experiment
from crowd.cli.main import report
from crowd.errors import DONE, BadConfig, Rejected, TrainingDiverged, innermost
from crowd.experiment.experiment import Experiment, OnRound, RoundReport, backends
from crowd.experiment.message_lines import MessageLines
from crowd.logs import logs_to_stderr
from crowd.run_record import Point


@attrs.frozen(kw_only=True)
class CellOrder:
    """The order to a process that computes one cell."""

    cluster: str
    """Path of the cluster file."""
    task: str
    policy: str
    seed: int
    limit_s: float | None
    """Seconds of the cluster's clock that the run may take; `None`: no limit."""
    key: str
    """Key that the cell must have, or the source has changed meanwhile."""
    path: str
    """Path at which the entry is left."""

    @classmethod
    def of(cls, cell: Cell, limit_s: float | None) -> "CellOrder":
        return cls(
            cluster=str(cell.file),
            task=cell.experiment.task,
            policy=cell.experiment.policy,
            seed=cell.experiment.seed,
            limit_s=limit_s,
            key=cell.key,
            path=str(cell.path),
        )


ORDERS = MessageLines[CellOrder](CellOrder)


def command(cell: Cell, limit_s: float | None) -> list[str]:
    """The command that starts the process that computes `cell`."""
    return [
        sys.executable,
        "-P",  # what is in the working directory is no module of this program
        "-m",
        "crowd.cli.processes.bench_cell",
        ORDERS.to_line(CellOrder.of(cell, limit_s)),
    ]


def main(arguments: list[str]) -> int:
    """Compute the ordered cell; returns the exit code, as of `crowd` itself. The last line on standard error is what
    went wrong."""
    logs_to_stderr()
    try:
        with os.fdopen(os.dup(sys.stdout.fileno()), "w") as news:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
            work(ORDERS.from_line(arguments[0]), partial(_say, news))
    except Exception as error:
        code = report(error)
        cause = innermost(error)
        kind = "" if isinstance(cause, Rejected) else f"{type(cause).__name__}: "
        print(" ".join(f"{kind}{cause}".split()), file=sys.stderr)
        return code
    return DONE


def work(order: CellOrder, say: OnRound) -> None:
    """Train as ordered and leave the entry. Raises `BadConfig` for what cannot work, and if what decides the result is
    no longer what it was when the comparison began."""
    experiment = read_experiment(
        Path(order.cluster),
        task=order.task,
        policy=order.policy,
        seed=order.seed,
        target=None,
        rounds_max=None,
    )
    limited = attrs.evolve(experiment, seconds_max=order.limit_s)
    entry = _train(limited, say)
    if entry.provenance.key != order.key:
        raise BadConfig("the source or the cluster file has changed since the comparison began: start it again")
    write_entry(Path(order.path), entry)


def _train(experiment: Experiment, say: OnRound) -> Entry:
    """The entry of `experiment`. A training that diverges never meets the target: its entry is of the run up to its
    last round."""
    backend = backends.load(WORLD)()
    rounds: list[Point] = []

    def report(news: RoundReport) -> None:
        rounds.append(news.point)
        say(news)

    try:
        return make_entry(experiment, backend.run(experiment, report))
    except Exception as error:
        if not isinstance(innermost(error), TrainingDiverged) or not rounds:
            raise
    shorter = attrs.evolve(experiment, seconds_max=rounds[-1].elapsed_s)
    entry = make_entry(shorter, backend.run(shorter, lambda news: None))
    return attrs.evolve(entry, run=entry.run | {"stopped_after_s": None, "diverged": True})


def _say(lines: TextIO, news: RoundReport) -> None:
    point = news.point
    heard = CellStatus(round=point.round, elapsed_s=point.elapsed_s, metric=news.goal.metric, value=point.value)
    print(STATUSES.to_line(heard), file=lines, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
