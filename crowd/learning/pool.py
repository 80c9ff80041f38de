"""What one generation trains: `TrainingPool` (the assigned samples, as rows) and `EpochSampler` (in which order).

Rows are plain integers, so a batch costs one gather: rows `[0, own)` are the device's own assigned samples, those after
it the borrowed ones, in the order in which the plan names them.
"""

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from crowd.learning.samples import seeded
from crowd.learning.shards import NOT_HERE, LentSamples, Ranges, Rows, SampleStore, Source

Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Availability:
    """Which rows of a pool are here. `revision` changes whenever the mask does."""

    def __init__(self, mask: Mask) -> None:
        self.revision = 0
        self.update(mask)

    def update(self, mask: Mask) -> None:
        """Replace the mask (rows,) bool, which must not be written into afterwards."""
        self.mask = mask
        self.revision += 1


class TrainingPool:
    """The samples that an active plan assigns to this device; `lent` must be of the same `store`. Copies nothing. Shows
    the borrowed samples of the last `refresh`: call that between pieces of training, after samples have arrived or gone
    (the memory of a revoked sample is free only then)."""

    def __init__(self, store: SampleStore, lent: LentSamples, own: Ranges, borrowed: Mapping[Source, Ranges]) -> None:
        self._lent = lent
        self._own_index = store.rows(own)
        self._borrowed = sorted(borrowed.items())
        self.available = Availability(np.empty(0, dtype=np.bool_))
        self.refresh()

    def __len__(self) -> int:
        """All assigned samples, here or not."""
        return len(self._index)

    @property
    def waiting(self) -> int:
        """Assigned samples that are not here yet."""
        return len(self._index) - int(np.count_nonzero(self.available.mask))

    def refresh(self) -> None:
        """Show what `lent` holds now."""
        borrowed = [self._lent.rows(source, ranges) for source, ranges in self._borrowed]
        self._index = np.concatenate([self._own_index, *borrowed])
        self._samples = self._lent.samples
        self.available.update(self._index != NOT_HERE)

    def batch(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """The samples of these available rows as `(inputs, labels)`, in this order."""
        picked = torch.from_numpy(self._index[rows])
        return self._samples.inputs.index_select(0, picked), self._samples.labels.index_select(0, picked)


@attrs.frozen(kw_only=True, eq=False)
class SamplerSnapshot:
    """Where an `EpochSampler` was: the epoch, and the places in its order that were not dealt out yet."""

    epoch: int
    here: Rows
    absent: Rows


class EpochSampler:
    """Deals out the rows `[0, count)`: each exactly once per epoch, in an order seeded by `(seed, generation, epoch)`.

    Rows that are not available keep their place: they come first as soon as they arrive, and an epoch does not end
    without them.
    """

    def __init__(self, count: int, *, seed: int, generation: int) -> None:
        self._count = count
        self._seeds = (seed, generation)
        self._order: Rows
        # Places in the order that are not dealt out: those that were here when the availability last changed (with
        # their rows, of which the first `_dealt` are gone), and those that were not.
        self._here: Rows
        self._rows: Rows
        self._dealt: int
        self._absent: Rows
        self._revision: int | None
        self._begin(0)

    @property
    def trained_in_epoch(self) -> int:
        """Rows dealt out in this epoch."""
        return self._count - len(self._here) + self._dealt - len(self._absent)

    def take(self, size: int, available: Availability) -> Rows:
        """The next `size` available rows of this epoch's order.

        Fewer at the end of the epoch, or where no more are available: a batch never spans two epochs. Empty means that
        the rest of the epoch has not arrived (or that there are no rows at all). The first call after the last row
        begins the next epoch. Takes O(size), and once O(rows left in the epoch) after rows arrived or went.
        """
        if self._dealt == len(self._here) and not len(self._absent):
            self._begin(self.epoch + 1 if self._count else 0)
        if self._revision != available.revision:
            left = np.sort(np.concatenate([self._here[self._dealt :], self._absent]))
            is_here = available.mask[self._order[left]]
            self._here, self._absent, self._dealt = left[is_here], left[~is_here], 0
            self._rows = self._order[self._here]
            self._revision = available.revision
        taken = self._rows[self._dealt : self._dealt + size]
        self._dealt += len(taken)
        return taken

    def snapshot(self) -> SamplerSnapshot:
        """Costs nothing: the sampler never writes into the arrays that it shares with its snapshots."""
        return SamplerSnapshot(epoch=self.epoch, here=self._here[self._dealt :], absent=self._absent)

    def restore(self, snapshot: SamplerSnapshot) -> None:
        """Deal again exactly what was dealt after `snapshot`, which a sampler of the same seeds made."""
        self._begin(snapshot.epoch)
        self._here, self._absent = snapshot.here, snapshot.absent

    def _begin(self, epoch: int) -> None:
        self.epoch = epoch
        self._order = seeded("epoch", *self._seeds, epoch).permutation(self._count)
        self._here, self._absent = np.arange(0), np.arange(self._count)
        self._rows, self._dealt = self._here, 0
        self._revision = None
