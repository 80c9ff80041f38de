"""Figures of which some are lower bounds: whatever the true ones are, what is said of them holds."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowd.bench.statistics import (
    SEEDS_MIN,
    UNKNOWN,
    CensoredValue,
    best_of,
    median,
    policy_regrets,
    regrets,
    summary,
)

metrics = st.integers(1, 1000).map(float)
amounts = st.builds(CensoredValue, metrics, st.booleans())


@st.composite
def amounts_and_truth(draw: st.DrawFn) -> tuple[list[CensoredValue], list[float]]:
    """Amounts, and true figures that they allow."""
    found = draw(st.lists(amounts, min_size=1, max_size=9))
    beyond = [0.0 if amount.exact else draw(st.integers(0, 2000)) for amount in found]
    return found, [amount.value + more for amount, more in zip(found, beyond, strict=True)]


def holds(amount: CensoredValue, truth: float) -> bool:
    return truth == amount.value if amount.exact else truth >= amount.value


@given(amounts_and_truth())
def test_median_and_spread_hold_whatever_the_true_figures_are(case: tuple[list[CensoredValue], list[float]]) -> None:
    found, truth = case
    said = summary(found)
    assert holds(said.median, statistics.median(truth))
    assert holds(said.least, min(truth))
    assert holds(said.most, max(truth))
    assert said.least.value <= said.median.value <= said.most.value


@given(st.lists(metrics, min_size=1, max_size=9))
def test_without_lower_bounds_all_is_exact(values: list[float]) -> None:
    said = summary([CensoredValue(value) for value in values])
    assert said.median == CensoredValue(statistics.median(values))
    assert (said.least, said.most) == (CensoredValue(min(values)), CensoredValue(max(values)))


@given(st.lists(metrics, min_size=1, max_size=9, unique=True), st.data())
def test_a_bound_on_what_is_above_the_median_anyway_leaves_it_exact(values: list[float], data: st.DataObject) -> None:
    middle = statistics.median(values)
    above = {value for value in values if value > middle and data.draw(st.booleans())}
    found = [CensoredValue(value, exact=value not in above) for value in values]
    assert median(found).value == middle
    assert median(found).exact or len(values) % 2 == 0


@given(st.dictionaries(st.sampled_from("abcdef"), amounts, min_size=1))
def test_the_best_reached_its_target_and_regrets_nothing(found: dict[str, CensoredValue]) -> None:
    best = best_of(found)
    said = regrets(found)
    if not best:
        assert not any(amount.exact for amount in found.values())
        assert said == {}
        return
    assert best == tuple(name for name in found if said[name] == CensoredValue(0.0))
    assert said.keys() == found.keys()
    for name, regret in said.items():
        assert regret.exact == found[name].exact
        assert regret.value >= 0.0
        if found[name].exact:
            assert found[best[0]].value * (1 + regret.value) == pytest.approx(found[name].value)


@given(st.dictionaries(st.sampled_from("abcdef"), amounts, min_size=2), st.data())
def test_nobody_gains_by_another_that_was_stopped_earlier(found: dict[str, CensoredValue], data: st.DataObject) -> None:
    stopped = [name for name, amount in found.items() if not amount.exact]
    if not stopped or not best_of(found):
        return
    name = data.draw(st.sampled_from(stopped))
    earlier = found | {name: CensoredValue(found[name].value / 2, exact=False)}
    before, after = regrets(found), regrets(earlier)
    assert after[name].value <= before[name].value
    assert {other: after[other] for other in found if other != name} == {
        other: before[other] for other in found if other != name
    }


def test_who_is_as_fast_as_the_best_is_the_best_too() -> None:
    found = {
        "b": CensoredValue(2.0),
        "c": CensoredValue(1.0, exact=False),
        "a": CensoredValue(2.0),
        "d": CensoredValue(3.0),
    }
    assert best_of(found) == ("b", "a")
    assert best_of({}) == ()


def test_over_cells_the_median_and_the_worst_are_bounds_where_they_must_be() -> None:
    cells = [
        {"a": {0: CensoredValue(10.0)}, "b": {0: CensoredValue(20.0)}},
        {"a": {0: CensoredValue(10.0)}, "b": {0: CensoredValue(15.0, exact=False)}},
        {"a": {0: CensoredValue(30.0)}, "b": {0: CensoredValue(10.0)}},
    ]
    said = policy_regrets(cells)
    assert (said["a"].median.amount, said["a"].worst.amount, said["a"].worst_cells) == (
        CensoredValue(0.0),
        CensoredValue(2.0),
        (2,),
    )
    assert said["b"].median.amount == CensoredValue(0.5, exact=False)
    assert said["b"].worst.amount == CensoredValue(1.0, exact=False)
    assert said["b"].worst_cells == (1,), "whose regret may be more than that of cell 0"
    assert [each.amount.value for each in said["b"].cells if each] == [1.0, 0.5, 0.0]
    assert said["a"].worst.interval is None, "one seed says nothing of the spread"


def test_a_cell_in_which_nobody_reached_the_target_has_no_regret() -> None:
    never = {"a": {0: CensoredValue(5.0, exact=False)}, "b": {0: CensoredValue(6.0, exact=False)}}
    assert policy_regrets([never]) == {}
    said = policy_regrets([never, {"a": {0: CensoredValue(1.0)}}])
    assert said["a"].cells[0] is None
    assert said["a"].worst_cells == (1,)
    assert said["b"].cells[0] is None
    assert said["b"].worst.amount == UNKNOWN, "it has no run where somebody arrived"


def test_nobody_gains_by_a_run_that_failed() -> None:
    steady = {seed: CensoredValue(20.0) for seed in range(3)}
    said = policy_regrets([{"steady": steady, "flaky": {0: CensoredValue(18.0), 1: CensoredValue(18.0)}}])
    assert said["steady"].worst.amount == CensoredValue(0.0)
    assert not said["flaky"].worst.amount.exact
    elsewhere = policy_regrets(
        [{"steady": steady, "flaky": {0: CensoredValue(20.0)}}, {"steady": steady}, {"steady": steady}]
    )
    assert not elsewhere["flaky"].median.amount.exact
    assert elsewhere["flaky"].worst_cells == (0, 1, 2)


def test_with_seeds_enough_an_interval_is_that_of_the_paired_bootstrap() -> None:
    """`b` takes three times as long as `a` with each seed, so its regret is the same whichever seeds are drawn; that of
    `c` varies as the median of ten draws from ten figures does."""
    seeds = range(10)
    cells = [
        {
            "a": {seed: CensoredValue(2.0**seed) for seed in seeds},
            "b": {seed: CensoredValue(3.0 * 2.0**seed) for seed in seeds},
        }
    ]
    paired = policy_regrets(cells)
    assert paired["b"].worst.interval == (2.0, 2.0)
    alone = policy_regrets(
        [
            {
                "one": dict.fromkeys(seeds, CensoredValue(100.0)),
                "c": {seed: CensoredValue(100.0 + seed) for seed in seeds},
            }
        ]
    )
    interval = alone["c"].median.interval
    assert interval is not None
    low, high = (100 * end for end in interval)
    # Of ten numbers below 10: P(median <= 1.5) = 2.0 %, P(median <= 2) = 5.5 %, and the same from above.
    assert 1.5 <= low <= 2.5
    assert 6.5 <= high <= 7.5
    assert policy_regrets(cells) == paired


@pytest.mark.parametrize("arrived", [0, 3, SEEDS_MIN])
def test_an_interval_ends_nowhere_where_the_figure_may_be_anything(arrived: int) -> None:
    seeds = range(SEEDS_MIN)
    some = {seed: CensoredValue(50.0, exact=seed < arrived) for seed in seeds}
    said = policy_regrets([{"all": dict.fromkeys(seeds, CensoredValue(10.0)), "some": some}])
    assert said["some"].worst.interval == (4.0, 4.0 if arrived == SEEDS_MIN else math.inf)
    assert said["all"].worst.interval == (0.0, 0.0)
    seldom = policy_regrets([{"some": some}])
    assert ({policy: regret.worst.interval for policy, regret in seldom.items()}) == (
        {} if arrived == 0 else {"some": (0.0, 0.0 if arrived == SEEDS_MIN else math.inf)}
    ), "resamples in which nobody arrives count"


def test_cells_with_seeds_enough_have_intervals_and_all_together_only_if_all_have() -> None:
    cells = [{"a": dict.fromkeys(range(count), CensoredValue(1.0))} for count in (SEEDS_MIN, SEEDS_MIN - 1)]
    (said,) = policy_regrets(cells).values()
    assert [each is not None and each.interval is not None for each in said.cells] == [True, False]
    assert said.median.interval is said.worst.interval is None
