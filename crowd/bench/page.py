"""The comparison as one page that needs nothing else: no network, no other file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import jinja2

from crowd.bench import pictures, report
from crowd.bench.about import about_cluster, about_policy, about_task
from crowd.bench.cells import Cell, Entry
from crowd.bench.matrix import PATIENCE
from crowd.bench.report import Comparison, Figures, Place
from crowd.bench.statistics import SEEDS_MIN, Regret

REGRET_SHOWN_MAX = 10.0
"""A bar as long as the column stands for this much or more."""


@attrs.frozen(kw_only=True)
class Row:
    """One policy at one place."""

    policy: str
    figures: Figures | None
    regret: Regret | None
    fastest: bool
    thriftiest: bool
    balance: str
    accuracy: str
    picture: str
    """Who was busy when, with the first seed."""


def page(entries: Mapping[Cell, Entry], failures: Mapping[Cell, str], *, made_by: str) -> str:
    """HTML. `made_by` is the command that makes the same page again."""
    comparison = Comparison([entry.run for entry in entries.values()])
    known = [*comparison.regrets, *(policy for policy in comparison.policies if policy not in comparison.regrets)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cells = [*entries, *failures]
    files = {cell.trial.cluster.name: cell.file for cell in cells}
    return environment.get_template("page.html.jinja").render(
        comparison=comparison,
        policies=known,
        colour=pictures.colours(known),
        sections=[_section(comparison, place, known, entries) for place in comparison.places],
        places={(place.task, place.cluster): index for index, place in enumerate(comparison.places)},
        clusters={name: about_cluster(file) for name, file in files.items()},
        devices={cell.trial.cluster.name: len(cell.trial.cluster.devices) for cell in cells},
        tasks={name: about_task(name) for name in dict.fromkeys(cell.trial.task for cell in cells)},
        about={name: about_policy(name) for name in known},
        failures=[(cell.label, cause) for cell, cause in failures.items()],
        seeds=len({cell.trial.seed for cell in cells}),
        lanes={"computes": pictures.COMPUTE, "sends": pictures.UP, "receives": pictures.DOWN, "is off": pictures.OFF},
        patience=PATIENCE,
        seeds_min=SEEDS_MIN,
        regret_shown_max=REGRET_SHOWN_MAX,
        words=report,
        made_by=made_by,
    )


def _section(
    comparison: Comparison, place: Place, policies: Sequence[str], entries: Mapping[Cell, Entry]
) -> dict[str, Any]:
    figures = comparison.figures[place]
    runs = [run for policy in policies if policy in figures for run in figures[policy].runs]
    colour = pictures.colours(policies)
    first: dict[str, Entry] = {}
    for entry in entries.values():
        run = entry.run
        if (run["task"], run["cluster"]) == (place.task, place.cluster):
            first.setdefault(run["policy"], entry)
    return {
        "place": place,
        "target": max(run["target_accuracy"] for run in runs),
        "fastest": comparison.fastest(place),
        "rows": [_row(comparison, place, policy, first.get(policy)) for policy in policies],
        "over_time": pictures.accuracy_over_time(runs, colour),
        "over_bytes": pictures.accuracy_over_bytes(runs, colour),
    }


def _row(comparison: Comparison, place: Place, policy: str, entry: Entry | None) -> Row:
    figures = comparison.figures[place].get(policy)
    regrets = comparison.regrets.get(policy)
    runs = figures.runs if figures else ()
    return Row(
        policy=policy,
        figures=figures,
        regret=None if regrets is None else regrets.cells[comparison.places.index(place)],
        fastest=comparison.fastest(place) == policy,
        thriftiest=comparison.thriftiest(place) == policy,
        balance=_middle_percent([run["balance_efficiency"] for run in runs]),
        accuracy=_middle_percent([run["final_accuracy"] for run in runs]),
        picture=pictures.who_was_busy(entry.activity, seconds=entry.run["seconds_total"])
        if entry is not None and entry.run["seconds_total"]
        else "",
    )


def _middle_percent(fractions: Sequence[float | None]) -> str:
    known = sorted(fraction for fraction in fractions if fraction is not None)
    return f"{100 * known[(len(known) - 1) // 2]:.1f} %" if known else "–"
