"""Scenarios that once broke a promise, by what was wrong."""

from tests.planning.test_holes import run_scenario


def test_a_device_that_returns_from_a_burial_rises_above_every_life_that_it_has_heard_of() -> None:
    # it went above its burial only, and then gave an ack in the name of its former process
    run_scenario(51)
