"""What is kept of a run, and what decides whether it serves again."""

import json
from importlib.metadata import version
from pathlib import Path

import attrs
import pytest

from crowd.bench import cells
from crowd.bench.cells import Cell, Entry, key_of, make_entry, read_entry, write_entry
from crowd.bench.runs import KEYS
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


RUN = json.dumps(runs.run("ours", 7.0))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        f'{{"run": {RUN}}}',
        f'{{"run": {RUN}, "activity": []}}',
        f'{{"run": {RUN}, "activity": {{"pi": {{"compute": []}}}}}}',
        '{"run": {}, "activity": {}}',
        '{"run": [], "activity": {}}',
        json.dumps(
            {"run": {key: value for key, value in runs.run("ours", 7.0).items() if key != "rounds"}, "activity": {}}
        ),
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


def test_a_task_of_one_s_own_is_kept_for_one_comparison_only(tmp_path: Path) -> None:
    places = [
        Cell.of(
            Path("home.toml"), experiment(task=task), cache=tmp_path / "cache", spare=tmp_path / "spare"
        ).path.parent.name
        for task in ("digits", "tests.support.endless_digits:task")
    ]
    assert places == ["cache", "spare"]


def test_two_runs_of_one_cell_leave_the_same_bytes(tmp_path: Path) -> None:
    places = [tmp_path / "one.json", tmp_path / "two.json"]
    for path in places:
        write_entry(path, computed(experiment(rounds_max=2)))
    assert places[0].read_bytes() == places[1].read_bytes()
    run = json.loads(places[0].read_text())["run"]
    assert run["rounds"] == 2
    assert run.keys() >= KEYS


def test_only_a_limit_that_ended_a_run_is_noted() -> None:
    assert computed(experiment(rounds_max=1)).run["stopped_after_s"] is None
    assert computed(experiment(rounds_max=1, seconds_max=1e6)).run["stopped_after_s"] is None
    stopped = computed(experiment(rounds_max=50, seconds_max=2.5)).run
    assert (stopped["stopped_after_s"], stopped["seconds_total"], stopped["reached"]) == (2.5, 2.5, False)


def computed(asked: Experiment) -> Entry:
    return make_entry(asked, Simulation().run(asked, lambda point: None))
