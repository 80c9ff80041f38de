"""Each hole that is put into the protocol is found by the seed that is known to show it, which passes without the hole.

`make mutants` looks for the seeds anew.
"""

import pytest

from tests.simulation.killers import KILLED_BY
from tests.simulation.mutants import MUTANTS, kills
from tests.simulation.play import play
from tests.simulation.scenario import draw


def test_every_mutant_has_its_killer() -> None:
    assert KILLED_BY.keys() == MUTANTS.keys()
    assert len(MUTANTS) >= 20


@pytest.mark.parametrize("mutant", KILLED_BY)
def test_a_hole_is_found(mutant: str) -> None:
    assert kills(mutant, KILLED_BY[mutant]) is not None


@pytest.mark.parametrize("seed", sorted(set(KILLED_BY.values())))
def test_the_seed_holds_without_the_hole(seed: int) -> None:
    assert play(draw(seed)).findings == ()
