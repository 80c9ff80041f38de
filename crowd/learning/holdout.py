"""Which samples a device keeps from training, to evaluate states on them, where a task has no evaluation set:
`holdout`."""

import numpy as np
import torch

from crowd.learning.keys import Keys, keys_of
from crowd.learning.samples import SampleSet
from crowd.learning.shards import Rows

HELD_OUT_PARTS = 10
"""Part of a device's samples, about one in so many, that is held out."""
STRETCH_GAPS = 4
"""Mean length of a series' stretches, in gaps: shorter ones lose more samples at their borders (a twentieth in all),
longer ones are so few that a short series has hardly any."""
_HELD_OUT_BELOW = np.uint64(2**64 // HELD_OUT_PARTS)


def holdout(samples: SampleSet, *, series_gap: int | None = None) -> tuple[SampleSet, SampleSet]:
    """Split off what is held out, by what samples are, so that it is the same after a restart, and whatever else there
    is. Returns `(training, held out)`, in the order of `samples`.

    As data grow, nothing moves from training into what is held out; and what is held out is equal to nothing that is
    trained. `series_gap`: see `Task`. For what cannot be kept, see `_held_out` and `_held_out_of_series`.
    """
    keys = keys_of(samples)
    trained, held = _held_out(keys) if series_gap is None else _held_out_of_series(keys, series_gap)
    return _picked(samples, trained), _picked(samples, held)


def _held_out(keys: Keys) -> tuple[Rows, Rows]:
    """The rows of what is trained and of what is held out: samples with keys below a threshold.

    Of two or more that differ at least one is held out and one is trained: where all keys are on one side of the
    threshold, as those of very few samples may be, only the smallest is held out (of 20 samples once in eight times, of
    60 once in 500). It moves only to a new sample as data grow; but one that was trained follows it where it is taken
    away, or where there was no other, and those below the threshold that were alone. Samples that are all equal are
    trained.
    """
    held = keys < _HELD_OUT_BELOW
    if len(keys) and held.all() == held.any():
        held = (keys == keys.min()) & (keys != keys.max())
    return np.flatnonzero(~held), np.flatnonzero(held)


def _held_out_of_series(keys: Keys, gap: int) -> tuple[Rows, Rows]:
    """The same of a series: whole stretches of it, `gap` samples away from all that is trained. What lies between is
    left out, and so is of the stretches what equals a sample that is not held out.

    A stretch begins with a sample whose key says so, and that key says whether it is held out: it stays as it is
    wherever a series grows at its end and is dropped at its front. What is before the first such sample is trained, so
    a stretch that has lost its beginning is trained from then on. Between two stretches the beginning of the later one
    is left out, as what came before may have been trained before there was a later one.

    Where nothing is held out by that, the last tenth is, from which samples only go into training as the series grows.
    Only where all that was held out has been dropped does it take samples that were trained; and what equals one that
    was trained and is dropped may be held out then.
    """
    count = len(keys)
    starts = np.flatnonzero(keys % np.uint64(STRETCH_GAPS * (gap + 1)) == 0)
    stretch = np.searchsorted(starts, np.arange(count), side="right")
    is_held = np.concatenate([[False], keys[starts] < _HELD_OUT_BELOW])[stretch]
    turns = np.flatnonzero(is_held[1:] != is_held[:-1]) + 1
    behind = np.searchsorted(turns, np.arange(count), side="right")
    apart = np.arange(count) - np.concatenate([[-gap], turns])[behind] >= gap
    trained, held = np.flatnonzero(~is_held & apart), np.flatnonzero(is_held & apart)
    if not len(held):
        first = count - max(1, count // HELD_OUT_PARTS)
        trained, held = np.arange(first - gap), np.arange(max(0, first), count)
    return trained, held[~np.isin(keys[held], np.delete(keys, held))]


def _picked(samples: SampleSet, rows: Rows) -> SampleSet:
    picked = torch.from_numpy(rows)
    return SampleSet(samples.inputs[picked], samples.labels[picked])
