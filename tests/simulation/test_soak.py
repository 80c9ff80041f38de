"""Scenarios drawn from seeds: none breaks a promise. `make soak` plays many more."""

import os

import pytest

from tests.simulation import soak
from tests.simulation.play import play
from tests.simulation.scenario import KNOWN_SEEDS, FaultKind, draw

SEEDS = range(KNOWN_SEEDS - 100, KNOWN_SEEDS + 100)
BESIDE = {
    "replayed messages",
    "damaged checkpoints",
    "blackouts of the broker too",
    "runs that were begun by request",
    "fresh ones of them",
    "data that have changed",
}
"""What comes with faults of other kinds."""


@pytest.mark.alone
def test_no_scenario_breaks_a_promise() -> None:
    tally = soak.Tally()
    for verdict in soak.judge_all(SEEDS, os.cpu_count() or 1):
        tally.add(verdict)
    assert not tally.failed, "\n".join(f"{verdict.report.findings[0]}\n{verdict.replay}" for verdict in tally.failed)
    assert not tally.thin, "these seeds show too little"
    assert tally.faults.keys() == {kind.value for kind in FaultKind} | BESIDE
    assert tally.faults["replayed messages"] > 100


def test_the_same_seed_takes_the_same_course() -> None:
    assert play(draw(5)) == play(draw(5))


def test_a_scenario_without_faults_holds_too() -> None:
    scenario = draw(3).only(())
    report = play(scenario)
    assert report.findings == ()
    assert report.faults == {}
