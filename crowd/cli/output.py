"""What commands show people and write for programs: units, logs, JSON."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crowd.errors import BadConfig
from crowd.units import SECOND_US


def duration(time_us: int) -> str:
    """`time_us` for people: "850 ms", "3.2 s", "2 min 5 s"."""
    if time_us < SECOND_US:
        return f"{time_us / 1_000:.0f} ms"
    seconds = time_us / SECOND_US
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def size(size_bytes: int) -> str:
    """`size_bytes` for people, in decimal units: "12 B", "1.4 kB", "20.0 MB"."""
    for unit_bytes, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size_bytes >= unit_bytes:
            return f"{size_bytes / unit_bytes:.1f} {unit}"
    return f"{size_bytes} B"


def summary(record: Mapping[str, Any], digest: str | None) -> str:
    """A run in one line for people."""
    target, accuracy = record["target_accuracy"], record["final_accuracy"]
    elapsed_s = max(device["busy_s"] + device["idle_s"] for device in record["devices"].values())
    verdict = "reached" if record["reached"] else "did not reach"
    found = "nothing was evaluated" if accuracy is None else f"{accuracy:.1%} accuracy"
    return (
        f"{verdict} the target of {target:.1%}: {found}, {record['rounds']} rounds, "
        f"{duration(int(elapsed_s * SECOND_US))}, {size(record['bytes_total'])}, model {digest}"
    )


def logs_to_stderr(*, verbose: bool = False) -> None:
    """Send structlog's events to standard error, warnings and above only unless `verbose`: standard output is for the
    result."""
    import logging

    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if verbose else logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def check_place(path: Path) -> None:
    """Raise `BadConfig` if a file at `path` could never be written: better before the work than after it."""
    if not path.parent.is_dir():
        raise BadConfig(f"{path}: there is no directory {path.parent}")
    if path.is_dir():
        raise BadConfig(f"{path}: it is a directory; name a file")


def write_runs(path: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """Write `{"runs": [...]}` (design, section 8) as JSON. Raises `BadConfig` if the file cannot be written."""
    try:
        path.write_text(json.dumps({"runs": list(runs)}, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadConfig(f"{path}: cannot be written: {error.strerror}") from error
