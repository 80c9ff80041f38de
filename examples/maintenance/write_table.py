"""Writes the comparison into the README, between the two marks: the tables of `crowd bench --json runs.json`.

python examples/maintenance/write_table.py runs.json
"""

import argparse
import sys
from pathlib import Path

from crowd.bench.report import Comparison, markdown
from crowd.bench.runs import read_runs
from crowd.errors import BadConfig

BEGIN, END = "<!-- comparison: begin -->", "<!-- comparison: end -->"
README = Path(__file__).parents[2] / "README.md"


def with_table(text: str, table: str) -> str:
    """`text` with `table` between its marks. Raises `ValueError` if it has not one of each, in order."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"expected one {BEGIN} and after it one {END}")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="what crowd bench --json has written")
    parser.add_argument("--into", type=Path, default=README, help="the file with the marks (default: the README)")
    arguments = parser.parse_args()
    try:
        comparison = Comparison(read_runs(arguments.runs))
        text = with_table(arguments.into.read_text(encoding="utf-8"), markdown(comparison))
        arguments.into.write_text(text, encoding="utf-8")
    except (BadConfig, OSError, ValueError) as error:
        sys.exit(f"write_table: {error}")


if __name__ == "__main__":
    main()
