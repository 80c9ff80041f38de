import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch

from crowd.cli import asked
from crowd.cli.main import main
from crowd.run_list import RUNS_FILE, read_runs
from tests.cli.nodes import COMMAND, NAMES, start, write_config
from tests.support.mosquitto import Mosquitto

pytestmark = pytest.mark.alone


@contextmanager
def living(
    here: Path, broker: Mosquitto, *arguments: str, task: str = "easy"
) -> Iterator[dict[str, "subprocess.Popen[str]"]]:
    """Nodes that stay when a run is over; each has ended its first."""
    processes = {}
    for name in NAMES:
        config = write_config(here, name, broker.url, task=f"mytask:{task}", members_min=2)
        processes[name] = start(here, config, *(arguments if name == "anna" else ()))
    try:
        for process in processes.values():
            assert ended(process).startswith("reached the target of 60.0%: ")
        yield processes
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for process in processes.values():
            _, error = process.communicate(timeout=60)
            assert process.returncode == 143, error
            assert "Traceback" not in error


def ended(process: "subprocess.Popen[str]") -> str:
    """What it says when a run is over."""
    assert process.stdout is not None
    return next(line for line in process.stdout if "target" in line)


def crowd(here: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], cwd=here, capture_output=True, text=True, check=False
    )


def test_runs_follow_each_other_and_are_listed(here: Path, broker: Mosquitto) -> None:
    with living(here, broker) as processes:
        for run, arguments in ((2, ()), (3, ("--fresh",))):
            told = crowd(here, "train", "--config", "ben.toml", *arguments)
            assert told.returncode == 0, told.stderr
            start_of = "a network that is drawn anew" if arguments else f"the model of run {run - 1}"
            assert told.stdout == f"run {run} begins, with {start_of}\n"
            assert len({ended(process) for process in processes.values()}) == 1
    lists = [read_runs((here / f"state-{name}" / RUNS_FILE).read_bytes(), Path(RUNS_FILE)) for name in NAMES]
    assert [[card.run for card in cards] for cards in lists] == [[1, 2, 3]] * 2
    assert [card.digest for card in lists[0]] == [card.digest for card in lists[1]]
    assert lists[0][1].epochs >= 1, "its target is met already, and the data may be new"
    shown = crowd(here, "runs", "--state-dir", "state-ben")
    assert shown.returncode == 0
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["run", "1", "2", "3"]
    assert max(map(len, shown.stdout.splitlines())) <= 100


def test_a_run_trains_what_is_there_when_it_is_asked_for(here: Path, broker: Mosquitto) -> None:
    with living(here, broker, task="growing") as processes:
        (here / "more").write_text("44")
        assert crowd(here, "train", "--config", "ben.toml").returncode == 0
        for process in processes.values():
            ended(process)
    cards = read_runs((here / "state-ben" / RUNS_FILE).read_bytes(), Path(RUNS_FILE))
    assert [card.held for card in cards] == [256 + 256, 256 + 300]


def test_a_network_that_was_trained_elsewhere_is_the_start(here: Path, broker: Mosquitto) -> None:
    right = {"weight": torch.tensor([[-9.0, 0, 0, 0], [9.0, 0, 0, 0]]), "bias": torch.zeros(2)}
    safetensors.torch.save_file(right, here / "elsewhere.safetensors")
    with living(here, broker, "--from", "elsewhere.safetensors"):
        pass
    (card,) = read_runs((here / "state-ben" / RUNS_FILE).read_bytes(), Path(RUNS_FILE))
    assert card.value == 1.0


def test_who_asks_where_nobody_is_is_told(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(asked, "TAKE_S", 0.2)
    config = write_config(here, "anna", "mqtt://127.0.0.1:1", task="mytask:easy")
    assert main(["train", "--config", str(config)]) == 2
    assert "no such directory: no node" in capsys.readouterr().err
    (here / "state-anna").mkdir()
    assert main(["train", "--config", str(config)]) == 2
    assert "nobody answers in" in capsys.readouterr().err
    assert not list((here / "state-anna").iterdir())
    assert main(["runs", "--state-dir", "state-anna"]) == 0
    assert capsys.readouterr().out == "no run has ended here yet\n"


def test_while_a_run_is_on_none_begins_and_an_old_question_is_void(here: Path, broker: Mosquitto) -> None:
    config = write_config(here, "anna", broker.url, task="mytask:easy", members_min=2)
    (here / "state-anna").mkdir()
    old = {"number": "old", "follows": None, "fresh": True}
    (here / "state-anna" / asked.QUESTION_FILE).write_text(json.dumps(old))
    process = start(here, config)
    try:
        assert process.stderr is not None
        assert any("plan_activated" in line for line in process.stderr), "it waits for the second device"
        told = crowd(here, "train", "--config", str(config))
        assert (told.returncode, told.stdout) == (2, "")
        assert told.stderr == "crowd: no run begins: run 1 is not over: try again later\n"
        assert not (here / "state-anna" / asked.QUESTION_FILE).exists()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
