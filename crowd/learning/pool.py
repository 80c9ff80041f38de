"""The samples that one generation trains: `TrainingPool` (as rows) and `EpochSampler` (in which order).

Rows are plain integers, so a batch costs one gather: rows `[0, own)` are the device's own assigned samples, those after
it the borrowed ones, in the order in which the plan names them.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from crowd.learning.lent_samples import NOT_HERE, LentSamples
from crowd.learning.samples import seeded
from crowd.learning.shards import Ranges, Rows, SampleStore, Source
from crowd.units import ceil_div

GATHERED_BYTES = 2**18
"""Largest size of the batches that are gathered at once: where steps are short, reading samples costs as much as a
layer; where one batch is larger, it is read alone."""


class TrainingPool:
    """The samples that an active plan assigns to this device; `lent` must be of the same `store`. Copies nothing. Shows
    the borrowed samples of the last `refresh`: call that after samples have arrived."""

    def __init__(self, store: SampleStore, lent: LentSamples, own: Ranges, borrowed: Mapping[Source, Ranges]) -> None:
        self._lent = lent
        self._own_index = store.rows(own)
        self._borrowed = sorted(borrowed.items())
        self.refresh()

    def __len__(self) -> int:
        """Number of assigned samples, arrived or not."""
        return len(self._index)

    @property
    def ready(self) -> bool:
        """Whether there are samples to train, and all of them are here."""
        return bool(len(self._index)) and not self._absent

    def refresh(self) -> None:
        """Show the samples that `lent` holds now."""
        borrowed = [self._lent.rows(source, ranges) for source, ranges in self._borrowed]
        self._index = np.concatenate([self._own_index, *borrowed])
        self._absent = bool((self._index == NOT_HERE).any())
        self._samples = self._lent.samples

    def deal(self, sampler: "EpochSampler", sizes: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of these sizes that `sampler` deals out of the pool, which must be ready, as `(inputs, labels)`:
        (batch, *input_shape) and (batch, *label_shape), to be written to at will. A batch counts as dealt when it is
        asked for; one never spans two epochs, and has fewer samples where its epoch ends."""
        at_once = GATHERED_BYTES // self._samples.format.sample_bytes
        left = deque(sizes)
        while left:
            rows = sampler.ahead()
            parts: list[int] = []
            count = 0
            while left and count < len(rows) and (not parts or count + left[0] <= at_once):
                parts.append(min(left.popleft(), len(rows) - count))
                count += parts[-1]
            for size, inputs, labels in zip(parts, *self._gathered(rows[:count], parts), strict=True):
                sampler.skip(size)
                yield inputs, labels

    def _gathered(self, rows: Rows, parts: list[int]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Inputs and labels of several batches. They share memory, and autograd knows each as a tensor of its own: one
        that a network scales in place is no view."""
        picked = torch.from_numpy(self._index[rows])
        inputs, labels = self._samples.inputs.index_select(0, picked), self._samples.labels.index_select(0, picked)
        return torch.unsafe_split_with_sizes(inputs, parts), torch.unsafe_split_with_sizes(labels, parts)


class EpochSampler:
    """A dealer of the rows `[0, count)` of `device`: each once per epoch, in an order seeded by `(seed, generation,
    round, epoch)`. `round` is that with which the generation begins: after a power cut generations are counted anew."""

    def __init__(self, count: int, *, seed: int, generation: int, round: int = 0, device: str = "") -> None:
        self._count = count
        self._device = device
        self._seeds = (seed, generation, round)
        self._begin(0)

    @property
    def trained_in_epoch(self) -> int:
        """Rows dealt out in this epoch."""
        return self._dealt

    def batches(self, samples: int, batch_size: int, *, group: int = 1) -> list[int]:
        """Sizes of the next batches, for about `samples` in all: each epoch's part is divided evenly into as few of at
        most `batch_size` as it takes, and what would be half a batch or less at an epoch's end is joined to it, or left
        out (docs/decisions/094-even-batches.md). For each sample of a batch `group` rows will be taken."""
        count, left = ceil_div(self._count, group), ceil_div(self._count - self._dealt or self._count, group)
        few = min(samples, batch_size, count) // 2
        sizes: list[int] = []
        while samples > few and count:
            part = left if left <= samples + few else samples
            samples -= part
            left = left - part or count
            for steps in range(ceil_div(part, batch_size), 0, -1):
                sizes.append(ceil_div(part, steps))
                part -= sizes[-1]
        return sizes

    def ahead(self) -> Rows:
        """The rows of this epoch that have not been dealt out, in its order; all of the next epoch's, if it has
        ended."""
        if self._dealt == self._count:
            self._begin(self.epoch + 1)
        return self._order[self._dealt :]

    def skip(self, rows: int) -> None:
        """So many of the rows ahead count as dealt out."""
        self._dealt += rows

    def take(self, size: int) -> Rows:
        """The next `size` rows of this epoch's order; fewer at its end: a batch never spans two epochs. The first call
        after the last row begins the next epoch."""
        taken = self.ahead()[:size]
        self.skip(len(taken))
        return taken

    def generator(self) -> torch.Generator:
        """A generator for the step that trains the rows dealt last, seeded by the device, the generation and the step:
        who deals them again gets the same."""
        seed = seeded("step", self._device, *self._seeds, self.epoch, self._dealt).integers(1 << 63)
        return torch.Generator().manual_seed(int(seed))

    def _begin(self, epoch: int) -> None:
        self.epoch = epoch
        self._order: Rows = seeded("epoch", *self._seeds, epoch).permutation(self._count)
        self._dealt = 0
