"""The runs behind docs/comparison.md: they are published beside it, and need not be done again.

    python examples/maintenance/published_runs.py unpack           into the cache of crowd bench, beside what is there
    python examples/maintenance/published_runs.py pack runs.json   of those that crowd bench --json has written
    python examples/maintenance/published_runs.py rekey            after code was renamed or moved, but does what it did

A run stays of use until something changes that decides its result: its name in the cache is a digest of all that. A
module that is renamed changes names and no result. So `rekey` gives kept runs the names that the present code asks for,
once a tenth of them, done again, have come out the same to the last byte. Runs of a cache that has seen several
versions of the code may contradict each other, and are then left alone: unpack into an empty one (`--cache`) first.
"""

import argparse
import io
import math
import random
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import anyio
import attrs

from crowd import plugins
from crowd.bench.cells import Cell, Entry, Provenance, provenance_of, read_entry, write_entry
from crowd.bench.matrix import Matrix, MatrixListener
from crowd.bench.runs import Run, read_runs
from crowd.cli.bench.command import CLUSTERS, TASKS, cache_directory, make_cells, processors, settle
from crowd.cli.processes.bench_cell import command
from crowd.cli.signals import unless_stopped
from crowd.errors import BadConfig

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "docs" / "runs.tar.xz"

REPLAYED_OF = 10
"""One run of so many is done again before all are believed."""

Say = Callable[[str], None]


def unpack(archive: Path, cache: Path) -> int:
    """How many runs were not in `cache` before."""
    cache.mkdir(parents=True, exist_ok=True)
    added = 0
    with tarfile.open(archive) as runs:
        for member in runs:
            path, data = cache / Path(member.name).name, runs.extractfile(member)
            if data is not None and not path.exists():
                path.write_bytes(data.read())
                added += 1
    return added


def pack(archive: Path, cache: Path, wanted: list[Run]) -> None:
    """Afterwards the `wanted` runs are in `archive`, and nothing else. Raises `BadConfig`, and leaves the archive as it
    was, if one of them is not in `cache` under the key that this code asks for."""
    files = _files_of(wanted, cache)
    if len(files) < len(wanted):
        raise BadConfig(
            f"{cache} has only {len(files)} of the {len(wanted)} runs for this code: crowd bench computes the others"
        )
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as runs:
        for file in files:
            data = file.read_bytes()
            member = tarfile.TarInfo(file.name)  # of no time and no owner: the same runs make the same archive
            member.size = len(data)
            runs.addfile(member, io.BytesIO(data))
    archive.write_bytes(packed.getvalue())


def _files_of(wanted: list[Run], cache: Path) -> list[Path]:
    """In order of their names."""
    cells = _cells_of(wanted, cache)
    return sorted(cell.path for cell in cells if (entry := read_entry(cell.path)) is not None and entry.run in wanted)


def _cells_of(runs: Sequence[Run], cache: Path) -> list[Cell]:
    """All cells of the comparison with a task, a policy and a seed that occur in `runs`."""
    tasks, policies, seeds = ({run[key] for run in runs} for key in ("task", "policy", "seed"))
    return make_cells(
        files=[ROOT / file for file in CLUSTERS],
        tasks=sorted(tasks.intersection(TASKS)),
        policies=sorted(policies.intersection(plugins.policies.names())),
        seeds=sorted(seeds),
        cache=cache,
        spare=cache,
    )


@attrs.frozen(kw_only=True, eq=False)
class Move:
    """A kept run of other code, and what it would be in the present code."""

    cell: Cell
    path: Path
    """Where it is."""
    entry: Entry
    provenance: Provenance
    """In the present code."""

    @property
    def sources(self) -> tuple[str, str]:
        """Then and now."""
        return self.entry.provenance.source, self.provenance.source


def rekey(cache: Path, *, seed: int, say: Say) -> int:
    """Give the runs in `cache` that differ from what the present code asks for in the source alone the names that it
    asks for, after some of them, drawn from `seed`, were done again; the exit code: 0, or of a process that was told
    to stop. Raises `BadConfig` if one does not come out as it was; then, as when it is stopped, nothing is changed."""
    moves = find_moves(cache, say)
    drawn = draw(moves, seed)
    say(f"{len(moves)} kept runs are of other code; {len(drawn)} of them, drawn from seed {seed}, are done again")
    with tempfile.TemporaryDirectory(prefix="crowd-rekey-") as spare:
        replay = Replay(drawn, Path(spare), say)
        code = anyio.run(unless_stopped, partial(settle, replay.matrix))
    if code:
        say("stopped before the end, so nothing is changed")
        return code
    if replay.different:
        found = "\n".join(replay.different)
        raise BadConfig(f"{len(replay.different)} of {len(drawn)} runs differ, so nothing is changed:\n{found}")
    for move in moves:
        write_entry(move.cell.path, attrs.evolve(move.entry, provenance=move.provenance))
        move.path.unlink()
    say(f"{len(moves)} kept runs have the names that this code asks for")
    return code


def find_moves(cache: Path, say: Say) -> list[Move]:
    """One for each cell of the comparison that has no entry, but has one of other code. Says what is left alone."""
    entries = {path: entry for path in sorted(cache.glob("*.json")) if (entry := read_entry(path)) is not None}
    runs = [entry.run for entry in entries.values()]
    now = {cell: provenance_of(cell.experiment) for cell in _cells_of(runs, cache)}
    asked: dict[str, list[Path]] = {}
    for path, entry in entries.items():
        asked.setdefault(entry.provenance.asked, []).append(path)
    moves, elsewhere = [], 0
    for cell, provenance in now.items():
        of_cell = asked.get(provenance.asked, [])
        here = [path for path in of_cell if entries[path].provenance.differs_in_source_alone(provenance)]
        elsewhere += len(of_cell) - len(here)
        if cell.path in entries or not here:
            continue
        if any(difference(entries[here[0]], entries[path]) for path in here[1:]):
            say(f"{cell.label}: its kept runs contradict each other and are left alone")
            continue
        moves.append(Move(cell=cell, path=here[0], entry=entries[here[0]], provenance=provenance))
    say(f"{elsewhere} kept runs are of another kind of processor or other versions, and are left alone")
    return moves


def draw(moves: Sequence[Move], seed: int) -> list[Move]:
    """A tenth of them, and at least one of each pair of sources, then and now: so one of every policy and task."""
    shuffled = random.Random(seed).sample(moves, len(moves))
    of_each = list({move.sources: move for move in shuffled}.values())
    others = [move for move in shuffled if move not in of_each]
    return of_each + others[: max(0, math.ceil(len(moves) / REPLAYED_OF) - len(of_each))]


class Replay(MatrixListener):
    """Runs are done again, each within the limit that ended it, and compared with what was kept."""

    def __init__(self, moves: Sequence[Move], spare: Path, say: Say) -> None:
        self.different: list[str] = []
        """Which, and how."""
        self._moves = {attrs.evolve(move.cell, path=spare / move.cell.path.name): move for move in moves}
        self._say = say
        self._ended = 0
        self.matrix = Matrix(
            list(self._moves), leaders=(), command=self._command, watch=self, processes=processors()
        )  # without leaders it sets no limits of its own

    def ended(self, cell: Cell, entry: Entry) -> None:
        self._note(cell, difference(self._moves[cell].entry, entry))

    def failed(self, cell: Cell, cause: str) -> None:
        self._note(cell, cause)

    def _command(self, cell: Cell, _: float | None) -> Sequence[str]:
        return command(cell, self._moves[cell].entry.run["stopped_after_s"])

    def _note(self, cell: Cell, how: str) -> None:
        self._ended += 1
        self._say(f"{self._ended} of {len(self._moves)}: {cell.label}: {how or 'the same'}")
        if how:
            self.different.append(f"{cell.label}: {how}")


def difference(before: Entry, now: Entry) -> str:
    """In what two entries differ apart from where they come from; empty if in no byte."""
    if attrs.evolve(before, provenance=now.provenance).to_json() == now.to_json():
        return ""
    figures = [key for key in sorted(before.run.keys() | now.run.keys()) if before.run.get(key) != now.run.get(key)]
    parts = [_change(key, before.run.get(key), now.run.get(key)) for key in figures]
    if before.activity != now.activity:
        parts.append("activity")
    return f"differs in {', '.join(parts) or 'how it is written'}"


def _change(key: str, before: object, now: object) -> str:
    return key if isinstance(before, list | dict) else f"{key} ({before}, now {now})"


def main() -> None:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--cache", type=Path, default=cache_directory(), help="where runs are kept (%(default)s)")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ways = parser.add_subparsers(dest="way", required=True)
    ways.add_parser("unpack", parents=[common])
    ways.add_parser("pack", parents=[common]).add_argument(
        "runs", type=Path, help="what crowd bench --json has written"
    )
    ways.add_parser("rekey", parents=[common]).add_argument(
        "--seed", type=int, default=0, help="draws the runs that are done again (%(default)s)"
    )
    arguments = parser.parse_args()
    try:
        match arguments.way:
            case "unpack":
                print(f"{unpack(ARCHIVE, arguments.cache)} published runs are new in {arguments.cache}")
            case "pack":
                wanted = read_runs(arguments.runs)
                pack(ARCHIVE, arguments.cache, wanted)
                print(f"{len(wanted)} runs are in {ARCHIVE}")
            case "rekey":
                sys.exit(rekey(arguments.cache, seed=arguments.seed, say=partial(print, flush=True)))
    except (BadConfig, OSError, tarfile.TarError) as error:
        sys.exit(f"published_runs: {error}")


if __name__ == "__main__":
    main()
