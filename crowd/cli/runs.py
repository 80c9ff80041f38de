"""`crowd runs`: the runs that a device has ended."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from crowd.cli.files import state_store
from crowd.formatting import quality
from crowd.model_card import ModelCard
from crowd.run_list import RUNS_FILE, read_runs

HEADINGS = ("run", "ended", "value", "target", "rounds", "epochs", "samples", "devices", "model")


def runs(*, state_dir: Path) -> None:
    """List the runs that a device has ended, the latest last.

    Parameters
    ----------
    state_dir
        The state_dir of the device's node.toml.
    """
    data = state_store(state_dir).read(RUNS_FILE)
    if data is None:
        print("no run has ended here yet")
        return
    cards = read_runs(data, state_dir / RUNS_FILE)
    rows = [HEADINGS, *(_row(before, card) for before, card in zip((None, *cards), cards, strict=False))]
    widths = [max(map(len, column)) for column in itertools.islice(zip(*rows, strict=True), len(HEADINGS) - 1)]
    for row in rows:
        print(_line(row, widths))


def _row(before: ModelCard | None, card: ModelCard) -> Sequence[str]:
    stays = before is not None and before.sha256 == card.sha256
    return (
        str(card.run),
        f"{card.time:%Y-%m-%d %H:%M}",
        "-" if card.value is None else f"{quality(card.metric, card.value)} {card.metric}",
        "-" if card.target is None else quality(card.metric, card.target),
        f"{card.rounds:,}",
        f"{card.epochs:.1f}",
        f"{card.samples_trained:,}",
        "-" if card.data is None else str(len(card.data)),
        "as before" if stays else card.digest[:8],
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """The row with numbers to the right."""
    *cells, model = row
    return "  ".join([*(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)), model])
