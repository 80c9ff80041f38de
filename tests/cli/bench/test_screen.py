"""What `crowd bench` shows meanwhile."""

import io

import pytest
from rich.console import Console

from crowd.bench.matrix import CellStatus
from crowd.cli.bench.screen import BenchScreen
from tests.bench.runs import cell, entry, run


def play(*, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=160, color_system=None)
    cells = [cell(policy) for policy in ("fedavg", "diloco", "ship_once", "all_reduce")]
    with BenchScreen(console, len(cells)) as screen:
        screen.found(cells[0])
        for each in cells[1:]:
            screen.began(each)
        screen.heard(cells[1], CellStatus(round=4, elapsed_s=12.5, metric="accuracy", value=0.42))
        screen.ended(cells[2], entry(run("ship_once", 8.0)))
        screen.failed(cells[3], "ValueError: [bold]no[/bold]")
        screen._live.refresh()
    return file.getvalue()


def test_cells_that_end_are_told_as_they_do() -> None:
    lines = play(terminal=False).splitlines()
    assert lines[0] == (
        "home, digits, ship_once, seed 0: reached the target of 95.0%: 96.0% accuracy, 2 rounds, 8.0 s, 8.0 MB"
    )
    assert lines[1] == "home, digits, all_reduce, seed 0: failed: ValueError: [bold]no[/bold]"
    assert lines[2].startswith("3 of 4 runs, 1 of them known before, 1 failed, in ")


@pytest.mark.parametrize(
    "words",
    ["3 of 4 runs, 1 of them known before, 1 failed, about ", " left", "round 4, 42.0%, 12.5 s simulated", "diloco"],
)
def test_a_terminal_shows_what_is_done_and_what_is_under_way(words: str) -> None:
    assert words in play(terminal=True)
