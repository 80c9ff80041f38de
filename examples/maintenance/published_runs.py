"""The runs behind docs/comparison.md: they are published beside it, and need not be done again.

    python examples/maintenance/published_runs.py unpack           into the cache of crowd bench, beside what is there
    python examples/maintenance/published_runs.py pack runs.json   of those that crowd bench --json has written

A run stays of use until something changes that decides its result: its name in the cache is a digest of all that.
"""

import argparse
import io
import sys
import tarfile
from pathlib import Path

from crowd.bench.cells import read_entry
from crowd.bench.runs import Run, read_runs
from crowd.cli.bench.command import CLUSTERS, cache_directory, make_cells
from crowd.errors import BadConfig

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "docs" / "runs.tar.xz"


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
    cells = make_cells(
        files=[ROOT / file for file in CLUSTERS],
        tasks=list(dict.fromkeys(run["task"] for run in wanted)),
        policies=list(dict.fromkeys(run["policy"] for run in wanted)),
        seeds=list(dict.fromkeys(run["seed"] for run in wanted)),
        cache=cache,
        spare=cache,
    )
    return sorted(cell.path for cell in cells if (entry := read_entry(cell.path)) is not None and entry.run in wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ways = parser.add_subparsers(dest="way", required=True)
    ways.add_parser("unpack")
    ways.add_parser("pack").add_argument("runs", type=Path, help="what crowd bench --json has written")
    arguments = parser.parse_args()
    try:
        if arguments.way == "unpack":
            print(f"{unpack(ARCHIVE, cache_directory())} published runs are new in {cache_directory()}")
        else:
            wanted = read_runs(arguments.runs)
            pack(ARCHIVE, cache_directory(), wanted)
            print(f"{len(wanted)} runs are in {ARCHIVE}")
    except (BadConfig, OSError, tarfile.TarError) as error:
        sys.exit(f"published_runs: {error}")


if __name__ == "__main__":
    main()
