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


def logs_to_stderr(*, verbose: bool = False) -> None:
    """Send structlog's events to standard error, warnings and above only unless `verbose`: standard output is for the
    result."""
    import logging

    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if verbose else logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def write_runs(path: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """Write `{"runs": [...]}` (design, section 8) as JSON. Raises `BadConfig` if the file cannot be written."""
    try:
        path.write_text(json.dumps({"runs": list(runs)}, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadConfig(f"{path}: cannot be written: {error.strerror}") from error
