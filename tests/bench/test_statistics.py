"""Figures of which some are lower bounds: whatever the true ones are, what is said of them holds."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowd.bench.statistics import (
    SEEDS_MIN,
    Amount,
    best_of,
    median,
    policy_regrets,
    regrets,
    summary,
)

figures = st.integers(1, 1000).map(float)
amounts = st.builds(Amount, figures, st.booleans())


@st.composite
def amounts_and_truth(draw: st.DrawFn) -> tuple[list[Amount], list[float]]:
    """Amounts, and true figures that they allow."""
    found = draw(st.lists(amounts, min_size=1, max_size=9))
    beyond = [0.0 if amount.exact else draw(st.integers(0, 2000)) for amount in found]
    return found, [amount.value + more for amount, more in zip(found, beyond, strict=True)]


def holds(amount: Amount, truth: float) -> bool:
    return truth == amount.value if amount.exact else truth >= amount.value


@given(amounts_and_truth())
def test_median_and_spread_hold_whatever_the_true_figures_are(case: tuple[list[Amount], list[float]]) -> None:
    found, truth = case
    said = summary(found)
    assert holds(said.median, statistics.median(truth))
    assert holds(said.least, min(truth))
    assert holds(said.most, max(truth))
    assert said.least.value <= said.median.value <= said.most.value


@given(st.lists(figures, min_size=1, max_size=9))
def test_without_lower_bounds_all_is_exact(values: list[float]) -> None:
    said = summary([Amount(value) for value in values])
    assert said.median == Amount(statistics.median(values))
    assert (said.least, said.most) == (Amount(min(values)), Amount(max(values)))


@given(st.lists(figures, min_size=1, max_size=9, unique=True), st.data())
def test_a_bound_on_what_is_above_the_median_anyway_leaves_it_exact(values: list[float], data: st.DataObject) -> None:
    middle = statistics.median(values)
    above = {value for value in values if value > middle and data.draw(st.booleans())}
    found = [Amount(value, exact=value not in above) for value in values]
    assert median(found).value == middle
    assert median(found).exact or len(values) % 2 == 0


@given(st.dictionaries(st.sampled_from("abcdef"), amounts, min_size=1))
def test_the_best_reached_its_target_and_regrets_nothing(found: dict[str, Amount]) -> None:
    best = best_of(found)
    said = regrets(found)
    if best is None:
        assert not any(amount.exact for amount in found.values())
        assert said == {}
        return
    assert said[best] == Amount(0.0)
    assert said.keys() == found.keys()
    for name, regret in said.items():
        assert regret.exact == found[name].exact
        assert regret.value >= 0.0
        if found[name].exact:
            assert found[best].value * (1 + regret.value) == pytest.approx(found[name].value)


@given(st.dictionaries(st.sampled_from("abcdef"), amounts, min_size=2), st.data())
def test_nobody_gains_by_another_that_was_stopped_earlier(found: dict[str, Amount], data: st.DataObject) -> None:
    stopped = [name for name, amount in found.items() if not amount.exact]
    if not stopped or best_of(found) is None:
        return
    name = data.draw(st.sampled_from(stopped))
    earlier = found | {name: Amount(found[name].value / 2, exact=False)}
    before, after = regrets(found), regrets(earlier)
    assert after[name].value <= before[name].value
    assert {other: after[other] for other in found if other != name} == {
        other: before[other] for other in found if other != name
    }


def test_over_cells_the_median_and_the_worst_are_bounds_where_they_must_be() -> None:
    cells = [
        {"a": {0: Amount(10.0)}, "b": {0: Amount(20.0)}},
        {"a": {0: Amount(10.0)}, "b": {0: Amount(15.0, exact=False)}},
        {"a": {0: Amount(30.0)}, "b": {0: Amount(10.0)}},
    ]
    said = policy_regrets(cells)
    assert (said["a"].median.amount, said["a"].worst.amount, said["a"].worst_cell) == (Amount(0.0), Amount(2.0), 2)
    assert said["b"].median.amount == Amount(0.5, exact=False)
    assert said["b"].worst.amount == Amount(1.0, exact=False)
    assert [each.amount.value for each in said["b"].cells if each] == [1.0, 0.5, 0.0]
    assert said["a"].worst.interval is None, "one seed says nothing of the spread"


def test_a_cell_in_which_nobody_reached_the_target_has_no_regret() -> None:
    never = {"a": {0: Amount(5.0, exact=False)}, "b": {0: Amount(6.0, exact=False)}}
    assert policy_regrets([never]) == {}
    said = policy_regrets([never, {"a": {0: Amount(1.0)}}])
    assert said["a"].cells[0] is None
    assert said["a"].worst_cell == 1
    assert "b" not in said


def test_with_seeds_enough_an_interval_holds_the_figure_and_is_the_same_each_time() -> None:
    seeds = range(SEEDS_MIN + 5)
    cells = [
        {"a": {seed: Amount(10.0 + seed) for seed in seeds}, "b": {seed: Amount(20.0 + 3 * seed) for seed in seeds}}
    ]
    said = policy_regrets(cells)["b"]
    assert said.worst.interval is not None
    low, high = said.worst.interval
    assert low < said.worst.amount.value < high
    assert policy_regrets(cells)["b"] == said
