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
    _as_new()


def digest() -> str:
    _as_new()
    return source_digest(["theirs.policy"])


def _as_new() -> None:
    for function in (source._places, source._file_of, source._read, source._digest_of):
        function.cache_clear()


@pytest.mark.parametrize("name", ["__init__.py", "policy.py", "helper.py", "deep/__init__.py", "deep/base.py"])
def test_a_change_of_anything_that_is_imported_changes_the_digest(package: Path, name: str) -> None:
    before = digest()
    file = package / name
    file.write_text(file.read_text() + "changed = True\n")
    assert digest() != before


def test_a_change_of_what_is_not_imported_does_not(package: Path) -> None:
    before = digest()
    (package / "other.py").write_text("value = 2\n")
    (package / "table.csv").write_text("2\n")
    assert digest() == before


BASE = """
import functools
from typing import Any
import attrs

value = 1

@attrs.frozen
class Plan:
    steps: int

    def cost(self, speed, *others, scale=2, **named):
        total = self.steps / speed
        return scale * total

    share: float = 0.5

@functools.singledispatch
def describe(plan: int):
    return "a plan"
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import functools", '"""What plans cost."""\n\nimport functools'),
        ("value = 1\n", "value = 1  # as ever\n"),
        ("value = 1\n", "value = (\n    1\n)\n\n\n"),
        ("value = 1\n", 'value = 1\n"""Of old."""\n'),
        ("value = 1\n", "value: int = 1\n"),
        ("value = 1\n", "value = 1\nother: Any\n"),
        ("class Plan:\n", 'class Plan:\n    """What to do."""\n\n'),
        ("    steps: int\n", '    steps: int\n    """How many."""\n'),
        ("speed, *others, scale=2, **named)", "speed: float, *others: int, scale: Any = 2, **named: str) -> float"),
        ("        total = ", '        """By the speed."""\n        total = '),
        ("        total = ", "        total: float = "),
        ("        total = ", "        total: float\n        total = "),
    ],
)
def test_what_only_people_and_type_checkers_read_does_not(package: Path, before: str, after: str) -> None:
    assert changes(package, before, after) is False


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("value = 1", "value = 1.0"),
        ("value = 1", "value = '1'"),
        ("scale=2", "scale=3"),
        ("scale * total", "total * scale"),
        ("@attrs.frozen", "@attrs.define"),
        ("    steps: int\n", "    steps: float\n"),
        ("    steps: int\n", "    steps: int\n    rounds: int\n"),
        ("    share: float = 0.5\n", "    share = 0.5\n"),
        ("describe(plan: int)", "describe(plan: float)"),
        ('"a plan"', '"the plan"'),
    ],
)
def test_a_constant_a_decorator_or_a_field_of_a_class_does(package: Path, before: str, after: str) -> None:
    assert changes(package, before, after) is True


def test_a_field_declared_under_a_condition_counts_with_its_type(package: Path) -> None:
    base = BASE.replace("    steps: int\n", "    if value:\n        steps: int\n")
    assert changes(package, "        steps: int\n", "        steps: float\n", base=base)


def test_what_is_there_for_type_checkers_alone_is_neither_counted_nor_followed(package: Path) -> None:
    base = BASE + "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    PART\nelse:\n    other = 1\n"
    assert not changes(package, "PART", "from theirs import other", base=base)
    file = package / "deep" / "base.py"
    before = digest()
    (package / "other.py").write_text("value = 2\n")
    assert digest() == before
    file.write_text(file.read_text().replace("other = 1", "other = 2"))
    assert digest() != before


def changes(package: Path, before: str, after: str, *, base: str = BASE) -> bool:
    """Whether the digest of a policy changes with a module that it needs."""
    assert base.count(before) == 1
    (package / "deep" / "base.py").write_text(base)
    old = digest()
    (package / "deep" / "base.py").write_text(base.replace(before, after))
    return digest() != old


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
    read_module = source._read

    def noted(name: str, file: Path) -> source.Module:
        read.add(str(file.relative_to(Path(__file__).parents[2])))
        return read_module(name, file)

    monkeypatch.setattr(source, "_read", noted)
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
