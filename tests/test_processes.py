"""Real processes over a real Mosquitto: what a user sees when a plug is pulled."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crowd.protocol.identity import generate_key, public_line, write_key
from tests.support.mosquitto import Mosquitto

CROWD = str(Path(sys.executable).with_name("crowd"))
PATIENCE_S = 180.0
NAMES = ("attic", "cellar", "kitchen")


class NodeProcess:
    """One `crowd node --once`, whose log lines can be waited for."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.result = directory / f"{name}.json"
        self.lines: list[str] = []
        self._unread: queue.Queue[str | None] = queue.Queue()
        command = [
            CROWD,
            "node",
            "--config",
            str(directory / f"{name}.toml"),
            "--once",
        ]
        self.process = subprocess.Popen(
            [*command, "--json", str(self.result)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "400"},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            self._unread.put(line)
        self._unread.put(None)

    def wait_for(self, wanted: Callable[[str], bool]) -> str:
        while (line := self._unread.get(timeout=PATIENCE_S)) is not None:
            if wanted(line):
                return line
        raise AssertionError(f"{self.name} ended without it:\n" + "".join(self.lines[-30:]))

    def wait_for_round(self, number: int) -> None:
        self.wait_for(lambda line: "round_complete" in line and f"round={number} " in f"{line.strip()} ")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def finish(self) -> dict[str, object]:
        """Exit code 0, and the run that it wrote."""
        assert self.process.wait(timeout=PATIENCE_S) == 0, "".join(self.lines[-30:])
        self.close()
        run: dict[str, object] = json.loads(self.result.read_text())["runs"][0]
        return run

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=PATIENCE_S)
        self._reader.join(timeout=PATIENCE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


class Home:
    """Three devices with keys, and a broker."""

    def __init__(self, directory: Path, broker: Mosquitto, task: str) -> None:
        self.directory = directory
        self.broker = broker
        self._started: list[NodeProcess] = []
        lines = []
        for name in NAMES:
            key = generate_key()
            write_key(directory / f"{name}.key", key)
            lines.append(public_line(name, key))
        (directory / "members.toml").write_text("\n".join(lines) + "\n")
        for part, name in enumerate(NAMES):
            partition = "subject" if task == "watch" else "dirichlet"
            (directory / f"{name}.toml").write_text(
                f'[node]\nname = "{name}"\ncluster = "home"\nbroker = "{broker.url}"\nkey_file = "{name}.key"\n'
                f'members_file = "members.toml"\nstate_dir = "state-{name}"\n'
                f'[train]\ntask = "{task}"\nmembers_min = {len(NAMES)}\n'
                f'[data]\npartition = "{partition}"\npart = {part}\nparts = {len(NAMES)}\n'
            )

    def start(self, name: str) -> NodeProcess:
        process = NodeProcess(name, self.directory)
        self._started.append(process)
        return process

    def close(self) -> None:
        for process in self._started:
            process.close()


@pytest.fixture
def home(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Home]:
    with Mosquitto() as broker:
        home = Home(tmp_path, broker, request.param)
        try:
            yield home
        finally:
            home.close()


def expect_one_model(runs: list[dict[str, object]], names: tuple[str, ...] = NAMES) -> None:
    for run in runs:
        digests = run["model_digests"]
        assert isinstance(digests, dict)
        assert set(digests) == set(names)
        assert len(set(digests.values())) == 1
        assert run["reached"] is True
    assert len({str(run["model_digests"]) for run in runs}) == 1


def expect_every_sample_once_per_epoch(processes: list[NodeProcess]) -> None:
    """In each epoch that all trainers of a plan completed, they together trained every lender's samples, each of them
    once (a trainer's own sampler sees to that): as many as in every other such epoch."""
    pattern = re.compile(r"epoch_complete +epoch=(\d+) generation=(\d+) trained=(\{[^}]*\}) trainers=(\d+)")
    epochs: dict[tuple[int, int], dict[str, dict[str, int]]] = {}
    trainers: dict[int, int] = {}
    for process in processes:
        for line in process.lines:
            if found := pattern.search(line):
                epoch, generation = int(found[1]), int(found[2])
                trainers[generation] = int(found[4])
                trained: dict[str, int] = json.loads(found[3].replace("'", '"'))
                assert epochs.setdefault((generation, epoch), {}).setdefault(process.name, trained) == trained
    totals: dict[str, set[int]] = {}
    for (generation, _), done in epochs.items():
        if len(done) == trainers[generation]:
            for lender in {lender for trained in done.values() for lender in trained}:
                totals.setdefault(lender, set()).add(sum(trained.get(lender, 0) for trained in done.values()))
    assert totals, "no epoch was completed by all"
    assert all(len(counts) == 1 for counts in totals.values()), totals


@pytest.mark.parametrize("home", ["digits"], indirect=True)
def test_three_processes_train_to_the_target_and_end_with_the_same_model(home: Home) -> None:
    processes = [home.start(name) for name in NAMES]
    expect_one_model([process.finish() for process in processes])


@pytest.mark.parametrize("home", ["watch"], indirect=True)
def test_a_killed_device_is_left_behind_and_catches_up_when_it_returns(home: Home) -> None:
    attic, cellar, kitchen = (home.start(name) for name in NAMES)
    kitchen.wait_for_round(3)
    kitchen.kill()
    line = attic.wait_for(lambda line: "plan_activated" in line and "kitchen" not in line)
    assert "2 of 2" in line or "1 of 2" in line
    attic.wait_for(lambda line: "round_complete" in line)
    returned = home.start("kitchen")
    returned.wait_for(lambda line: "state_fetched" in line)
    expect_one_model([process.finish() for process in (attic, cellar, returned)])
    expect_every_sample_once_per_epoch([attic, cellar, kitchen, returned])


@pytest.mark.parametrize("home", ["watch"], indirect=True)
def test_a_run_survives_the_loss_of_its_broker(home: Home) -> None:
    processes = [home.start(name) for name in NAMES]
    processes[0].wait_for_round(3)
    home.broker.kill()
    for process in processes:
        process.wait_for(lambda line: "broker_lost" in line)
    home.broker.start()
    runs = [process.finish() for process in processes]
    expect_one_model(runs)
    expect_every_sample_once_per_epoch(processes)
