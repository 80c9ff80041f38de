"""The activity of devices over a run: how much of each equal part of it a device computed, sent, received or was
off."""

import itertools
import math
from collections.abc import Sequence

import attrs
import numpy as np

from crowd.experiment.balance import ComputeTrace
from crowd.experiment.metering import LinkBusy

PARTS = 400
"""Equal parts of a run: a picture has about as many columns to show them, and a cell of seven devices stays at 30
kB."""

Spans = Sequence[tuple[float, float]]


@attrs.frozen(kw_only=True)
class Activity:
    """One device over a run: percent of the time that it so spent, for each of `PARTS` equal parts of it. All are empty
    for a run that took no time."""

    compute: list[int]
    up: list[int]
    down: list[int]
    off: list[int]


def activity(trace: ComputeTrace, transfers: LinkBusy | None, *, end_s: float) -> Activity:
    """The activity of one device from the beginning of the run to `end_s`."""
    later_s = [*(from_s for from_s, _ in trace.speeds[1:]), math.inf]
    off = [(from_s, to_s) for (from_s, speed), to_s in zip(trace.speeds, later_s, strict=True) if not speed]
    return Activity(
        compute=percents([(span.began_s, span.ended_s) for span in trace.spans], end_s=end_s),
        up=percents(transfers.up if transfers else (), end_s=end_s),
        down=percents(transfers.down if transfers else (), end_s=end_s),
        off=percents(off, end_s=end_s),
    )


def percents(spans: Spans, *, end_s: float) -> list[int]:
    """Percent of each equal part of the time from 0 to `end_s` that is within `spans`, which do not overlap and are in
    order."""
    if end_s <= 0.0:
        return []
    clipped = [(max(0.0, began_s), min(end_s, ended_s)) for began_s, ended_s in spans]
    clipped = [(began_s, ended_s) for began_s, ended_s in clipped if began_s < ended_s]
    busy_s = list(itertools.accumulate((ended_s - began_s for began_s, ended_s in clipped), initial=0.0))
    moments = [moment for span in clipped for moment in span]
    at_moments = [busy_s[(index + 1) // 2] for index in range(len(moments))]
    edges = np.linspace(0.0, end_s, PARTS + 1)
    at_edges = np.interp(edges, moments, at_moments) if moments else np.zeros(PARTS + 1)
    return [round(float(share)) for share in 100 * PARTS / end_s * np.diff(at_edges)]
