"""The samples that a device has borrowed: `LentSamples`."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import torch

from crowd.errors import MalformedMessage
from crowd.learning.keys import KEY_BYTES, keys_of
from crowd.learning.samples import DTYPES, SampleFormat, SampleSet, as_bytes
from crowd.learning.shards import NO_ROWS, Ranges, Rows, SampleStore, Source, as_ranges, positions_of
from crowd.planning.plan import Range
from crowd.units import DeviceId, Life

NOT_HERE = -1
"""Stands in `Rows` for a sample that has not arrived."""
POSITION_MAX = 2**31
"""Largest position that a lender may name."""


class NamesHeader(Protocol):
    """The header of samples' keys; `protocol.messages.SampleNames` is one."""

    @property
    def lender(self) -> DeviceId: ...
    @property
    def life(self) -> Life: ...
    @property
    def data_epoch(self) -> int: ...
    @property
    def ranges(self) -> tuple[Range, ...]: ...


class SampleHeader(NamesHeader, Protocol):
    """The header of lent samples; `protocol.messages.Samples` is one."""

    @property
    def input_dtype(self) -> str: ...
    @property
    def input_shape(self) -> tuple[int, ...]: ...
    @property
    def label_dtype(self) -> str: ...
    @property
    def label_shape(self) -> tuple[int, ...]: ...


class LentSamples:
    """Borrowed samples, in memory only.

    They are rows behind the device's own in the same tensors, so that a batch is one gather and nothing is held twice
    (the store then shows its part of them). Rows once written are never moved, nor changed where a plan names them:
    dropping these makes new tensors, so a `TrainingPool` stays valid (and keeps the old ones) until it is refreshed.
    Rows that no plan names are wiped when they are dropped, and used again.
    """

    def __init__(self, store: SampleStore) -> None:
        self.format = store.format
        self._store = store
        self._held: dict[tuple[Source, int], tuple[Rows, Rows]] = {}
        """Borrowed samples by source and label: sorted positions, and the row of each."""
        self._own = len(store.samples)
        self._used = self._own
        self._free = NO_ROWS
        """Rows of samples that were dropped."""
        self._unnamed: set[Source] = set()
        """Sources that the plan does not name, of which something is kept."""
        self.samples = store.samples
        """All rows: the device's own, the borrowed ones, and those that are reserved."""

    def replace_own(self, store: SampleStore) -> None:
        """The device has the samples of `store`, of the same format, in the place of its own. What is borrowed
        stays."""
        borrowed, moved = np.arange(self._own, self._used), len(store.samples) - self._own
        self._store = store
        if len(self.samples) == self._own:  # nothing is borrowed, nor is there room for it
            self.samples = store.samples
            self._own = self._used = len(store.samples)
            return
        self._allocate(borrowed, len(self.samples) - self._own)
        self._held = {key: (positions, rows + moved) for key, (positions, rows) in self._held.items()}
        self._free = self._free + moved

    @property
    def size_bytes(self) -> int:
        """Bytes of the borrowed samples, without what is reserved for those to come."""
        return (self._used - self._own - len(self._free)) * self.format.sample_bytes

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
        return np.concatenate([NO_ROWS, *found])

    def missing(self, source: Source, ranges: Iterable[Range]) -> Ranges:
        """The parts of `ranges` that have not arrived: merged, sorted by label and start."""
        return as_ranges(
            {
                label: positions[self._rows(source, label, positions) == NOT_HERE]
                for label, positions in positions_of(tuple(ranges)).items()
            }
        )

    def keep_only(self, borrowed: Mapping[Source, Ranges], *, spare: int = 0) -> None:
        """Make room for all samples that an active plan names, and forget others, as far as they take up more: of what
        a lender lent from another data set as many are kept as have not come from the present one, which may be the
        same (`recognise`); and of all the rest, whose lender may be back, so many as there is `spare` room for."""
        named = {
            (source, label): positions
            for source, ranges in borrowed.items()
            for label, positions in positions_of(ranges).items()
        }
        awaited: dict[DeviceId, int] = {}
        for (source, label), positions in named.items():
            missing = int((self._rows(source, label, positions) == NOT_HERE).sum())
            awaited[source.device] = awaited.get(source.device, 0) + missing
        kept, room = {}, spare
        for key, (positions, rows) in sorted(self._held.items()):
            keeps = np.isin(positions, named.get(key, NO_ROWS))
            others = np.flatnonzero(~keeps)
            standing_in = 0 if key[0] in borrowed else min(len(others), awaited.get(key[0].device, 0))
            if standing_in:
                awaited[key[0].device] -= standing_in
            beside = min(len(others) - standing_in, room)
            room -= beside
            keeps[others[: standing_in + beside]] = True
            kept[key] = (positions[keeps], rows[keeps])
        self._keep(kept, sum(map(len, named.values())) + spare - room)
        self._unnamed = {source for source, _ in self._held if source not in borrowed}

    # --- what is the same under another name --------------------------------------------------------------------------

    def has_others(self, source: Source) -> bool:
        """Whether samples are here that the lender lent from another of its data sets."""
        return any(_is_another(held, source) for held, _ in self._held)

    def recognise(self, header: NamesHeader, data: bytes) -> None:
        """Go by the keys of a lender's samples: what it lent from another of its data sets, under the same label and
        with the same key, is a sample of this one from now on. Sizes are checked before anything is allocated. Raises
        `MalformedMessage` for ranges that are no ranges or overlap, and for a wrong number of bytes."""
        _check_ranges(header, data, KEY_BYTES)
        source = Source(device=header.lender, life=header.life, data_epoch=header.data_epoch)
        names = iter(np.frombuffer(data, dtype="<u8").tolist())
        known: dict[int, dict[int, list[int]]] = {}
        for span in header.ranges:
            if span.label not in known:
                known[span.label] = self._others_by_key(source, span.label)
            positions = np.arange(span.start, span.stop)
            found = [
                (position, rows.pop())
                for position, is_here, name in zip(
                    positions.tolist(), self._rows(source, span.label, positions) != NOT_HERE, names, strict=False
                )
                if not is_here and (rows := known[span.label].get(name))
            ]
            if found:
                self._rename(source, span.label, np.array(found, dtype=np.int64))

    def forget_others(self, source: Source) -> None:
        """Forget what the lender lent from other data sets than this one."""
        self._wipe(key for key in self._held if _is_another(key[0], source))

    def _others_by_key(self, source: Source, label: int) -> dict[int, list[int]]:
        """Rows of what the lender lent from other data sets, by the samples' keys."""
        held = [rows for key, (_, rows) in self._held.items() if key[1] == label and _is_another(key[0], source)]
        rows = np.concatenate([NO_ROWS, *held]).tolist()
        by_key: dict[int, list[int]] = {}
        for key, row in zip(keys_of(self.samples, rows).tolist(), rows, strict=True):
            by_key.setdefault(key, []).append(row)
        return by_key

    def _rename(self, source: Source, label: int, found: Rows) -> None:
        """Positions and rows (samples, 2): the rows of other data sets that are those positions of this one."""
        for key, (positions, rows) in list(self._held.items()):
            if key[1] == label and _is_another(key[0], source):
                stays = ~np.isin(rows, found[:, 1])
                self._held[key] = (positions[stays], rows[stays])
        self._remember(source, label, found[:, 0], found[:, 1])

    # --- what is taken back -------------------------------------------------------------------------------------------

    def holds(self, lender: DeviceId, life: Life) -> bool:
        """Whether anything is here that `lender` lent in this life or before."""
        return any(source.device == lender and source.life <= life for source, _ in self._held)

    def drop(self, lender: DeviceId, life: Life) -> None:
        """Forget everything that `lender` lent in this life or before."""
        gone = {key for key in self._held if key[0].device == lender and key[0].life <= life}
        if self._unnamed.issuperset(source for source, _ in gone):
            self._wipe(gone)
        else:
            self._keep({key: held for key, held in self._held.items() if key not in gone}, 0)

    def _wipe(self, keys: Iterable[tuple[Source, int]]) -> None:
        for key in list(keys):
            _, rows = self._held.pop(key)
            wiped = torch.from_numpy(rows)
            self.samples.inputs[wiped] = 0
            self.samples.labels[wiped] = 0
            self._free = np.concatenate([self._free, rows])

    # --- rows ---------------------------------------------------------------------------------------------------------

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
        """Forget all samples but `kept`, and make room for so many borrowed ones in all."""
        rows = np.concatenate([NO_ROWS, *(rows for _, rows in kept.values())])
        if len(rows) == self._used - self._own and capacity <= len(self.samples) - self._own:
            self._held = {key: held for key, held in kept.items() if len(held[0])}
            return
        self._allocate(rows, max(capacity, len(rows)))
        self._free = NO_ROWS
        self._held, start = {}, self._own
        for key, (positions, old) in kept.items():
            if len(old):
                self._held[key] = (positions, np.arange(start, start + len(old)))
                start += len(old)

    def _reserve(self, count: int) -> Rows:
        """Reserve rows for so many new samples; doubles the memory where `keep_only` has not made room."""
        again, self._free = self._free[:count], self._free[count:]
        needed = self._used + count - len(again)
        if needed > len(self.samples):
            borrowed = np.arange(self._own, self._used)
            self._allocate(borrowed, max(needed - self._own, 2 * len(borrowed)))
        rows = np.concatenate([again, np.arange(self._used, needed)])
        self._used = needed
        return rows

    def _allocate(self, kept: Rows, capacity: int) -> None:
        """Make new tensors with the own samples, then these borrowed rows, then room up to `capacity` borrowed ones."""
        own, old = self._store.samples, self.samples
        start, stop = len(own), len(own) + len(kept)
        grown = []
        for first, tensor in ((own.inputs, old.inputs), (own.labels, old.labels)):
            larger = tensor.new_empty((start + capacity, *tensor.shape[1:]))
            larger[:start] = first
            larger[start:stop] = tensor[torch.from_numpy(kept)]
            grown.append(larger)
        self.samples = SampleSet(grown[0], grown[1])
        self._store.samples = SampleSet(grown[0][:start], grown[1][:start])
        self._own, self._used = start, stop

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
    _check_ranges(header, data, form.sample_bytes)


def _check_ranges(header: NamesHeader, data: bytes, each_bytes: int) -> None:
    end: dict[int, int] = {}
    for span in sorted(header.ranges, key=lambda span: (span.label, span.start)):
        if not end.get(span.label, 0) <= span.start < span.stop <= POSITION_MAX or span.label < 0:
            raise MalformedMessage(f"{header.lender} lends {span}: empty, out of range, or it overlaps another")
        end[span.label] = span.stop
    expected = sum(span.stop - span.start for span in header.ranges) * each_bytes
    if len(data) != expected or not data:
        raise MalformedMessage(f"{header.lender} lends {expected} bytes by its ranges, but {len(data)} came")


def _is_another(held: Source, source: Source) -> bool:
    """Whether `held` is of the lender of `source`, and not `source`."""
    return held.device == source.device and held != source
