"""What is kept of a run, and what decides whether it serves again."""

import json
from pathlib import Path

import attrs
import pytest

from crowd.bench.activity import Activity
from crowd.bench.cells import Entry, key_of, make_entry, read_entry, write_entry
from crowd.trial import Trial
from devices.simulation import Simulation
from tests.devices.test_simulation import devices, trial

LANES = Activity(compute=[1], up=[2], down=[3], off=[0])


def entry(*, reached: bool = True, stopped_after_s: float | None = None) -> Entry:
    run = {"reached": reached, "seconds_to_target": 7.0 if reached else None, "stopped_after_s": stopped_after_s}
    return Entry(run=run, activity={"pi": LANES})


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
    place = tmp_path / "new" / "entry.json"
    write_entry(place, entry())
    assert read_entry(place) == entry()
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": {}}', '{"run": {}, "activity": {"pi": {"compute": []}}}'])
def test_what_cannot_be_read_is_no_entry(tmp_path: Path, text: str) -> None:
    (tmp_path / "entry.json").write_text(text)
    assert read_entry(tmp_path / "entry.json") is None
    assert read_entry(tmp_path / "nowhere.json") is None


def test_the_key_changes_with_all_that_is_asked_but_the_time_that_is_given() -> None:
    asked = trial()
    assert key_of(attrs.evolve(asked, seconds_max=5.0)) == key_of(asked) == key_of(trial())
    others = [
        trial(seed=2),
        trial(task="watch"),
        trial(policy="ship_once"),
        trial(*devices(slow={"loss": 0.1})),
        trial(*devices(slow={"speed_schedule": ((1.0, 0.5),)})),
        trial(rounds_max=4),
    ]
    assert len({key_of(other) for other in [asked, *others]}) == 1 + len(others)


def test_two_runs_of_one_cell_leave_the_same_bytes(tmp_path: Path) -> None:
    places = [tmp_path / "one.json", tmp_path / "two.json"]
    for place in places:
        write_entry(place, computed(trial(rounds_max=2)))
    assert places[0].read_bytes() == places[1].read_bytes()
    assert json.loads(places[0].read_text())["run"]["rounds"] == 2


def test_only_a_limit_that_ended_a_run_is_noted() -> None:
    assert computed(trial(rounds_max=1)).run["stopped_after_s"] is None
    assert computed(trial(rounds_max=1, seconds_max=1e6)).run["stopped_after_s"] is None
    stopped = computed(trial(rounds_max=50, seconds_max=2.5)).run
    assert (stopped["stopped_after_s"], stopped["seconds_total"], stopped["reached"]) == (2.5, 2.5, False)


def computed(asked: Trial) -> Entry:
    return make_entry(asked, Simulation().run(asked, lambda point: None))
