"""A device's own data, which may be others from one plan to the next: `DataSet`, what was read at once, and `OwnData`,
which of them is meant."""

import hashlib
from typing import Self

import attrs

from crowd.learning.holdout import holdout
from crowd.learning.samples import SampleSet, as_bytes
from crowd.learning.shards import SampleStore
from crowd.learning.task import Task

TRIAL_BATCHES = 4
"""Batches on which a network is tried, and timed."""


@attrs.frozen(kw_only=True, eq=False)
class DataSet:
    """A device's data, as they were read once."""

    number: int
    """Counts the device's data sets: `Profile.data_epoch`."""
    digest: bytes
    """See `digest_of`."""
    store: SampleStore
    """The training samples."""
    evaluation: SampleSet
    """The common evaluation set; without one, what is held out of the device's own samples."""
    trial: SampleSet
    """Some samples to try the network on: the device's own, where it has any; they may be fewer than a batch."""

    @classmethod
    def of(cls, own: SampleSet, common: SampleSet | None, task: Task, before: "DataSet | None" = None) -> Self:
        """All samples of the device, the common evaluation set, and what it had before. One of the three has some."""
        training, evaluation = (own, common) if common is not None else holdout(own, series_gap=task.series_gap)
        samples = next(filter(len, (own, evaluation, *(() if before is None else (before.trial,)))))
        few = slice(TRIAL_BATCHES * task.batch_size)  # copied, so that nothing is held for their sake
        return cls(
            number=0 if before is None else before.number + 1,
            digest=digest_of(own),
            store=SampleStore(training),
            evaluation=evaluation,
            trial=SampleSet(samples.inputs[few].clone(), samples.labels[few].clone()),
        )


class OwnData:
    """Holds a device's data while plans go on meaning what they were made for: the device's profile tells of the
    `latest`, and `present` become these with the first plan that means them."""

    def __init__(self, first: DataSet) -> None:
        self.present = first
        """What the active plan means."""
        self.latest = first
        """What was read last."""

    def put(self, latest: DataSet) -> None:
        """Other data have been read."""
        self.latest = latest

    def go_by(self, number: int) -> bool:
        """A plan means the data of this number; returns whether they are here, and are now `present`."""
        if number == self.latest.number:
            self.present = self.latest
        return number == self.present.number

    def begin_anew(self) -> None:
        """The actors start, and know no plan yet."""
        self.present = self.latest


def digest_of(samples: SampleSet) -> bytes:
    """BLAKE2b (16 bytes) of all samples, raw, in the data set's order. Takes about a second for a gigabyte."""
    digest = hashlib.blake2b(digest_size=16)
    for tensor in (samples.inputs, samples.labels):
        if tensor.numel():
            digest.update(as_bytes(tensor).data)
    return digest.digest()
