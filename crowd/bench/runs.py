"""Runs as the comparison knows them: what `crowd bench --json` writes, and its cache keeps."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crowd.errors import BadConfig

Run = Mapping[str, Any]
"""A run as JSON (docs/experiments.md#the-figures-of-a-run)."""
KEYS = frozenset(
    (
        "policy",
        "cluster",
        "task",
        "seed",
        "metric",
        "better",
        "target",
        "reached",
        "seconds_to_target",
        "seconds_total",
        "bytes_total",
        "rounds",
        "final_value",
        "curve",
        "balance_efficiency",
        "stopped_after_s",
    )
)
"""The keys that the comparison needs of a run."""


def is_run(value: object) -> bool:
    """Whether `value` was a run when it was written."""
    return isinstance(value, Mapping) and value.keys() >= KEYS


def read_runs(path: Path) -> list[Run]:
    """The runs in a file that `crowd bench --json` has written; at least one. Raises `BadConfig` for anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfig(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadConfig(f"{path}: not a JSON file: {error}") from error
    runs = values.get("runs") if isinstance(values, dict) else None
    if not isinstance(runs, list) or not all(is_run(run) for run in runs):
        raise BadConfig(f"{path}: not what crowd bench --json writes")
    if not runs:
        raise BadConfig(f"{path}: there is no run in it")
    return runs
