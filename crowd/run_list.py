"""The runs that a device has taken part in, as cards of what they ended in, one to a line: `read_runs`, `appended`."""

import json
from pathlib import Path

import attrs

from crowd.config.toml import structure
from crowd.errors import BadConfig
from crowd.model_card import ModelCard

RUNS_FILE = "runs.jsonl"
"""Their file in the `state_dir`, the latest last."""
KEPT_MAX = 500
"""Runs that are kept."""


def read_runs(data: bytes, path: Path) -> tuple[ModelCard, ...]:
    """The runs in the file `path`, whose content this is, the latest last. Raises `BadConfig`, in one line that names
    the file, if it is of another form."""
    try:
        lines = [json.loads(line) for line in data.decode("utf-8-sig").splitlines()]
    except ValueError as error:
        raise BadConfig(f"{path}: no valid JSON: {error}") from error
    return tuple(structure(line, ModelCard, path=path) for line in lines)


def appended(data: bytes | None, card: ModelCard) -> bytes:
    """The content of the file with one more run, unless it is the last one there. Lines are taken as they are: nobody
    loses what another version has written."""
    lines = [] if data is None else data.splitlines()
    line = json.dumps(attrs.asdict(card), ensure_ascii=False, allow_nan=False).encode()
    if not lines or f'"digest": "{card.digest}"'.encode() not in lines[-1]:
        lines.append(line)
    return b"".join(each + b"\n" for each in lines[-KEPT_MAX:])
