"""What commands show people and write for programs: a run in a line, logs, JSON."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crowd.errors import BadConfig
from crowd.units import SECOND_US
from crowd.wording import duration, size


def summary(record: Mapping[str, Any], digest: str | None) -> str:
    """A run in one line for people."""
    return f"{verdict(record)}, model {digest}"


def verdict(record: Mapping[str, Any]) -> str:
    """How a run went, in one line for people."""
    target, accuracy = record["target_accuracy"], record["final_accuracy"]
    if record["reached"]:
        reached = "reached"
    elif record.get("diverged"):
        reached = "diverged before"
    else:
        reached = "did not reach" if record.get("stopped_after_s") is None else "was stopped before"
    rounds = "1 round" if record["rounds"] == 1 else f"{record['rounds']} rounds"
    found = "nothing was evaluated" if accuracy is None else f"{accuracy:.1%} accuracy"
    return (
        f"{reached} the target of {target:.1%}: {found}, {rounds}, "
        f"{duration(int(record['seconds_total'] * SECOND_US))}, {size(record['bytes_total'])}"
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
    try:
        if not path.exists():
            path.touch()
            path.unlink()
        elif path.is_file():
            path.open("ab").close()
    except OSError as error:
        raise BadConfig(f"{path}: cannot be written: {error.strerror}") from error


def write_runs(path: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """Write `{"runs": [...]}` (design, section 8) as JSON. Raises `BadConfig` if the file cannot be written."""
    try:
        path.write_text(json.dumps({"runs": list(runs)}, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadConfig(f"{path}: cannot be written: {error.strerror}") from error
