"""The common output of commands on a terminal: a run in one line (`verdict`, `summary`), samples that nobody trains
(`idle_lines`) and those that hardly were trained (`hardly_trained_lines`), a round (`round_words`), how far it is to
the target (`progress_to`), and `bar`."""

from collections.abc import Mapping
from typing import Any

from rich.progress_bar import ProgressBar

from crowd.formatting import quality, seconds, size
from crowd.metric_facts import LOWER

BAR_STYLE = "cyan"
"""Style of a bar, whatever its length: a short bar is no alarm, and a full one no success."""


BAR_WIDTH = 40


def bar(fraction: float, *, width: int = BAR_WIDTH) -> ProgressBar:
    """A bar of `width` cells, filled to `fraction` of it."""
    completed = min(1.0, max(0.0, fraction))
    return ProgressBar(total=1.0, completed=completed, width=width, complete_style=BAR_STYLE, finished_style=BAR_STYLE)


def progress_to(target: float | None, value: float | None, *, better: str) -> float:
    """How much of the way to the target a value is, from 0 to 1; without a target, or for a value of no use, 0."""
    if target is None or value is None:
        return 0.0
    part, whole = (target, value) if better == LOWER else (value, target)
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0


def round_words(number: int, metric: str, value: float | None, loss: float | None) -> str:
    """A round for people: its number, the value of the metric, and the mean training loss."""
    found = "-  " if value is None else quality(metric, value)
    return f"round {number:3d}  {found:>6}  {'' if loss is None else f'loss {loss:.3g}':<11}"


def summary(record: Mapping[str, Any], digest: str | None) -> str:
    """The verdict on a run and the digest of its model, in one line for people."""
    return f"{verdict(record)}, model {digest}"


def idle_lines(idle: Mapping[str, tuple[int, str]]) -> list[str]:
    """A line for each device with samples that nobody trains: how many, and why."""
    return [f"idle: {samples:,} samples of {device}, {reason}" for device, (samples, reason) in sorted(idle.items())]


def hardly_trained_lines(found: Mapping[str, tuple[int, str]] | None) -> list[str]:
    """A line for each device with samples that were planned to be trained and hardly were: how many, and why."""
    return [
        f"hardly trained: {samples:,} samples of {device}: {why}"
        for device, (samples, why) in sorted((found or {}).items())
    ]


def verdict(record: Mapping[str, Any]) -> str:
    """The outcome of a run, in one line for people."""
    metric, target, value = record["metric"], record["target"], record["final_value"]
    if record["reached"]:
        reached = "reached"
    elif record.get("diverged"):
        reached = "diverged before"
    else:
        reached = "did not reach" if record.get("stopped_after_s") is None else "was stopped before"
    goal = "its end" if target is None else f"the target of {quality(metric, target)}"
    rounds = "1 round" if record["rounds"] == 1 else f"{record['rounds']} rounds"
    found = "nothing was evaluated" if value is None else f"{quality(metric, value)} {metric}"
    return f"{reached} {goal}: {found}, {rounds}, {seconds(record['seconds_total'])}, {size(record['bytes_total'])}"
