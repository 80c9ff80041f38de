"""`crowd bench`: all policies on the same clusters, tasks and seeds, in simulation."""

import os
import shlex
import sys
import tempfile
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import anyio
import attrs
import platformdirs
from cyclopts import Parameter
from rich.console import Console

from crowd import plugins
from crowd.bench.cells import Cell
from crowd.bench.matrix import Matrix, compare
from crowd.bench.report import tables
from crowd.cli.bench.screen import BenchScreen
from crowd.cli.experiments import read_experiment
from crowd.cli.files import check_writable, write_runs
from crowd.cli.processes.bench_cell import command
from crowd.cli.signals import unless_stopped
from crowd.errors import DONE, BadConfig
from crowd.logs import logs_to_stderr

SOME_FAILED = 3
"""The exit code if some runs failed; the others are written."""

FOLDER = Path("examples/clusters")
CLUSTERS = tuple(
    FOLDER / f"{name}.toml"
    for name in ("smart-home", "all-pis", "one-giant", "long-tail", "slow-radio", "busy-evening", "flaky-garage")
)
"""The default cluster files: those that any policy can train as a whole."""
TASKS = ("digits", "fashion", "watch")
LEADERS = ("crowd_learning", "ship_once")
"""The policies whose time limits the others': they are seldom far from the best, so that it tells when another policy
has taken far too long."""

Several = Parameter(consume_multiple=True, negative="")


def bench(
    *,
    clusters: Annotated[tuple[Path, ...], Several] = CLUSTERS,
    tasks: Annotated[tuple[str, ...], Several] = TASKS,
    policies: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)] = (),
    seeds: int = 3,
    json: Path | None = None,
    html: Path | None = None,
) -> int:
    """Compare policies on the same clusters, tasks and seeds, in simulation.

    Every run that has ended is kept (in $XDG_CACHE_HOME/crowd/bench, or ~/.cache/crowd/bench) and not done again as
    long as nothing changes that decides its result; so a comparison that was stopped goes on where it was.

    Parameters
    ----------
    clusters
        Cluster files, and directories of them.
    tasks
        Built-in tasks, or module:function.
    policies
        Those to compare; all that are installed, if left out.
    seeds
        How many: 0, 1, 2 and so on.
    json
        Write the figures of all runs to this file.
    html
        Write a page with all figures and their pictures to this file.
    """
    check_choice(clusters, tasks, seeds)
    check_outputs(json, html)
    cache = cache_directory()
    check_cache(cache)
    logs_to_stderr()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="crowd-bench-") as spare:
        cells = make_cells(
            files=cluster_files(clusters),
            tasks=tasks,
            policies=policies or plugins.policies.names(),
            seeds=range(seeds),
            cache=cache,
            spare=Path(spare),
        )
        with BenchScreen(console, len(cells)) as screen:
            matrix = Matrix(cells, leaders=LEADERS, command=command, watch=screen, processes=processors())
            code = anyio.run(unless_stopped, partial(settle, matrix))
    _show(console, matrix)
    if code != DONE:
        console.print(
            "stopped before the end, so no file is written; the same command goes on from here", highlight=False
        )
        return code
    _write(console, matrix, json, html)
    return SOME_FAILED if matrix.failures else DONE


async def settle(matrix: Matrix) -> int:
    await matrix.settle()
    return DONE


def _runs(matrix: Matrix) -> list[dict[str, Any]]:
    """The runs that have ended, in the order of the cells."""
    return [matrix.entries[cell].run for cell in matrix.cells if cell in matrix.entries]


def _show(console: Console, matrix: Matrix) -> None:
    for table in tables(compare(matrix.cells, matrix.entries, matrix.failures), console):
        console.print(table)
    for cell, cause in matrix.failures.items():
        console.print(f"failed: {cell.label}: {cause}", style="red", highlight=False, markup=False, soft_wrap=True)


def _write(console: Console, matrix: Matrix, json: Path | None, html: Path | None) -> None:
    try:
        if json is not None:
            write_runs(json, _runs(matrix))
            console.print(f"written: {json}", highlight=False, markup=False, soft_wrap=True)
    finally:  # one that cannot be written does not cost the other
        if html is not None:
            write_page(html, matrix)
            console.print(f"written: {html}", highlight=False, markup=False, soft_wrap=True)


def check_choice(clusters: Sequence[Path], tasks: Sequence[str], seeds: int) -> None:
    """Raise `BadConfig` if nothing is chosen, or the clusters that are meant by default are not here."""
    if seeds < 1:
        raise BadConfig(f"--seeds: expected at least 1, found {seeds}")
    for option, given in (("--clusters", clusters), ("--tasks", tasks)):
        if not given:
            raise BadConfig(f"{option}: expected at least one")
    if clusters == CLUSTERS and not FOLDER.is_dir():
        raise BadConfig(f"there is no {FOLDER} here: name cluster files with --clusters")


def check_outputs(json: Path | None, html: Path | None) -> None:
    """Raise `BadConfig` for files that could never be written, and if there is no library for the page: better before
    the work than after it."""
    if json is not None:
        check_writable(json)
    if html is None:
        return
    check_writable(html)
    if json is not None and json.resolve() == html.resolve():
        raise BadConfig(f"--json and --html name the same file, {json}: name two")
    for name in ("jinja2", "matplotlib"):
        if find_spec(name) is None:
            raise BadConfig(f"--html needs {name}: install it with pip install 'crowdlearning[bench]'")


def check_cache(folder: Path) -> None:
    """Make the folder of the cache. Raises `BadConfig` if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BadConfig(
            f"{folder}: runs cannot be kept there: {error.strerror}; XDG_CACHE_HOME names another place"
        ) from error


def write_page(path: Path, matrix: Matrix) -> None:
    """Write the page of `matrix` to the file `path`. Raises `BadConfig` if it cannot be written."""
    from crowd.bench.page import page  # its libraries are optional

    entries = {cell: matrix.entries[cell] for cell in matrix.cells if cell in matrix.entries}
    made_by = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    try:
        path.write_text(page(entries, matrix.failures, leaders=LEADERS, made_by=made_by), encoding="utf-8")
    except OSError as error:
        raise BadConfig(f"{path}: cannot be written: {error.strerror}") from error


def cluster_files(paths: Iterable[Path]) -> list[Path]:
    """The cluster files that `paths` name; a directory stands for all in it. Raises `BadConfig` for one without any."""
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        if not found:
            raise BadConfig(f"{path}: there is no cluster file (*.toml) in it")
        files += found
    return files


def make_cells(
    *,
    files: Sequence[Path],
    tasks: Sequence[str],
    policies: Sequence[str],
    seeds: Sequence[int],
    cache: Path,
    spare: Path,
) -> list[Cell]:
    """All cells of the comparison, task by task and cluster by cluster. Raises `BadConfig` for what is of no use, and
    for two clusters of one name."""
    _refuse_twice("cluster file", [str(file) for file in files])
    _refuse_twice("task", tasks)
    _refuse_twice("policy", policies)
    cells = []
    for task in tasks:
        names: dict[str, Path] = {}
        for file in files:
            for policy in policies:
                experiment = read_experiment(file, task=task, policy=policy, seed=0, target=None, rounds_max=None)
                cells += [
                    Cell.of(file, attrs.evolve(experiment, seed=seed), cache=cache, spare=spare) for seed in seeds
                ]
            other = names.setdefault(experiment.cluster.name, file)
            if other != file:
                raise BadConfig(
                    f"{other} and {file} are both named {experiment.cluster.name!r}: give each a name of its own"
                )
    return cells


def _refuse_twice(noun: str, words: Sequence[str]) -> None:
    for word in words:
        if words.count(word) > 1:
            raise BadConfig(f"the {noun} {word!r} is named twice")


def cache_directory() -> Path:
    """Where entries are kept: in the user's cache, wherever this system has it."""
    return platformdirs.user_cache_path("crowd", appauthor=False) / "bench"


def processors() -> int:
    """The number of cells that are computed side by side."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
