"""The runs behind the README's comparison: they are published beside it, and need not be done again.

    python examples/published_runs.py unpack              into the cache of crowd bench, beside what is there
    python examples/published_runs.py pack runs.json      of those that crowd bench --json has written

A run stays of use until something changes that decides its result: its name in the cache is a digest of all that.
"""

import argparse
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

from crowd.bench.cells import read_entry
from crowd.cli.bench import cache_directory

ARCHIVE = Path(__file__).parents[1] / "docs" / "runs.tar.xz"


def unpack(archive: Path, cache: Path) -> int:
    """How many runs were not in `cache` before."""
    cache.mkdir(parents=True, exist_ok=True)
    added = 0
    with tarfile.open(archive) as runs:
        for member in runs:
            place, data = cache / Path(member.name).name, runs.extractfile(member)
            if data is not None and not place.exists():
                place.write_bytes(data.read())
                os.utime(place, (0, 0))  # older than whatever was computed here
                added += 1
    return added


def pack(archive: Path, cache: Path, wanted: list[dict[str, Any]]) -> int:
    """How many of the `wanted` runs are in `archive` now: all that are in `cache`."""
    files = _files_of(wanted, cache)
    with tarfile.open(archive, "w:xz") as runs:
        for file in files:
            data = file.read_bytes()
            member = tarfile.TarInfo(file.name)  # of no time and no owner: the same runs make the same archive
            member.size = len(data)
            runs.addfile(member, io.BytesIO(data))
    return len(files)


def _files_of(wanted: list[dict[str, Any]], cache: Path) -> list[Path]:
    """The newest of each: earlier code may have had the very same figures, under a key that nobody asks for now."""
    newest: dict[str, Path] = {}
    for file in sorted(cache.glob("*.json"), key=lambda file: file.stat().st_mtime_ns):
        entry = read_entry(file)
        if entry is not None and entry.run in wanted:
            newest[json.dumps(entry.run, sort_keys=True)] = file
    return sorted(newest.values())


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
            wanted = json.loads(arguments.runs.read_text(encoding="utf-8"))["runs"]
            print(f"{pack(ARCHIVE, cache_directory(), wanted)} of {len(wanted)} runs are in {ARCHIVE}")
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        sys.exit(f"published_runs: {error}")


if __name__ == "__main__":
    main()
