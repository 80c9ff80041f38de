"""`crowd lab`, as its user meets it before a process is started; the processes are in `tests.devices.lab.test_lab`."""

import json
import os
from pathlib import Path

import attrs
import pytest

from crowd.cli.lab import comparison, plans_table
from crowd.cli.main import main
from crowd.experiment.experiment import Experiment, ExperimentResult, OnRound
from crowd.experiment.plan_summary import PlanSummary
from crowd.run_record import DeviceMetrics, Point, RunGoal
from devices.simulation.backend import Simulation

CLUSTER = """
[cluster]
name = "one"
[[device]]
name = "pi"
train_gflops = 2.0
memory_mib = 512
uplink_mbps = 20.0
downlink_mbps = 20.0
loss = 0.1
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "one.toml"
    path.write_text(CLUSTER)
    return path


def outcome(*ends_s: float, bytes_each: int) -> ExperimentResult:
    curve = tuple(
        Point(round=number, elapsed_s=end_s, value=0.1 * number, traffic_bytes=number * bytes_each)
        for number, end_s in enumerate(ends_s, 1)
    )
    metrics = DeviceMetrics(
        elapsed_s=ends_s[-1],
        busy_s=0.0,
        bytes_up=0,
        bytes_down=0,
        samples_trained=0,
        generations=1,
        digest=None,
        curve=curve,
    )
    return ExperimentResult(
        goal=RunGoal(metric="accuracy", better="higher", target=0.9),
        reached=False,
        devices={"pi": metrics},
        compute_traces={},
    )


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--task", "digit"], "unknown task 'digit'; did you mean 'digits'?"),
        (["--json", "nowhere/run.json"], "nowhere/run.json: there is no directory nowhere"),
        ([], "device 'pi': loss: the lab loses no packets"),
    ],
)
def test_what_cannot_work_is_bad_input_in_one_line(
    cluster: Path, more: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", str(cluster), *more]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert expected in error
    assert error.count("\n") == 1


def test_without_root_it_ends_with_a_line_that_says_so(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    cluster.write_text(CLUSTER.replace("loss = 0.1", ""))
    assert main(["lab", str(cluster)]) == 2
    assert capsys.readouterr().err.startswith("crowd: the lab needs root")


@pytest.mark.alone
def test_what_was_measured_is_kept_when_the_simulation_is_interrupted(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Simulation, experiment: Experiment, report: OnRound) -> ExperimentResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(Simulation, "run", interrupted)
    pi = CLUSTER.replace("loss = 0.1", "").partition("[[device]]")[2]
    cluster.write_text(f"{CLUSTER.replace('loss = 0.1', '')}[[device]]{pi.replace('pi', 'phone')}")
    file = tmp_path / "runs.json"
    words = ["lab", str(cluster), "--task", "digits", "--policy", "fedavg", "--rounds-max", "1", "--json", str(file)]
    assert main(words) == 130
    (run,) = json.loads(file.read_text())["runs"]
    assert (run["world"], run["rounds"]) == ("lab", 1)
    assert "the same in simulation" in capsys.readouterr().out


def test_the_two_worlds_are_compared_over_the_rounds_that_both_completed() -> None:
    table = comparison(outcome(2.0, 4.4, 9.0, bytes_each=1_100_000), outcome(2.0, 4.0, bytes_each=1_000_000))
    assert table.title == "measured and predicted, over 2 rounds"
    times, sizes, *_ = zip(*(column.cells for column in table.columns), strict=True)
    assert times == ("time", "2.2 s", "2.0 s", "+10.0%")
    assert sizes == ("bytes", "1.1 MB", "1.0 MB", "+10.0%")


def test_the_plans_of_both_worlds_are_shown_with_their_reasons() -> None:
    planned = PlanSummary(
        why="a trains", encoding="float16", round_us=2_000_000, samples=(("a", 5),), slices=(("a", 9),), moved=0
    )
    many = attrs.evolve(planned, slices=(("a", 1), ("b", 1), ("c", 7)), why="all merge")
    table = plans_table(
        {
            "lab": attrs.evolve(outcome(1.0, bytes_each=1), plans={planned: 0.0, many: 3.0}),
            "simulation": attrs.evolve(outcome(1.0, bytes_each=1), plans={}),
        }
    )
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert rows == [
        ("lab", "0 ms", "2.0 s", "float16", "a", "a trains"),
        ("lab", "3.0 s", "2.0 s", "float16", "3", "all merge"),
    ]
