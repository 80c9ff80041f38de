"""What is kept of a run, and what decides whether it serves again."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs
import pytest

from crowd.bench import cells
from crowd.bench.cells import Cell, Entry, key_of, make_entry, read_entry, write_entry
from crowd.bench.runs import KEYS
from crowd.config.data import PartitionKind
from crowd.experiment.experiment import Experiment
from devices.simulation.backend import Simulation
from tests.bench import runs
from tests.devices.simulation.test_simulation import devices, experiment


def entry(*, reached: bool = True, stopped_after_s: float | None = None) -> Entry:
    return runs.entry(runs.run("ours", 7.0, reached=reached, stopped_after_s=stopped_after_s))


@pytest.mark.parametrize(
    ("stopped_after_s", "limit_s", "serves"),
    [
        (None, None, True),
        (None, 1.0, True),
        (50.0, 50.0, True),
        (50.0, 20.0, True),
        (50.0, 51.0, False),
        (50.0, None, False),
    ],
)
def test_a_run_that_was_stopped_serves_for_what_would_have_stopped_it_no_later(
    stopped_after_s: float | None, limit_s: float | None, serves: bool
) -> None:
    assert entry(reached=False, stopped_after_s=stopped_after_s).serves(limit_s) is serves


def test_an_entry_is_read_as_it_was_written_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "entry.json"
    write_entry(path, entry())
    assert read_entry(path) == entry()
    assert list(path.parent.iterdir()) == [path]


RUN = runs.run("ours", 7.0)
PROVENANCE = attrs.asdict(runs.PROVENANCE)


def text(**members: object) -> str:
    """Of an entry, with other `members`."""
    return json.dumps({"run": RUN, "activity": {}, "provenance": PROVENANCE} | members)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        json.dumps({"run": RUN, "provenance": PROVENANCE}),
        json.dumps({"run": RUN, "activity": {}}),
        text(activity=[]),
        text(activity={"pi": {"compute": []}}),
        text(run={}),
        text(run=[]),
        text(run={key: value for key, value in RUN.items() if key != "rounds"}),
        text(provenance=[]),
        text(provenance={key: value for key, value in PROVENANCE.items() if key != "source"}),
        text(provenance=PROVENANCE | {"weather": "fair"}),
        text(provenance=PROVENANCE | {"source": 2}),
        text(provenance=PROVENANCE | {"versions": {"torch": 2}}),
        text(provenance=PROVENANCE | {"processor": [2]}),
    ],
)
def test_what_cannot_be_read_is_no_entry(tmp_path: Path, text: str) -> None:
    (tmp_path / "entry.json").write_text(text)
    assert read_entry(tmp_path / "entry.json") is None
    assert read_entry(tmp_path / "nowhere.json") is None


def test_the_key_changes_with_all_that_is_asked_but_the_time_that_is_given() -> None:
    asked = experiment()
    assert key_of(attrs.evolve(asked, seconds_max=5.0)) == key_of(asked) == key_of(experiment())
    others = [
        experiment(seed=2),
        experiment(task="watch"),
        experiment(policy="ship_once"),
        experiment(*devices(slow={"loss": 0.1})),
        experiment(*devices(slow={"speed_schedule": ((1.0, 0.5),)})),
        experiment(rounds_max=4),
    ]
    assert len({key_of(other) for other in [asked, *others]}) == 1 + len(others)


def test_the_key_changes_with_the_arithmetic_and_with_a_task_s_data(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {task: experiment(task=task) for task in ("digits", "watch")}
    before = {task: key_of(of) for task, of in asked.items()}
    with monkeypatch.context() as patch:
        patch.setattr(cells, "data_beside", lambda module: ())
        assert key_of(asked["watch"]) != before["watch"], "its data come with it"
    with monkeypatch.context() as patch:
        patch.setattr(cells, "processor", lambda: ("Z80",))
        assert key_of(asked["digits"]) != before["digits"]
    for package in ("torch", "numpy", "anyio", "cbor2"):
        with monkeypatch.context() as patch:
            patch.setattr(cells, "version", lambda name, of=package: "0" if name == of else version(name))
            assert key_of(asked["digits"]) != before["digits"]
    assert {task: key_of(of) for task, of in asked.items()} == before


def test_the_key_does_not_change_with_what_a_class_of_what_is_asked_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(experiment())
    monkeypatch.setattr(PartitionKind, "__str__", lambda kind: f"Renamed.{kind.name}")
    assert key_of(experiment()) == before


def test_an_entry_says_what_its_key_is_made_of() -> None:
    asked = experiment(rounds_max=1)
    kept = computed(asked).provenance
    assert kept.key == key_of(asked)
    assert kept.differs_in_source_alone(attrs.evolve(kept, source="other"))
    others: list[dict[str, Any]] = [{"asked": "other"}, {"versions": {"torch": "0"}}, {"processor": ("Z80",)}]
    for values in others:
        other = attrs.evolve(kept, source="other", **values)
        assert not kept.differs_in_source_alone(other)
        assert other.key != attrs.evolve(kept, source="other").key != kept.key


def test_a_task_of_one_s_own_is_kept_for_one_comparison_only(tmp_path: Path) -> None:
    paths = [
        Cell.of(
            Path("home.toml"), experiment(task=task), cache=tmp_path / "cache", spare=tmp_path / "spare"
        ).path.parent.name
        for task in ("digits", "tests.support.endless_digits:task")
    ]
    assert paths == ["cache", "spare"]


def test_two_runs_of_one_cell_leave_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / "one.json", tmp_path / "two.json"]
    for path in paths:
        write_entry(path, computed(experiment(rounds_max=2)))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    run = json.loads(paths[0].read_text())["run"]
    assert run["rounds"] == 2
    assert run.keys() >= KEYS


def test_only_a_limit_that_ended_a_run_is_noted() -> None:
    assert computed(experiment(rounds_max=1)).run["stopped_after_s"] is None
    assert computed(experiment(rounds_max=1, seconds_max=1e6)).run["stopped_after_s"] is None
    stopped = computed(experiment(rounds_max=50, seconds_max=2.5)).run
    assert (stopped["stopped_after_s"], stopped["seconds_total"], stopped["reached"]) == (2.5, 2.5, False)


def computed(asked: Experiment) -> Entry:
    return make_entry(asked, Simulation().run(asked, lambda point: None))
