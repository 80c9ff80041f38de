"""Writes the comparison into the documents, between their marks: all tables of `crowd bench --json runs.json` into
docs/comparison.md, the headline into the README.

python examples/maintenance/write_table.py runs.json
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from crowd.bench.report import Comparison, Scenario, bytes_words, markdown, percent_words, seconds_words
from crowd.bench.runs import read_runs
from crowd.errors import BadConfig

ROOT = Path(__file__).parents[2]
COMPARISON, README = ROOT / "docs" / "comparison.md", ROOT / "README.md"
TABLES, HEADLINE = "comparison", "headline"
"""What is between the marks of each."""

POLICIES = ("crowd_learning", "ship_once", "fedprox", "diloco", "fedavg", "fedbuff", "all_reduce_balanced")
SCENARIOS = tuple(Scenario(task="fashion", cluster=cluster) for cluster in ("smart-home", "all-pis", "flaky-garage"))
"""Of the headline, as far as there are runs of them."""


def with_table(text: str, name: str, table: str) -> str:
    """`text` with `table` between the marks of that name. Raises `ValueError` if it has not one of each, in order."""
    first, last = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end or first in rest or last in after:
        raise ValueError(f"expected one {first} and after it one {last}")
    return f"{before}{first}\n\n{table}\n{last}{after}"


def headline(comparison: Comparison) -> str:
    """A few methods on a few clusters, and what they came to on all: medians over the seeds, the least in bold."""
    policies = [policy for policy in POLICIES if policy in comparison.policies]
    scenarios = [scenario for scenario in SCENARIOS if scenario in comparison.metrics]
    head = ["", *(f"{scenario.task}, {scenario.cluster}" for scenario in scenarios), "reached", "median regret"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    rows += [[f"`{policy}`", *_cells(comparison, scenarios, policy)] for policy in policies]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(comparison: Comparison, scenarios: list[Scenario], policy: str) -> Iterator[str]:
    for scenario in scenarios:
        metrics = comparison.metrics[scenario].get(policy)
        if metrics is None:
            yield comparison.why_missing(scenario, policy)
            continue
        seconds, traffic = seconds_words(metrics.seconds.median), bytes_words(metrics.traffic.median)
        seconds = f"**{seconds}**" if policy in comparison.fastest(scenario) else seconds
        yield f"{seconds}, {traffic}"
    reached, runs = comparison.reached(policy)
    yield f"{reached} of {runs}"
    regret = comparison.regrets.get(policy)
    yield "" if regret is None else percent_words(regret.median)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the comparison into the documents, between their marks.")
    parser.add_argument("runs", type=Path, help="what crowd bench --json has written")
    parser.add_argument("--into", type=Path, default=COMPARISON, help="for all tables (default: docs/comparison.md)")
    parser.add_argument("--headline", type=Path, default=README, help="for the headline (default: the README)")
    arguments = parser.parse_args()
    try:
        comparison = Comparison(read_runs(arguments.runs))
        files = {arguments.into: (TABLES, markdown(comparison)), arguments.headline: (HEADLINE, headline(comparison))}
        texts = {file: with_table(file.read_text(encoding="utf-8"), *table) for file, table in files.items()}
        for file, text in texts.items():
            file.write_text(text, encoding="utf-8")
    except (BadConfig, OSError, ValueError) as error:
        sys.exit(f"write_table: {error}")


if __name__ == "__main__":
    main()
