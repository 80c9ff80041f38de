"""The smallest set of faults that still fails."""

from hypothesis import given
from hypothesis import strategies as st

from tests.simulation.shrink import smallest


@given(st.sets(st.integers(0, 11), max_size=5))
def test_exactly_the_faults_that_matter_are_left(culprits: set[int]) -> None:
    everything = tuple(range(12))
    assert set(smallest(everything, lambda places: culprits <= set(places))) == culprits


def test_a_scenario_that_fails_by_itself_needs_no_fault() -> None:
    assert smallest((0, 1, 2), lambda places: True) == ()
