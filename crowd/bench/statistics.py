"""Values of which some are right-censored: `CensoredValue`, its median, spread and regret.

A run that was stopped before its target took longer than it was given, nobody knows how much. Such a value is kept as a
lower bound, and what is computed from it is a lower bound wherever it could be larger. Of a run that failed, or that is
still to come, nothing is known at all: `UNKNOWN`.
"""

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence

import attrs

RESAMPLES = 1000
SEEDS_MIN = 5
"""Seeds with fewer than which a bootstrap interval says nothing."""
INTERVAL = (0.025, 0.975)


@attrs.frozen
class CensoredValue:
    """A value, or (not `exact`) a lower bound of it: a right-censored value."""

    value: float
    exact: bool = True

    @property
    def at_most(self) -> float:
        """The largest that the value may be; infinite if it is right-censored."""
        return self.value if self.exact else math.inf


UNKNOWN = CensoredValue(0.0, exact=False)
"""A value of which nothing is known but that it is no less than zero."""


@attrs.frozen(kw_only=True)
class Summary:
    """One metric over several seeds."""

    median: CensoredValue
    least: CensoredValue
    most: CensoredValue


def median(amounts: Sequence[CensoredValue]) -> CensoredValue:
    """The median, exact where the right-censored ones among `amounts` cannot change it. Raises `ValueError` without
    any."""
    least = statistics.median(amount.value for amount in amounts)
    return CensoredValue(least, exact=least == statistics.median(amount.at_most for amount in amounts))


def summary(amounts: Sequence[CensoredValue]) -> Summary:
    """Median, least and most of `amounts`. Raises `ValueError` without any."""
    least, most = min(amount.value for amount in amounts), max(amount.value for amount in amounts)
    return Summary(
        median=median(amounts),
        least=CensoredValue(least, exact=any(amount.exact for amount in amounts if amount.value == least)),
        most=CensoredValue(most, exact=all(amount.exact for amount in amounts)),
    )


def best_of(amounts: Mapping[str, CensoredValue]) -> tuple[str, ...]:
    """The names of the smallest of those that are exact, in the order of `amounts`; none if none is exact."""
    exact = {name: amount.value for name, amount in amounts.items() if amount.exact}
    least = min(exact.values(), default=None)
    return tuple(name for name, value in exact.items() if value == least)


def regrets(amounts: Mapping[str, CensoredValue]) -> dict[str, CensoredValue]:
    """The regret of each: by how much it exceeds the smallest exact one, as a fraction of that one; empty if none is
    exact, or if that is zero."""
    best = best_of(amounts)
    if not best or amounts[best[0]].value <= 0.0:
        return {}
    reference = amounts[best[0]].value
    return {
        name: CensoredValue(max(0.0, amount.value / reference - 1.0), exact=amount.exact)
        for name, amount in amounts.items()
    }


# --- regret over seeds and cells --------------------------------------------------------------------------------------

Cells = Sequence[Mapping[str, Mapping[int, CensoredValue]]]
"""The cells of the table, each by policy and seed. A seed that one policy has in a cell another one lacks there is
`UNKNOWN`, and all that is said of the policy there is right-censored, so that nobody gains by a run that failed."""


@attrs.frozen(kw_only=True)
class Regret:
    """A regret and, where there are seeds enough, its 95 % interval, whose upper end may be infinite."""

    amount: CensoredValue
    interval: tuple[float, float] | None


@attrs.frozen(kw_only=True)
class PolicyRegret:
    """The regret of one policy over all cells in which somebody reached the target."""

    cells: tuple[Regret | None, ...]
    """Regret in each cell; `None` where nobody reached the target."""
    median: Regret
    worst: Regret
    worst_cells: tuple[int, ...]
    """Indices of the cells whose regret may be the worst: all right-censored ones, or without any those that are as
    large."""


def policy_regrets(cells: Cells) -> dict[str, PolicyRegret]:
    """The regrets of every policy, if anybody reached the target anywhere.

    Intervals are percentiles of `RESAMPLES` tables whose seeds are drawn from those of each cell, with replacement and
    alike for all policies (Efron and Tibshirani 1993, chapter 13): the lower end of the least that each regret may be,
    the upper one of the most.
    """
    chance = random.Random(0)
    policies = tuple(dict.fromkeys(policy for cell in cells for policy in cell))
    enough = [len(_seeds(cell)) >= SEEDS_MIN for cell in cells]
    found = _of_cells(cells, policies, lambda seeds: seeds)
    resampled = [
        _of_cells(cells, policies, lambda seeds: chance.choices(seeds, k=len(seeds)))
        for _ in range(RESAMPLES if any(enough) else 0)
    ]
    return {policy: _over_cells(policy, found, resampled, enough) for policy in policies if any(found)}


_Table = list[dict[str, CensoredValue]]
"""The regret of each policy in each cell, of nobody where nobody reached the target."""


def _over_cells(policy: str, found: _Table, resampled: list[_Table], enough: Sequence[bool]) -> PolicyRegret:
    def regret(figure: Callable[[_Table], CensoredValue | None], *, enough: bool) -> Regret | None:
        amount = figure(found)
        if amount is None:
            return None
        return Regret(amount=amount, interval=_interval([figure(table) for table in resampled]) if enough else None)

    def overall(figure: Callable[[Sequence[CensoredValue]], CensoredValue]) -> Regret:
        said = regret(
            lambda table: figure(known) if (known := [cell[policy] for cell in table if cell]) else None,
            enough=all(enough),
        )
        assert said is not None, "there are no regrets at all"
        return said

    cells = tuple(
        regret(lambda table, index=index: table[index].get(policy), enough=enough[index])  # type: ignore[misc]
        for index in range(len(found))
    )
    worst = overall(lambda amounts: summary(amounts).most)
    known = {index: each.amount for index, each in enumerate(cells) if each is not None}
    return PolicyRegret(
        cells=cells,
        median=overall(median),
        worst=worst,
        worst_cells=tuple(index for index, amount in known.items() if amount.at_most == worst.amount.at_most),
    )


def _of_cells(cells: Cells, policies: Sequence[str], draw: Callable[[list[int]], list[int]]) -> _Table:
    """The regrets by medians over the seeds that `draw` makes of those that there are."""
    table = []
    for cell in cells:
        every = _seeds(cell)
        seeds = draw(every)
        medians = {}
        for policy in policies if every else ():
            of_seed = cell.get(policy, {})
            middle = median([of_seed.get(seed, UNKNOWN) for seed in seeds])
            medians[policy] = CensoredValue(middle.value, exact=middle.exact and of_seed.keys() >= set(every))
        table.append(regrets(medians))
    return table


def _seeds(cell: Mapping[str, Mapping[int, CensoredValue]]) -> list[int]:
    return sorted({seed for of_seed in cell.values() for seed in of_seed})


def _interval(drawn: Sequence[CensoredValue | None]) -> tuple[float, float]:
    """The interval of regrets `drawn`; where nobody reached the target (`None`), the value may be anything."""
    amounts = [UNKNOWN if amount is None else amount for amount in drawn]
    least, most = (sorted(values) for values in zip(*((each.value, each.at_most) for each in amounts), strict=True))
    low, high = (math.floor(part * len(amounts)) for part in INTERVAL)
    return least[low], most[min(len(amounts) - 1, high)]
