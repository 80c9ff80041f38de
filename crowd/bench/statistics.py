"""Figures of which some are only lower bounds: `Amount`, its median, spread and regret.

A run that was stopped before its target took longer than it was given, nobody knows how much. Such a figure is kept as
a lower bound, and what is computed from it is a lower bound wherever it could be larger.
"""

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence

import attrs

RESAMPLES = 1000
SEEDS_MIN = 5
"""With fewer seeds a bootstrap interval says nothing."""
INTERVAL = (0.025, 0.975)


@attrs.frozen
class Amount:
    """A figure, or a lower bound of one."""

    value: float
    exact: bool = True

    @property
    def at_most(self) -> float:
        """The largest that it may be."""
        return self.value if self.exact else math.inf


@attrs.frozen(kw_only=True)
class Summary:
    """One figure over several seeds."""

    median: Amount
    least: Amount
    most: Amount
    count: int


def median(amounts: Sequence[Amount]) -> Amount:
    """Exact where the lower bounds among `amounts` cannot change it. Raises `ValueError` without any."""
    least = statistics.median(amount.value for amount in amounts)
    return Amount(least, exact=least == statistics.median(amount.at_most for amount in amounts))


def summary(amounts: Sequence[Amount]) -> Summary:
    """Raises `ValueError` without any."""
    least, most = min(amount.value for amount in amounts), max(amount.value for amount in amounts)
    return Summary(
        median=median(amounts),
        least=Amount(least, exact=any(amount.exact for amount in amounts if amount.value == least)),
        most=Amount(most, exact=all(amount.exact for amount in amounts)),
        count=len(amounts),
    )


def best_of(amounts: Mapping[str, Amount]) -> str | None:
    """Whose is the smallest of those that are exact; `None` if none is."""
    exact = {name: amount.value for name, amount in amounts.items() if amount.exact}
    return min(exact, key=lambda name: exact[name], default=None)


def regrets(amounts: Mapping[str, Amount]) -> dict[str, Amount]:
    """By how much each exceeds the smallest exact one, as a fraction of that one; empty if none is exact, or if that is
    zero."""
    best = best_of(amounts)
    if best is None or amounts[best].value <= 0.0:
        return {}
    reference = amounts[best].value
    return {
        name: Amount(max(0.0, amount.value / reference - 1.0), exact=amount.exact) for name, amount in amounts.items()
    }


# --- regret over seeds and cells --------------------------------------------------------------------------------------

Cells = Sequence[Mapping[str, Mapping[int, Amount]]]
"""For each cell of the table, by policy and seed."""


@attrs.frozen(kw_only=True)
class Regret:
    """A figure of regret and, where there are seeds enough, its 95 % interval."""

    amount: Amount
    interval: tuple[float, float] | None


@attrs.frozen(kw_only=True)
class PolicyRegret:
    """One policy over all cells in which somebody reached the target."""

    cells: tuple[Regret | None, ...]
    """Of each cell; `None` where nobody reached the target, or the policy has no run."""
    median: Regret
    worst: Regret
    worst_cell: int


def policy_regrets(cells: Cells) -> dict[str, PolicyRegret]:
    """Of every policy with a regret anywhere. Intervals are percentiles of `RESAMPLES` tables whose seeds are drawn
    from those of each cell, with replacement and alike for all policies (Efron and Tibshirani 1993, chapter 13)."""
    chance = random.Random(0)
    enough = all(len(_seeds(cell)) >= SEEDS_MIN for cell in cells)
    found = _of_cells(cells, lambda seeds: seeds)
    resampled = [
        _of_cells(cells, lambda seeds: chance.choices(seeds, k=len(seeds))) for _ in range(RESAMPLES if enough else 0)
    ]
    policies = dict.fromkeys(policy for cell in found for policy in cell)
    return {policy: _over_cells(policy, found, resampled) for policy in policies}


def _over_cells(policy: str, found: list[dict[str, Amount]], resampled: list[list[dict[str, Amount]]]) -> PolicyRegret:
    def regret(figure: Callable[[list[dict[str, Amount]]], Amount | None]) -> Regret | None:
        amount = figure(found)
        drawn = [drawn.value for table in resampled if (drawn := figure(table)) is not None]
        return None if amount is None else Regret(amount=amount, interval=_interval(drawn))

    def of(table: list[dict[str, Amount]]) -> list[Amount]:
        return [cell[policy] for cell in table if policy in cell]

    def worst(table: list[dict[str, Amount]]) -> Amount | None:
        return summary(of(table)).most if of(table) else None

    def middle(table: list[dict[str, Amount]]) -> Amount | None:
        return median(of(table)) if of(table) else None

    cells = tuple(regret(lambda table, index=index: table[index].get(policy)) for index in range(len(found)))  # type: ignore[misc]
    of_median, of_worst = regret(middle), regret(worst)
    assert of_median is not None
    assert of_worst is not None
    known = {index: each.amount.value for index, each in enumerate(cells) if each is not None}
    return PolicyRegret(
        cells=cells, median=of_median, worst=of_worst, worst_cell=max(known, key=lambda index: known[index])
    )


def _of_cells(cells: Cells, draw: Callable[[list[int]], list[int]]) -> list[dict[str, Amount]]:
    """The regret of each policy in each cell, by medians over the seeds that `draw` makes of those that there are."""
    table = []
    for cell in cells:
        seeds = draw(_seeds(cell))
        medians = {}
        for policy, of_seed in cell.items():
            amounts = [of_seed[seed] for seed in seeds if seed in of_seed]
            if amounts:
                medians[policy] = median(amounts)
        table.append(regrets(medians))
    return table


def _seeds(cell: Mapping[str, Mapping[int, Amount]]) -> list[int]:
    return sorted({seed for of_seed in cell.values() for seed in of_seed})


def _interval(drawn: list[float]) -> tuple[float, float] | None:
    if not drawn:
        return None
    ordered = sorted(drawn)
    low, high = (ordered[min(len(ordered) - 1, math.floor(part * len(ordered)))] for part in INTERVAL)
    return low, high
