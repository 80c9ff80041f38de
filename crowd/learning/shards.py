"""Samples by name: `SampleStore` (a device's own) and `LentSamples` (those that it borrowed).

A sample is named by `(Source, label, position)`: its data set, and its position in the lender's seeded order of that
label. Both sides know positions only; a plan names them as `Range`s.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeAlias

import attrs
import numpy as np
import torch
from torch import Tensor

from crowd.errors import MalformedMessage
from crowd.learning.samples import DTYPES, SampleFormat, SampleSet, as_bytes, seeded
from crowd.planning.plan import Plan, Range
from crowd.units import DeviceId, Life

Rows: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
"""Row numbers of a tensor of samples, or positions in an order: (rows,) int64."""

NOT_HERE = -1
"""Stands in `Rows` for a sample that has not arrived."""
POSITION_MAX = 2**31
"""Largest position that a lender may name."""
_NO_ROWS: Rows = np.empty(0, dtype=np.int64)


@attrs.frozen(kw_only=True, order=True)
class Source:
    """One data set of one life of a lender."""

    device: DeviceId
    life: Life
    data_epoch: int


class SampleHeader(Protocol):
    """The header of lent samples; `protocol.messages.Samples` is one."""

    @property
    def lender(self) -> DeviceId: ...
    @property
    def life(self) -> Life: ...
    @property
    def data_epoch(self) -> int: ...
    @property
    def ranges(self) -> tuple[Range, ...]: ...
    @property
    def input_dtype(self) -> str: ...
    @property
    def input_shape(self) -> tuple[int, ...]: ...
    @property
    def label_dtype(self) -> str: ...
    @property
    def label_shape(self) -> tuple[int, ...]: ...


Ranges = tuple[Range, ...]


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
    """A device's own training samples, in a seeded order per label that every replan keeps, so that only differences
    travel."""

    def __init__(self, samples: SampleSet, *, device: DeviceId, data_epoch: int) -> None:
        self.samples = samples
        """The samples in the data set's order; `LentSamples` may replace the set by an equal one."""
        self.format = samples.format
        labels = samples.labels.numpy() if self.format.has_classes else np.zeros(len(samples), dtype=np.int64)
        self.label_counts: tuple[int, ...] = tuple(np.bincount(labels).tolist()) if len(samples) else ()
        """Samples by label, up to the largest label held; a task without classes has one label."""
        self._orders = [
            np.flatnonzero(labels == label)[seeded("order", device, data_epoch, label).permutation(count)]
            for label, count in enumerate(self.label_counts)
        ]

    def rows(self, ranges: Iterable[Range]) -> Rows:
        """The rows of `samples` at these positions, in the order of the ranges. Raises `MalformedMessage` for positions
        that do not exist."""
        picked = [_NO_ROWS]
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


class LentSamples:
    """Borrowed samples, in memory only.

    They are rows behind the device's own in the same tensors, so that a batch is one gather and nothing is held twice
    (the store then shows its part of them). Rows once written are never moved or changed: dropping samples makes new
    tensors, so a `TrainingPool` stays valid (and keeps the old ones) until it is refreshed.
    """

    def __init__(self, store: SampleStore) -> None:
        self.format = store.format
        self._store = store
        self._held: dict[tuple[Source, int], tuple[Rows, Rows]] = {}
        """Borrowed samples by source and label: sorted positions, and the row of each."""
        self._own = len(store.samples)
        self._used = self._own
        self.samples = store.samples
        """All rows: the device's own, the borrowed ones, and those that are reserved."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the borrowed samples, without what is reserved for those to come."""
        return (self._used - self._own) * self.format.sample_bytes

    def add(self, header: SampleHeader, data: bytes) -> None:
        """Keep samples that a lender sent; those already here are left as they are. Sizes are checked before anything
        is allocated. Raises `MalformedMessage` for another format, ranges that are no ranges or overlap, a wrong number
        of bytes, values that are not finite, or labels that are not those of their range."""
        _check_header(header, data, self.format)
        source = Source(device=header.lender, life=header.life, data_epoch=header.data_epoch)
        count = sum(span.stop - span.start for span in header.ranges)
        split = count * self.format.input_bytes
        inputs = np.frombuffer(data, dtype=np.uint8, count=split).reshape(count, -1)
        labels = np.frombuffer(data, dtype=np.uint8, offset=split).reshape(count, -1)
        self._check_values(inputs, labels, header.ranges)
        start = 0
        for span in header.ranges:
            positions = np.arange(span.start, span.stop)
            new = np.flatnonzero(self._rows(source, span.label, positions) == NOT_HERE)
            rows = self._reserve(len(new))
            as_bytes(self.samples.inputs).reshape(-1, inputs.shape[1])[rows] = inputs[start + new]
            as_bytes(self.samples.labels).reshape(-1, labels.shape[1])[rows] = labels[start + new]
            self._remember(source, span.label, positions[new], rows)
            start += len(positions)

    def rows(self, source: Source, ranges: Iterable[Range]) -> Rows:
        """The rows of `samples` at these positions of `source`; `NOT_HERE` where a sample has not arrived."""
        found = [self._rows(source, span.label, np.arange(span.start, span.stop)) for span in ranges]
        return np.concatenate([_NO_ROWS, *found])

    def missing(self, source: Source, ranges: Iterable[Range]) -> Ranges:
        """The parts of `ranges` that have not arrived: merged, sorted by label and start."""
        by_label: dict[int, list[Rows]] = {}
        for span in ranges:
            by_label.setdefault(span.label, []).append(np.arange(span.start, span.stop))
        gaps: list[Range] = []
        for label in sorted(by_label):
            wanted = np.unique(np.concatenate(by_label[label]))
            absent = wanted[self._rows(source, label, wanted) == NOT_HERE]
            runs = np.split(absent, np.flatnonzero(np.diff(absent) > 1) + 1)
            gaps.extend(Range(label=label, start=int(run[0]), stop=int(run[-1]) + 1) for run in runs if len(run))
        return tuple(gaps)

    def keep_only(self, borrowed: Mapping[Source, Ranges]) -> None:
        """Forget all samples that an active plan does not name, and make room for all that it does."""
        kept: dict[tuple[Source, int], tuple[Rows, Rows]] = {}
        for source, ranges in borrowed.items():
            for label in {span.label for span in ranges}:
                wanted = [np.arange(span.start, span.stop) for span in ranges if span.label == label]
                positions = np.unique(np.concatenate(wanted))
                rows = self._rows(source, label, positions)
                kept[source, label] = (positions[rows != NOT_HERE], rows[rows != NOT_HERE])
        self._keep(kept, sum(span.stop - span.start for ranges in borrowed.values() for span in ranges))

    def drop(self, lender: DeviceId, life: Life) -> None:
        """Forget everything that `lender` lent in this life or before."""
        self._keep({key: held for key, held in self._held.items() if key[0].device != lender or key[0].life > life}, 0)

    def _rows(self, source: Source, label: int, positions: Rows) -> Rows:
        held, rows = self._held.get((source, label), (positions[:0], positions[:0]))
        if not len(held):
            return np.full(len(positions), NOT_HERE, dtype=np.int64)
        places = np.minimum(np.searchsorted(held, positions), len(held) - 1)
        return np.where(held[places] == positions, rows[places], NOT_HERE)

    def _remember(self, source: Source, label: int, positions: Rows, rows: Rows) -> None:
        held, held_rows = self._held.get((source, label), (positions[:0], rows[:0]))
        positions, rows = np.concatenate([held, positions]), np.concatenate([held_rows, rows])
        order = np.argsort(positions)
        self._held[source, label] = (positions[order], rows[order])

    def _keep(self, kept: dict[tuple[Source, int], tuple[Rows, Rows]], capacity: int) -> None:
        """Forget all samples but `kept`, and make room for so many borrowed ones."""
        rows = np.concatenate([_NO_ROWS, *(rows for _, rows in kept.values())])
        if len(rows) == self._used - self._own and capacity <= len(self.samples) - self._own:
            self._held = {key: held for key, held in kept.items() if len(held[0])}
            return
        self._allocate(rows, max(capacity, len(rows)))
        self._held, start = {}, self._own
        for key, (positions, old) in kept.items():
            if len(old):
                self._held[key] = (positions, np.arange(start, start + len(old)))
                start += len(old)

    def _reserve(self, count: int) -> Rows:
        """Reserve rows for so many new samples; doubles the memory where `keep_only` has not made room."""
        needed = self._used + count
        if needed > len(self.samples):
            borrowed = np.arange(self._own, self._used)
            self._allocate(borrowed, max(needed - self._own, 2 * len(borrowed)))
        rows = np.arange(self._used, needed)
        self._used = needed
        return rows

    def _allocate(self, kept: Rows, capacity: int) -> None:
        """Make new tensors with the own samples, then these borrowed rows, then room up to `capacity` borrowed ones."""
        old, start, stop = self.samples, self._own, self._own + len(kept)
        grown = []
        for tensor in (old.inputs, old.labels):
            larger = tensor.new_empty((self._own + capacity, *tensor.shape[1:]))
            larger[:start] = tensor[:start]
            larger[start:stop] = tensor[torch.from_numpy(kept)]
            grown.append(larger)
        self.samples = SampleSet(grown[0], grown[1])
        self._store.samples = SampleSet(grown[0][:start], grown[1][:start])
        self._used = stop

    def _check_values(self, inputs: Any, labels: Any, ranges: Ranges) -> None:
        for block, name in ((inputs, self.format.input_dtype), (labels, self.format.label_dtype)):
            dtype = DTYPES[name]
            # torch.frombuffer would warn that the received bytes are read-only; a copy of them is the tensor's own.
            if dtype.is_floating_point and not bool(torch.isfinite(torch.from_numpy(block.copy()).view(dtype)).all()):
                raise MalformedMessage("lent samples must be finite")
        if self.format.has_classes:
            named = np.repeat([span.label for span in ranges], [span.stop - span.start for span in ranges])
            if not np.array_equal(np.ascontiguousarray(labels).view(np.int64).reshape(-1), named):
                raise MalformedMessage("lent samples do not have the labels that their ranges name")


def _check_header(header: SampleHeader, data: bytes, form: SampleFormat) -> None:
    given = (header.input_dtype, header.input_shape, header.label_dtype, header.label_shape)
    if given != (form.input_dtype, form.input_shape, form.label_dtype, form.label_shape):
        raise MalformedMessage(f"{header.lender} lends samples of the format {given}; expected {form}")
    end: dict[int, int] = {}
    for span in sorted(header.ranges, key=lambda span: (span.label, span.start)):
        if not end.get(span.label, 0) <= span.start < span.stop <= POSITION_MAX or span.label < 0:
            raise MalformedMessage(f"{header.lender} lends {span}: empty, out of range, or it overlaps another")
        end[span.label] = span.stop
    expected = sum(span.stop - span.start for span in header.ranges) * form.sample_bytes
    if len(data) != expected or not data:
        raise MalformedMessage(f"{header.lender} lends {expected} bytes of samples by its ranges, but {len(data)} came")
