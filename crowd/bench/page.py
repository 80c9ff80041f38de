"""The comparison as one page that needs nothing else: no network, no other file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import jinja2

from crowd.bench import pictures, report
from crowd.bench.about import about_cluster, about_devices, about_policy, about_task
from crowd.bench.cells import Cell, Entry
from crowd.bench.matrix import PATIENCE, compare
from crowd.bench.report import CellMetrics, Comparison, Scenario
from crowd.bench.runs import Run
from crowd.bench.statistics import SEEDS_MIN, Regret
from crowd.formatting import quality

REGRET_SHOWN_MAX = 10.0
"""Regret for which a bar is as long as its column, or any larger one."""


@attrs.frozen(kw_only=True)
class Row:
    """One policy in one scenario."""

    policy: str
    metrics: CellMetrics | None
    regret: Regret | None
    fastest: bool
    thriftiest: bool
    balance: str
    value: str
    """Median of the metric at the end."""
    first: Entry | None
    """Result with the first seed."""
    picture: str
    """Picture of who was busy when with the first seed, as SVG."""


def page(entries: Mapping[Cell, Entry], failures: Mapping[Cell, str], *, leaders: Sequence[str], made_by: str) -> str:
    """The page as HTML. `leaders` are the policies that limit the others, `made_by` is the command that makes the
    page."""
    comparison = compare([*entries, *failures], entries, failures)
    known = [*comparison.regrets, *(policy for policy in comparison.policies if policy not in comparison.regrets)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cells = [*entries, *failures]
    files = {cell.experiment.cluster.name: cell.file for cell in cells}
    return environment.get_template("page.html.jinja").render(
        comparison=comparison,
        policies=known,
        look=pictures.looks(known),
        sections=[
            _section(comparison, scenario, known, entries)
            for scenario in comparison.scenarios
            if comparison.metrics[scenario]
        ],
        clusters={name: about_cluster(file) for name, file in files.items()},
        devices={cell.experiment.cluster.name: about_devices(cell.experiment) for cell in cells},
        tasks={name: about_task(name) for name in dict.fromkeys(cell.experiment.task for cell in cells)},
        about={name: about_policy(name) for name in known},
        failures=[(cell.label, cause) for cell, cause in failures.items()],
        targets={
            entry.run["task"]: f"to {quality(entry.run['metric'], entry.run['target'])} {entry.run['metric']}"
            for entry in entries.values()
            if entry.run["target"] is not None
        },
        leaders=[policy for policy in leaders if policy in known],
        seeds=len({cell.experiment.seed for cell in cells}),
        lanes={"computes": pictures.COMPUTE, "sends": pictures.UP, "receives": pictures.DOWN, "is off": pictures.OFF},
        patience=PATIENCE,
        seeds_min=SEEDS_MIN,
        regret_shown_max=REGRET_SHOWN_MAX,
        words=report,
        made_by=made_by,
    )


def _section(
    comparison: Comparison, scenario: Scenario, policies: Sequence[str], entries: Mapping[Cell, Entry]
) -> dict[str, Any]:
    metrics = comparison.metrics[scenario]
    runs = [run for policy in policies if policy in metrics for run in metrics[policy].runs]
    look = pictures.looks(policies)
    first: dict[str, Entry] = {}
    for entry in entries.values():
        run = entry.run
        if (run["task"], run["cluster"]) == (scenario.task, scenario.cluster):
            first.setdefault(run["policy"], entry)
    return {
        "scenario": scenario,
        "index": comparison.scenarios.index(scenario),
        "fastest": comparison.fastest(scenario),
        "rows": [_row(comparison, scenario, policy, first.get(policy)) for policy in policies],
        "metric": runs[0]["metric"],
        "over_time": pictures.value_over_time(runs, look, title=f"{scenario}: {runs[0]['metric']} over time"),
        "over_bytes": pictures.value_over_bytes(runs, look, title=f"{scenario}: {runs[0]['metric']} over bytes"),
    }


def _row(comparison: Comparison, scenario: Scenario, policy: str, entry: Entry | None) -> Row:
    metrics = comparison.metrics[scenario].get(policy)
    regrets = comparison.regrets.get(policy)
    runs = metrics.runs if metrics else ()
    return Row(
        policy=policy,
        metrics=metrics,
        regret=None if regrets is None else regrets.cells[comparison.scenarios.index(scenario)],
        fastest=policy in comparison.fastest(scenario),
        thriftiest=policy in comparison.thriftiest(scenario),
        balance=_middle_percent([run["balance_efficiency"] for run in runs]),
        value=_middle_value(runs),
        first=entry,
        picture=""
        if entry is None or not entry.run["seconds_total"]
        else pictures.who_was_busy(
            entry.activity, seconds=entry.run["seconds_total"], title=f"{scenario}, {policy}: who was busy when"
        ),
    )


def _middle_value(runs: Sequence[Run]) -> str:
    known = sorted(run["final_value"] for run in runs if run["final_value"] is not None)
    return quality(runs[0]["metric"], known[(len(known) - 1) // 2]).replace("%", " %") if known else "–"


def _middle_percent(fractions: Sequence[float | None]) -> str:
    known = sorted(fraction for fraction in fractions if fraction is not None)
    return f"{100 * known[(len(known) - 1) // 2]:.1f} %" if known else "–"
