"""Samples by name: what a plan assigns to a trainer (`share_of`), and a device's own samples (`SampleStore`).

A sample is named by `(Source, label, position)`: its data set, and its position in the lender's order of that label,
which is that of the samples' keys. Both sides know positions only; a plan names them as `Range`s.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import attrs
import numpy as np
import torch
from torch import Tensor

from crowd.errors import MalformedMessage
from crowd.learning.keys import keys_of
from crowd.learning.samples import SampleSet, as_bytes
from crowd.planning.plan import Plan, Range
from crowd.units import DeviceId, Life

Rows: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
"""Row numbers of a tensor of samples, or positions in an order: (rows,) int64."""

NO_ROWS: Rows = np.empty(0, dtype=np.int64)


@attrs.frozen(kw_only=True, order=True)
class Source:
    """One data set of one life of a lender."""

    device: DeviceId
    life: Life
    data_epoch: int


Ranges = tuple[Range, ...]


def without(ranges: Ranges, others: Ranges) -> Ranges:
    """The parts of `ranges` that are not in `others`: merged, sorted by label and start."""
    gone = positions_of(others)
    return as_ranges(
        {label: np.setdiff1d(positions, gone.get(label, NO_ROWS)) for label, positions in positions_of(ranges).items()}
    )


def positions_of(ranges: Ranges) -> dict[int, Rows]:
    """Sorted positions by label, each once."""
    by_label: dict[int, list[Rows]] = {}
    for span in ranges:
        by_label.setdefault(span.label, []).append(np.arange(span.start, span.stop))
    return {label: np.unique(np.concatenate(by_label[label])) for label in sorted(by_label)}


def as_ranges(positions: Mapping[int, Rows]) -> Ranges:
    found: list[Range] = []
    for label, wanted in positions.items():
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
        found.extend(Range(label=label, start=int(run[0]), stop=int(run[-1]) + 1) for run in runs if len(run))
    return tuple(found)


def share_of(plan: Plan, trainer: DeviceId, data_epochs: Mapping[DeviceId, int]) -> tuple[Ranges, dict[Source, Ranges]]:
    """The samples that `plan` assigns to `trainer`: ranges of its own, and ranges by source that it borrows.
    `data_epochs` has the epoch of every lender, from the profiles that the plan was made from."""
    lives = {member.device: member.life for member in plan.members}
    own: Ranges = ()
    borrowed: dict[Source, Ranges] = {}
    for assignment, ranges in plan.ranges():
        if assignment.trainer != trainer or not ranges:
            continue
        lender = assignment.lender
        if lender == trainer:
            own += ranges
        else:
            source = Source(device=lender, life=lives[lender], data_epoch=data_epochs[lender])
            borrowed[source] = borrowed.get(source, ()) + ranges
    return own, borrowed


class SampleStore:
    """A device's own training samples, in an order per label that follows from the samples alone, as if it were drawn:
    by their keys. Every replan keeps it, and in a data set that has grown the new ones are all over it, so that equal
    parts of it are nearly the same samples as before, and only differences travel."""

    def __init__(self, samples: SampleSet) -> None:
        self.samples = samples
        """The samples in the data set's order; `LentSamples` may replace the set by an equal one."""
        self.format = samples.format
        labels = samples.labels.numpy() if self.format.has_classes else np.zeros(len(samples), dtype=np.int64)
        self.label_counts: tuple[int, ...] = tuple(np.bincount(labels).tolist()) if len(samples) else ()
        """Samples by label, up to the largest label held; a task without classes has one label."""
        self._keys = keys_of(samples)
        order = np.argsort(self._keys, kind="stable")
        self._orders = [order[labels[order] == label] for label in range(len(self.label_counts))]

    def rows(self, ranges: Iterable[Range]) -> Rows:
        """The rows of `samples` at these positions, in the order of the ranges. Raises `MalformedMessage` for positions
        that do not exist."""
        picked = [NO_ROWS]
        for span in ranges:
            held = self.label_counts[span.label] if 0 <= span.label < len(self.label_counts) else 0
            if not 0 <= span.start < span.stop <= held:
                raise MalformedMessage(f"{span} names samples that are not here: {held} have this label")
            picked.append(self._orders[span.label][span.start : span.stop])
        return np.concatenate(picked)

    def take(self, ranges: Iterable[Range]) -> tuple[Tensor, Tensor]:
        """Copies of the samples in these ranges as `(inputs, labels)`, in the order of the ranges: (samples,
        *input_shape) and (samples, *label_shape). Raises `MalformedMessage` like `rows`."""
        rows = torch.from_numpy(self.rows(ranges))
        return self.samples.inputs[rows], self.samples.labels[rows]

    def to_bytes(self, ranges: Iterable[Range]) -> bytes:
        """The samples in these ranges as they travel: all inputs, then all labels, raw (of the format `format`)."""
        inputs, labels = self.take(ranges)
        return as_bytes(inputs).tobytes() + as_bytes(labels).tobytes()

    def names(self, ranges: Iterable[Range]) -> bytes:
        """The keys of the samples in these ranges as they travel: `KEY_BYTES` each. Raises `MalformedMessage` like
        `rows`."""
        return self._keys[self.rows(ranges)].tobytes()
