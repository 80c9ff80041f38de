"""The common output of commands on a terminal: a run in one line (`verdict`, `summary`), samples that nobody trains
(`idle_lines`), and `bar`."""

from collections.abc import Mapping
from typing import Any

from rich.progress_bar import ProgressBar

from crowd.formatting import seconds, size

BAR_STYLE = "cyan"
"""Style of a bar, whatever its length: a short bar is no alarm, and a full one no success."""


BAR_WIDTH = 40


def bar(fraction: float, *, width: int = BAR_WIDTH) -> ProgressBar:
    """A bar of `width` cells, filled to `fraction` of it."""
    completed = min(1.0, max(0.0, fraction))
    return ProgressBar(total=1.0, completed=completed, width=width, complete_style=BAR_STYLE, finished_style=BAR_STYLE)


def summary(record: Mapping[str, Any], digest: str | None) -> str:
    """The verdict on a run and the digest of its model, in one line for people."""
    return f"{verdict(record)}, model {digest}"


def idle_lines(idle: Mapping[str, tuple[int, str]]) -> list[str]:
    """A line for each device with samples that nobody trains: how many, and why."""
    return [f"idle: {samples:,} samples of {device}, {reason}" for device, (samples, reason) in sorted(idle.items())]


def verdict(record: Mapping[str, Any]) -> str:
    """The outcome of a run, in one line for people."""
    target, accuracy = record["target_accuracy"], record["final_accuracy"]
    if record["reached"]:
        reached = "reached"
    elif record.get("diverged"):
        reached = "diverged before"
    else:
        reached = "did not reach" if record.get("stopped_after_s") is None else "was stopped before"
    rounds = "1 round" if record["rounds"] == 1 else f"{record['rounds']} rounds"
    found = "nothing was evaluated" if accuracy is None else f"{accuracy:.1%} accuracy"
    return (
        f"{reached} the target of {target:.1%}: {found}, {rounds}, "
        f"{seconds(record['seconds_total'])}, {size(record['bytes_total'])}"
    )
