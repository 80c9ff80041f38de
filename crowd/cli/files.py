"""The files that commands read and write: `state_store` (what a device keeps), `check_writable` (before the work) and
`write_runs` (after it)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crowd import plugins
from crowd.errors import BadConfig
from crowd.ports import Store


def state_store(state_dir: Path) -> Store:
    """The files in a device's `state_dir`. Raises `BadConfig` if there is no such directory."""
    if not state_dir.is_dir():
        raise BadConfig(f"{state_dir}: no such directory; give the state_dir of a device's node.toml")
    return plugins.stores.load("file")(state_dir)


def check_writable(path: Path) -> None:
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
    """Write `{"runs": [...]}` as JSON (docs/experiments.md). Raises `BadConfig` if the file cannot be written."""
    try:
        path.write_text(json.dumps({"runs": list(runs)}, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadConfig(f"{path}: cannot be written: {error.strerror}") from error
