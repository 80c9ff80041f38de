"""Each hole that is put into the protocol is found by the scenario that is known to show it, and that passes without.

`make mutants` looks for the seeds anew.
"""

import pytest

from tests.simulation.killers import FAULTS, KILLED_BY, SHOWN_BY_TESTS, VARIANTS, killer
from tests.simulation.mutants import MUTANTS, kills, mutated
from tests.simulation.play import play


def test_every_mutant_has_its_killer() -> None:
    assert KILLED_BY.keys() | SHOWN_BY_TESTS.keys() == MUTANTS.keys()
    assert not KILLED_BY.keys() & SHOWN_BY_TESTS.keys()
    assert len(MUTANTS) >= 20


@pytest.mark.parametrize("mutant", KILLED_BY)
def test_a_hole_is_found(mutant: str) -> None:
    assert kills(mutant, killer(mutant)) is not None


@pytest.mark.parametrize("mutant", SHOWN_BY_TESTS)
def test_a_hole_that_no_seed_shows_is_found_by_a_test(mutant: str) -> None:
    SHOWN_BY_TESTS[mutant]()
    with mutated(mutant), pytest.raises(AssertionError):
        SHOWN_BY_TESTS[mutant]()


@pytest.mark.parametrize(
    "mutant", {(seed, FAULTS.get(mutant), VARIANTS.get(mutant)): mutant for mutant, seed in KILLED_BY.items()}.values()
)
def test_the_scenario_holds_without_the_hole(mutant: str) -> None:
    assert play(killer(mutant)).findings == ()
