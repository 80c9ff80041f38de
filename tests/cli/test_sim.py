"""`crowd sim`, as its user meets it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crowd.cli.main import main
from crowd.cli.terminal import hardly_trained_lines
from tests.test_run_record import KEYS

CLUSTER = """
[cluster]
name = "flat"
[data]
partition = "iid"
[[device]]
name = "pc"
train_gflops = 0.4
memory_mib = 512
uplink_mbps = 20.0
downlink_mbps = 20.0
[[device]]
name = "pi"
train_gflops = 0.1
memory_mib = 512
uplink_mbps = 20.0
downlink_mbps = 20.0
"""
COMMAND = "import sys; from crowd.cli.main import main; sys.exit(main())"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "120")
    path = tmp_path / "flat.toml"
    path.write_text(CLUSTER)
    return path


def arguments(cluster: Path, *more: str) -> list[str]:
    return ["sim", str(cluster), *([] if "--task" in more else ["--task", "digits"]), *more]


def start(*words: str, hash_seed: str = "random") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_run(path: Path) -> dict[str, Any]:
    (run,) = json.loads(path.read_text())["runs"]
    return dict(run)


def test_a_run_that_reaches_its_target_ends_with_nought_and_says_how_it_went(
    cluster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.json"
    assert main(arguments(cluster, "--target", "0.8", "--json", str(file))) == 0
    output = capsys.readouterr().out
    run = read_run(file)
    assert run.keys() == KEYS
    assert (run["cluster"], run["task"], run["policy"], run["seed"]) == ("flat", "digits", "crowd_learning", 0)
    assert run["reached"] is True
    assert run["hardly_trained"] == {}
    assert len(set(run["model_digests"].values())) == 1
    assert output.count("\nround") == run["rounds"] - 1
    for device in ("pc", "pi"):
        assert f"│ {device} " in output
    (summary,) = [line for line in output.splitlines() if line.startswith("reached the target of 80.0%: ")]
    assert "; simulated in " in summary


def test_samples_that_nobody_trains_are_told_with_their_device_and_the_reason(
    cluster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.write_text(f'{CLUSTER}share = "never"\n')
    file = tmp_path / "run.json"
    assert main(arguments(cluster, "--rounds-max", "1", "--policy", "ship_once", "--json", str(file))) == 0
    assert read_run(file)["idle"] == {"pi": [718, "they may not leave it"]}
    assert "\nidle: 718 samples of pi, they may not leave it\n" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_bytes_whatever_python_hashes_with(cluster: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{hash_seed}.json" for hash_seed in ("0", "1")]
    runs = [start(*arguments(cluster, "--rounds-max", "3", "--json", str(file)), hash_seed=file.stem) for file in files]
    said = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    first, second = (file.read_bytes() for file in files)
    assert first == second


def test_a_target_that_is_not_reached_ends_with_one(cluster: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    end = ["--target", "1.0", "--rounds-max", "2", "--policy", "fedavg", "--json", str(file)]
    assert main(arguments(cluster, *end)) == 1
    run = read_run(file)
    assert (run["reached"], run["rounds"], run["seconds_to_target"]) == (False, 2, None)
    assert run["samples_trained"] == 2 * 1437


def test_rounds_that_were_asked_for_without_a_target_are_done_when_they_are_over(cluster: Path) -> None:
    assert main(arguments(cluster, "--rounds-max", "1")) == 0


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--task", "digit"], "unknown task 'digit'; did you mean 'digits'?"),
        (["--policy", "fedavgg"], "unknown policy 'fedavgg'; did you mean 'fedavg'?"),
        (["--target", "1.5"], "the task's target: expected a number above 0 and at most 1 for accuracy, found 1.5"),
        (["--target", "0"], "the task's target: expected a number above 0 and at most 1 for accuracy, found 0.0"),
        (["--rounds-max", "0"], "rounds_max: expected at least 1, found 0"),
        (["--seed", "-1"], "seed: expected 0 to 2^63 - 1, found -1"),
        (["--json", "nowhere/run.json"], "nowhere/run.json: there is no directory nowhere"),
    ],
)
def test_what_cannot_work_is_bad_input_in_one_line(
    cluster: Path, more: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(cluster, *more)) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert expected in error
    assert error.count("\n") == 1


def test_a_cluster_file_that_is_not_there_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", str(tmp_path / "nowhere.toml")]) == 2
    assert "nowhere.toml: no such file" in capsys.readouterr().err


def test_an_interrupt_ends_quietly(cluster: Path) -> None:
    process = start(*arguments(cluster, "--target", "1.0"))
    assert process.stdout is not None
    assert process.stdout.readline().startswith("round ")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == ""


def test_samples_that_hardly_were_trained_have_a_line_with_their_device_and_the_reason() -> None:
    assert hardly_trained_lines(None) == hardly_trained_lines({}) == []
    assert hardly_trained_lines({"pi": (1718, "late")}) == ["hardly trained: 1,718 samples of pi: late"]
