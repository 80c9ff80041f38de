"""The comparison for people: `Comparison` (runs, sorted by what they compare), its tables on a screen and in Markdown.

Needs no more than runs.
"""

import functools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from crowd import formatting
from crowd.bench.runs import Run
from crowd.bench.statistics import CensoredValue, PolicyRegret, Regret, Summary, best_of, policy_regrets, summary
from crowd.formatting import size

NONE, FAILED, TO_COME = "none", "failed", "to come"
"""The words in place of runs that are missing: nobody knows why, they failed, or they have not been computed yet."""
BEST = "bold green"
CELL_WIDTH = 15
"""Characters of a cell on a screen; a range that is longer takes two lines."""


@attrs.frozen(kw_only=True)
class Scenario:
    """A cell of the table: the task and the cluster on which policies are compared."""

    task: str
    cluster: str

    def __str__(self) -> str:
        return f"{self.cluster}, {self.task}"


@attrs.frozen(kw_only=True)
class CellMetrics:
    """The metrics of one policy in one scenario, over the seeds of which there are runs."""

    runs: tuple[Run, ...]
    asked: int
    """Runs that there should be; the others failed, or are still to come."""
    seconds: Summary
    """Seconds to the target."""
    traffic: Summary
    """Bytes to the target."""


class Comparison:
    """All runs; tasks, clusters and policies in order of their first.

    Every policy should have a run at each scenario and seed at which any has one. A policy that lacks one there is not
    said to be the best, and its regret is right-censored.
    """

    def __init__(self, runs: Iterable[Run], missing: Mapping[tuple[Scenario, str], str] | None = None) -> None:
        """Sort `runs`. `missing` says why policies lack runs in a scenario: `FAILED` or `TO_COME`."""
        self._missing = missing or {}
        self._runs: dict[Scenario, dict[str, dict[int, Run]]] = {}
        self._seeds: dict[Scenario, set[int]] = {}
        for run in runs:
            scenario, seed = Scenario(task=run["task"], cluster=run["cluster"]), run["seed"]
            self._runs.setdefault(scenario, {}).setdefault(run["policy"], {})[seed] = run
            self._seeds.setdefault(scenario, set()).add(seed)
        for scenario, policy in self._missing:
            self._runs.setdefault(scenario, {}).setdefault(policy, {})
            self._seeds.setdefault(scenario, set())
        self.scenarios = tuple(self._runs)
        self.tasks = tuple(dict.fromkeys(scenario.task for scenario in self.scenarios))
        self.policies = tuple(dict.fromkeys(policy for runs in self._runs.values() for policy in runs))

    def why_missing(self, scenario: Scenario, policy: str) -> str:
        """The word in place of runs of `policy` in `scenario`."""
        return self._missing.get((scenario, policy), NONE)

    def scenarios_of(self, task: str) -> tuple[Scenario, ...]:
        """The scenarios of one task."""
        return tuple(scenario for scenario in self.scenarios if scenario.task == task)

    @functools.cached_property
    def metrics(self) -> dict[Scenario, dict[str, CellMetrics]]:
        """Metrics by scenario and policy, where there are runs."""
        return {
            scenario: {
                policy: _metrics(list(runs.values()), asked=len(self._seeds[scenario]))
                for policy, runs in of_policy.items()
                if runs
            }
            for scenario, of_policy in self._runs.items()
        }

    @functools.cached_property
    def regrets(self) -> dict[str, PolicyRegret]:
        """Regrets by policy: those with the smallest worst one first, then by their median. A right-censored one may
        stand for anything, so among those the first is the policy that reached the target most often. Their cells are
        `scenarios`."""
        found = policy_regrets(
            [
                {
                    policy: {seed: seconds_to_target(run) for seed, run in of_policy.get(policy, {}).items()}
                    for policy in self.policies
                }
                for of_policy in self._runs.values()
            ]
        )

        def rank(policy: str) -> tuple[float, ...]:
            worst, median = found[policy].worst.amount, found[policy].median.amount
            return worst.at_most, median.at_most, -self.reached(policy)[0], worst.value, median.value

        return {policy: found[policy] for policy in sorted(found, key=rank)}

    def fastest(self, scenario: Scenario) -> tuple[str, ...]:
        """The fastest of the policies that reached the target in `scenario` and have all their runs; more than one if
        they are alike."""
        return best_of({policy: metrics.seconds.median for policy, metrics in self._whole(scenario).items()})

    def thriftiest(self, scenario: Scenario) -> tuple[str, ...]:
        """The policies with the fewest bytes of those that reached the target in `scenario` and have all their runs;
        more than one if they are alike."""
        return best_of({policy: metrics.traffic.median for policy, metrics in self._whole(scenario).items()})

    def _whole(self, scenario: Scenario) -> dict[str, CellMetrics]:
        return {
            policy: metrics for policy, metrics in self.metrics[scenario].items() if len(metrics.runs) == metrics.asked
        }

    def reached(self, policy: str) -> tuple[int, int]:
        """The number of runs of `policy` that met the target, and of all that there are or should be."""
        runs = [run for of_policy in self._runs.values() for run in of_policy.get(policy, {}).values()]
        return sum(run["reached"] for run in runs), sum(len(seeds) for seeds in self._seeds.values())


def seconds_to_target(run: Run) -> CensoredValue:
    return CensoredValue(run["seconds_total"], exact=run["reached"])


def bytes_to_target(run: Run) -> CensoredValue:
    return CensoredValue(run["bytes_total"], exact=run["reached"])


def _metrics(runs: Sequence[Run], *, asked: int) -> CellMetrics:
    return CellMetrics(
        runs=tuple(runs),
        asked=asked,
        seconds=summary([seconds_to_target(run) for run in runs]),
        traffic=summary([bytes_to_target(run) for run in runs]),
    )


# --- in words ---------------------------------------------------------------------------------------------------------


def seconds_words(amount: CensoredValue) -> str:
    return _bound(amount) + formatting.seconds(amount.value)


def bytes_words(amount: CensoredValue) -> str:
    return _bound(amount) + size(round(amount.value))


def percent_words(regret: Regret) -> str:
    """The regret in percent, with its interval, if there is one."""
    words = _bound(regret.amount) + _percent(regret.amount.value)
    if regret.interval is None:
        return words
    low, high = regret.interval
    return f"{words} ({_percent(low)} {'or more' if high == math.inf else f'to {_percent(high)}'})"


def worst_words(comparison: Comparison, regret: PolicyRegret) -> str:
    """The scenario of a policy's worst regret, or how many there are: of several right-censored ones nobody knows which
    is."""
    if len(regret.worst_cells) == 1:
        return str(comparison.scenarios[regret.worst_cells[0]])
    known = sum(cell is not None for cell in regret.cells)
    return f"{len(regret.worst_cells)} of {known} {'alike' if regret.worst.amount.exact else 'not reached'}"


def lacking_words(metrics: CellMetrics) -> str:
    """The number of runs, if there should be more."""
    return "" if len(metrics.runs) == metrics.asked else f"{len(metrics.runs)} of {metrics.asked} runs"


def range_words(metrics: CellMetrics) -> str:
    """The range of seconds over the seeds; nothing for a single seed."""
    if len(metrics.runs) == 1:
        return ""
    return f"{seconds_words(metrics.seconds.least)} – {seconds_words(metrics.seconds.most)}"


def _bound(amount: CensoredValue) -> str:
    return "" if amount.exact else "> "


def _percent(fraction: float) -> str:
    return f"{100 * fraction:,.0f} %"


# --- on a screen ------------------------------------------------------------------------------------------------------


def tables(comparison: Comparison, console: Console) -> Iterator[Table]:
    """Tables of policies and clusters, one for each task, or several where `console` is too narrow for all clusters;
    and the regrets."""
    for task in comparison.tasks:
        yield from _task_tables(comparison, comparison.scenarios_of(task), console)
    if comparison.regrets:
        yield _regret_table(comparison)


def _task_tables(comparison: Comparison, scenarios: Sequence[Scenario], console: Console) -> Iterator[Table]:
    """Tables of `scenarios`, all of one task, each with as many as fit, and at least one."""
    while scenarios:
        count = len(scenarios)
        while count > 1 and _width(_task_table(comparison, scenarios[:count]), console) > console.width:
            count -= 1
        yield _task_table(comparison, scenarios[:count])
        scenarios = scenarios[count:]


def _width(table: Table, console: Console) -> int:
    """The width of `table` on a screen that is wide enough."""
    return console.measure(table, options=console.options.update_width(sys.maxsize)).maximum


def _task_table(comparison: Comparison, scenarios: Sequence[Scenario]) -> Table:
    """The table of scenarios of one task."""
    table = Table(
        title=f"{scenarios[0].task}: time and bytes to the target",
        caption="median, least and most over the seeds; >: a lower bound, for the target was not reached by then; "
        "green: the least of those that reached it",
        show_lines=True,
    )
    table.add_column("policy", no_wrap=True)
    for scenario in scenarios:
        table.add_column(scenario.cluster, justify="right", no_wrap=True)
    for policy in comparison.policies:
        table.add_row(policy, *(_cell(comparison, scenario, policy) for scenario in scenarios))
    return table


def _cell(comparison: Comparison, scenario: Scenario, policy: str) -> Text:
    metrics = comparison.metrics[scenario].get(policy)
    if metrics is None:
        return Text(comparison.why_missing(scenario, policy), style="dim")
    spread = range_words(metrics)
    if len(spread) > CELL_WIDTH:
        spread = spread.replace(" – ", " –\n")
    lines = [
        Text(seconds_words(metrics.seconds.median), style=BEST if policy in comparison.fastest(scenario) else ""),
        Text(spread, style="dim"),
        Text(bytes_words(metrics.traffic.median), style=BEST if policy in comparison.thriftiest(scenario) else ""),
        Text(lacking_words(metrics), style="dim"),
    ]
    return Text("\n").join(line for line in lines if line.plain)


def _regret_table(comparison: Comparison) -> Table:
    table = Table(
        title="regret: how much slower than the fastest policy of the same cluster and task",
        caption="reached: runs that met the target; of medians over the seeds; in brackets the 95 % interval, where "
        "there are seeds enough",
    )
    table.add_column("policy", no_wrap=True)
    for heading in ("reached", "median", "worst"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("where")
    for policy, regret in comparison.regrets.items():
        reached, runs = comparison.reached(policy)
        table.add_row(
            policy,
            f"{reached} of {runs}",
            percent_words(regret.median),
            percent_words(regret.worst),
            worst_words(comparison, regret),
        )
    return table


# --- in Markdown ------------------------------------------------------------------------------------------------------


def markdown(comparison: Comparison) -> str:
    """The comparison's tables in Markdown, in brief."""
    parts = [_task_markdown(comparison, task) for task in comparison.tasks]
    if comparison.regrets:
        parts.append(_regret_markdown(comparison))
    return "\n".join(parts)


def _task_markdown(comparison: Comparison, task: str) -> str:
    scenarios = comparison.scenarios_of(task)
    rows = [[f"**{task}**", *(scenario.cluster for scenario in scenarios)]]
    rows += [
        [f"`{policy}`", *(_markdown_cell(comparison, scenario, policy) for scenario in scenarios)]
        for policy in comparison.policies
    ]
    return _markdown_table(rows)


def _markdown_cell(comparison: Comparison, scenario: Scenario, policy: str) -> str:
    metrics = comparison.metrics[scenario].get(policy)
    if metrics is None:
        return comparison.why_missing(scenario, policy)
    seconds, traffic = seconds_words(metrics.seconds.median), bytes_words(metrics.traffic.median)
    seconds = f"**{seconds}**" if policy in comparison.fastest(scenario) else seconds
    traffic = f"**{traffic}**" if policy in comparison.thriftiest(scenario) else traffic
    return "<br>".join(filter(None, (seconds, traffic, lacking_words(metrics))))


def _regret_markdown(comparison: Comparison) -> str:
    rows = [["**regret**", "reached", "median", "worst", "where"]]
    for policy, regret in comparison.regrets.items():
        reached, runs = comparison.reached(policy)
        median, worst = percent_words(regret.median), percent_words(regret.worst)
        rows.append([f"`{policy}`", f"{reached} of {runs}", median, worst, worst_words(comparison, regret)])
    return _markdown_table(rows)


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
