import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crowd.protocol.identity import generate_key, public_line, write_key
from tests.cli.nodes import NAMES, TASK
from tests.support.mosquitto import Mosquitto


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a task and everybody's keys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mytask", raising=False)
    (tmp_path / "mytask.py").write_text(TASK)
    keys = {name: generate_key() for name in NAMES}
    for name, key in keys.items():
        write_key(tmp_path / f"{name}.key", key)
    (tmp_path / "members.toml").write_text("".join(f"{public_line(name, key)}\n" for name, key in keys.items()))
    return tmp_path
