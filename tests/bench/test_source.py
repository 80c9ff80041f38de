"""What a result depends on: every module that is imported on the way to it, and no other."""

import sys
from pathlib import Path

import pytest

from crowd.bench import source
from crowd.bench.source import data_beside, source_digest


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy of a third party: `theirs.policy` needs `theirs.helper`, which needs `theirs.deep.base`."""
    root = tmp_path / "theirs"
    (root / "deep").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "deep" / "__init__.py").write_text("")
    (root / "policy.py").write_text("import json\n\ndef plan():\n    from . import helper\n    return helper\n")
    (root / "helper.py").write_text("from .deep.base import value\nimport crowd.errors\n")
    (root / "deep" / "base.py").write_text("value = 1\n")
    (root / "other.py").write_text("value = 1\n")
    (root / "table.csv").write_text("1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return root


@pytest.fixture(autouse=True)
def _as_in_a_new_process() -> None:
    for function in (source._places, source._imports, source._digest_of):
        function.cache_clear()


def digest() -> str:
    _as_new()
    return source_digest(["theirs.policy"])


def _as_new() -> None:
    for function in (source._places, source._imports, source._digest_of):
        function.cache_clear()


@pytest.mark.parametrize("name", ["__init__.py", "policy.py", "helper.py", "deep/__init__.py", "deep/base.py"])
def test_a_change_of_anything_that_is_imported_changes_the_digest(package: Path, name: str) -> None:
    before = digest()
    file = package / name
    file.write_text(file.read_text() + "# changed\n")
    assert digest() != before


def test_a_change_of_what_is_not_imported_does_not(package: Path) -> None:
    before = digest()
    (package / "other.py").write_text("value = 2\n")
    (package / "table.csv").write_text("2\n")
    assert digest() == before


def test_nothing_is_imported_by_looking(package: Path) -> None:
    digest()
    assert not [name for name in sys.modules if name.startswith("theirs")]


def test_data_that_lie_beside_a_module_count_where_they_are_asked_for(package: Path) -> None:
    assert data_beside("theirs.policy") == (package / "table.csv",)
    before = source_digest(["theirs.policy"], data=data_beside("theirs.policy"))
    (package / "table.csv").write_text("2\n")
    _as_new()
    assert source_digest(["theirs.policy"], data=data_beside("theirs.policy")) != before


def test_of_this_project_a_run_depends_on_the_engine_and_not_on_commands_or_other_policies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: set[str] = set()
    digest_of = source._digest_of

    def noted(file: Path) -> str:
        read.add(str(file.relative_to(Path(__file__).parents[2])))
        return digest_of(file)

    monkeypatch.setattr(source, "_digest_of", noted)
    source_digest(["devices.simulation.backend", "policies.baselines.fedavg", "crowd.tasks.digits"])
    monkeypatch.undo()
    assert {
        "crowd/node.py",
        "crowd/actors/trainer/trainer.py",
        "crowd/agreement/step.py",
        "crowd/learning/merge.py",
        "brokers/simulated/network.py",
        "brokers/accounting.py",
        "devices/cluster/cluster_run.py",
        "policies/baselines/own_data.py",
        "crowd/tasks/recipe.py",
    } <= read
    assert not [name for name in read if name.startswith(("crowd/cli", "crowd/bench", "devices/lab"))]
    assert not read & {"policies/crowd_learning/policy.py", "crowd/tasks/fashion.py", "brokers/mqtt.py"}
