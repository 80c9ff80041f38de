"""Real processes over a real Mosquitto: what a user sees when a plug is pulled."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mosquitto import Mosquitto
from tests.support.processes import NAMES, Home, NodeProcess

pytestmark = pytest.mark.alone


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
