"""The balance of a cluster's work over its processors: `balance_efficiency` (docs/experiments.md)."""

import math
from collections.abc import Iterable, Sequence

import attrs

from crowd.experiment.metering import Span


@attrs.frozen(kw_only=True)
class ComputeTrace:
    """The trace of one device's computation, and of its speed."""

    spans: tuple[Span, ...]
    speeds: tuple[tuple[float, int], ...]
    """Speed from each moment on: `(from_s, speed_kflops)`, in order; a speed of 0 while the device is switched off."""


def balance_efficiency(compute_traces: Iterable[ComputeTrace], *, from_s: float, until_s: float) -> float | None:
    """The balance of a cluster between two moments: the work that was done, over what the devices that did any of it
    could have done in the time in which at least one of them computed.

    The time in which nobody does, exposed communication, counts for nothing. 1 if all participants compute all that
    time. `None` if nobody computed.
    """
    participants = [trace for trace in compute_traces if any(_within(span, from_s, until_s) for span in trace.spans)]
    spans = [span for trace in participants for span in trace.spans]
    possible_flops = sum(
        _possible_flops(trace.speeds, began_s, ended_s)
        for began_s, ended_s in _union([(max(span.began_s, from_s), min(span.ended_s, until_s)) for span in spans])
        for trace in participants
    )
    done_flops = sum(
        span.flops * _within(span, from_s, until_s) / (span.ended_s - span.began_s or 1.0) for span in spans
    )
    return done_flops / possible_flops if possible_flops else None


def _within(span: Span, from_s: float, until_s: float) -> float:
    """Seconds of `span` between the two moments."""
    return max(0.0, min(span.ended_s, until_s) - max(span.began_s, from_s))


def _union(intervals: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union of `intervals`, in intervals that do not touch, in order; those that are empty or reversed hold
    nothing."""
    joined: list[tuple[float, float]] = []
    for began_s, ended_s in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if joined and began_s <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], ended_s))
        else:
            joined.append((began_s, ended_s))
    return joined


def _possible_flops(speeds: Sequence[tuple[float, int]], from_s: float, until_s: float) -> float:
    later_s = [*(time_s for time_s, _ in speeds[1:]), math.inf]
    return sum(
        max(0.0, min(until_s, next_s) - max(from_s, time_s)) * speed_kflops * 1000
        for (time_s, speed_kflops), next_s in zip(speeds, later_s, strict=True)
    )
