"""Cells computed side by side: in which order, within which limits, and what becomes of those that fail."""

import json
import sys
from pathlib import Path

import anyio
import pytest

from crowd.bench.cells import Cell, Entry, write_entry
from crowd.bench.matrix import PATIENCE, CellStatus, Matrix, MatrixListener, compare
from tests.bench.runs import cell, entry, run

PROCESSES = 2
WORK = """
import json, os, sys
place, seconds, limit = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
if seconds is None:
    print("it hums", file=sys.stderr)
    sys.exit("OSError: it burns")
if seconds < 0:
    print("it hums", file=sys.stderr, flush=True)
    os.kill(os.getpid(), 9)
news = {"round": 1, "elapsed_s": seconds, "metric": "accuracy", "value": 0.5}
print(json.dumps({"_type": "CellStatus"} | news), flush=True)
reached = limit is None or seconds <= limit
run = json.loads(sys.argv[4]) | {"reached": reached, "seconds_to_target": seconds if reached else None}
run |= {"seconds_total": seconds if reached else limit, "stopped_after_s": None if reached else limit}
provenance = {"asked": "a1", "source": "b2", "versions": {}, "processor": []}
open(place, "w").write(json.dumps({"run": run, "activity": {}, "provenance": provenance}))
"""


class Seen(MatrixListener):
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.causes: list[str] = []
        self.limits: dict[str, float | None] = {}

    def found(self, cell: Cell) -> None:
        self.events.append(("found", cell.key))

    def began(self, cell: Cell) -> None:
        self.events.append(("began", cell.key))

    def heard(self, cell: Cell, news: CellStatus) -> None:
        assert (news.round, news.value) == (1, 0.5)
        self.events.append(("heard", cell.key))

    def ended(self, cell: Cell, entry: Entry) -> None:
        self.events.append(("ended", cell.key))

    def failed(self, cell: Cell, cause: str) -> None:
        self.events.append(("failed", cell.key))
        self.causes.append(cause)


def settle(
    tmp_path: Path, takes_s: dict[str, float | None], *, leaders: tuple[str, ...] = ("a", "b"), seeds: int = 1
) -> tuple[Matrix, Seen]:
    seen = Seen()
    cells = [
        cell(policy, seed=seed, path=tmp_path / f"{policy}-{seed}.json") for seed in range(seeds) for policy in takes_s
    ]

    def command(cell: Cell, limit_s: float | None) -> list[str]:
        seen.limits[cell.key] = limit_s
        policy = cell.experiment.policy
        words = map(json.dumps, (takes_s[policy], limit_s, run(policy, 0.0, seed=cell.experiment.seed)))
        return [sys.executable, "-c", WORK, str(cell.path), *words]

    matrix = Matrix(cells, leaders=leaders, command=command, watch=seen, processes=PROCESSES)
    anyio.run(matrix.settle)
    return matrix, seen


def reached(matrix: Matrix) -> dict[str, bool]:
    return {cell.key: entry.run["reached"] for cell, entry in matrix.entries.items()}


def test_the_fastest_leader_limits_all_others_of_its_group(tmp_path: Path) -> None:
    matrix, seen = settle(tmp_path, {"c": 19.0, "a": 5.0, "b": 2.0, "d": 21.0}, seeds=2)
    assert PATIENCE * 2.0 == 20.0
    for seed in range(2):
        limits = {policy: seen.limits[f"{policy}-{seed}"] for policy in "abcd"}
        assert limits == {"a": None, "b": None, "c": 20.0, "d": 20.0}
    assert reached(matrix) == {f"{policy}-{seed}": policy != "d" for policy in "abcd" for seed in range(2)}
    assert [key for event, key in seen.events if event == "heard"].count("c-0") == 1


@pytest.mark.parametrize("leaders", [(), ("z",)])
def test_without_a_leader_nobody_is_limited(tmp_path: Path, leaders: tuple[str, ...]) -> None:
    _, seen = settle(tmp_path, {"a": 1.0, "b": 100.0}, leaders=leaders)
    assert seen.limits == {"a-0": None, "b-0": None}


def test_a_cell_that_fails_says_why_in_one_line_and_the_others_go_on(tmp_path: Path) -> None:
    matrix, seen = settle(tmp_path, {"a": None, "b": 3.0, "c": None, "d": 4.0})
    assert reached(matrix) == {"b-0": True, "d-0": True}
    assert {cell.key: cause for cell, cause in matrix.failures.items()} == dict.fromkeys(
        ("a-0", "c-0"), "OSError: it burns"
    )
    assert seen.causes == ["OSError: it burns"] * 2
    assert seen.limits["d-0"] == 30.0, "of the leader that did not fail"


def test_a_process_that_was_killed_is_not_said_to_have_failed_by_what_it_wrote(tmp_path: Path) -> None:
    matrix, _ = settle(tmp_path, {"a": -1.0})
    assert list(matrix.failures.values()) == ["its process was ended by SIGKILL"]


def test_only_so_many_processes_run_at_once(tmp_path: Path) -> None:
    _, seen = settle(tmp_path, {"a": 1.0, "c": 2.0, "d": 3.0, "e": None}, seeds=2)
    running = most = 0
    for event, _ in seen.events:
        running += {"began": 1, "ended": -1, "failed": -1}.get(event, 0)
        most = max(most, running)
    assert (running, most) == (0, PROCESSES)


def test_what_failed_is_missing_in_the_comparison(tmp_path: Path) -> None:
    matrix, _ = settle(tmp_path, {"a": 5.0, "b": None})
    to_come = cell("c")
    comparison = compare([*matrix.cells, to_come], matrix.entries, matrix.failures)
    (path,) = comparison.scenarios
    assert comparison.policies == ("a", "b", "c")
    assert list(comparison.metrics[path]) == ["a"]
    assert [comparison.why_missing(path, policy) for policy in "bc"] == ["failed", "to come"]


def test_what_is_there_is_not_computed_again_and_what_was_stopped_too_early_is(tmp_path: Path) -> None:
    takes_s: dict[str, float | None] = {"a": 2.0, "c": 30.0, "d": 30.0, "e": 30.0}
    for name, limit_s in (("c", 19.0), ("d", 20.0), ("e", 21.0)):
        write_entry(tmp_path / f"{name}-0.json", entry(run(name, limit_s, reached=False)))
    write_entry(tmp_path / "a-0.json", entry(run("a", 2.0)))
    matrix, seen = settle(tmp_path, takes_s)
    assert sorted(seen.events) == [
        ("began", "c-0"),
        ("ended", "c-0"),
        ("found", "a-0"),
        ("found", "d-0"),
        ("found", "e-0"),
        ("heard", "c-0"),
    ]
    assert {cell.key: entry.run["seconds_total"] for cell, entry in matrix.entries.items()} == {
        "a-0": 2.0,
        "c-0": 20.0,
        "d-0": 20.0,
        "e-0": 21.0,
    }
