"""A run in one line for people: `verdict` and `summary`."""

from collections.abc import Mapping
from typing import Any

from crowd.formatting import duration, size
from crowd.units import SECOND_US


def summary(record: Mapping[str, Any], digest: str | None) -> str:
    """The verdict on a run and the digest of its model, in one line for people."""
    return f"{verdict(record)}, model {digest}"


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
        f"{duration(int(record['seconds_total'] * SECOND_US))}, {size(record['bytes_total'])}"
    )
