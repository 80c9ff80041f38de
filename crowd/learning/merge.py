"""One slice of one round at its owner: `SliceMerge`, the contributions so far and their mean."""

import math
from collections.abc import Collection, Mapping

import attrs
import torch
from torch import Tensor

from crowd.errors import MalformedMessage
from crowd.learning import outliers
from crowd.learning.evaluation import NOTHING, Evaluation, total
from crowd.learning.layout import Pieces
from crowd.units import DeviceId


@attrs.frozen(kw_only=True, eq=False)
class Merged:
    """The weighted mean of the contributions of `senders`."""

    mean: Tensor = attrs.field(repr=False)
    """The mean delta of the slice, (elements,) float32."""
    senders: dict[DeviceId, int]
    """Samples of each merged trainer, by ID."""
    counters: tuple[int, ...]
    """Integer buffers: elementwise the largest of the senders'."""
    evaluation: Evaluation
    """The senders' evaluations, summed."""
    loss: float | None
    """Mean training loss over the senders' samples; `None` where nobody has trained any."""
    busy_us: dict[DeviceId, int]
    """Microseconds that the steps of each merged trainer took, by ID; without those that say none."""


@attrs.frozen(kw_only=True, eq=False)
class _Contribution:
    lag: int
    samples: int
    delta: Tensor
    counters: tuple[int, ...]
    evaluation: Evaluation
    loss_sum: float
    busy_us: int


class SliceMerge:
    """The contributions to one slice of `elements` in one round; `planned` is each trainer's samples in a round.

    With a `quorum` it is complete as soon as so many trainers were heard; without, when all were, or the owner settles
    for what is `enough`.
    """

    def __init__(self, planned: Mapping[DeviceId, int], elements: int, *, quorum: int = 0) -> None:
        self._planned = dict(planned)
        self._elements = elements
        self._quorum = quorum
        self._came: dict[DeviceId, _Contribution] = {}

    def add(
        self,
        sender: DeviceId,
        samples: int,
        delta: Tensor,
        counters: tuple[int, ...] = (),
        evaluation: Evaluation = NOTHING,
        *,
        loss_sum: float = 0.0,
        busy_us: int = 0,
        lag: int = 0,
    ) -> bool:
        """Take `sender`'s delta (elements,) float32, trained on `samples` from a state `lag` rounds old; it must not be
        written into afterwards. `loss_sum` is the mean loss of each of its batches, times its samples, `busy_us` how
        long its steps took.

        Returns False, and changes nothing, for a sender that the plan does not name or that has been heard. Raises
        `MalformedMessage` for another number of elements or counters than the others', or impossible counts.
        """
        if sender not in self._planned or sender in self._came:
            return False
        if delta.shape != (self._elements,):
            raise MalformedMessage(f"{sender} sent {tuple(delta.shape)} for a slice of {self._elements} elements")
        if samples < 0 or not math.isfinite(loss_sum):
            raise MalformedMessage(f"{sender} sent {samples} samples with a loss of {loss_sum}")
        if any(len(counters) != len(other.counters) for other in self._came.values()):
            raise MalformedMessage(f"{sender} sent {len(counters)} counters, others another number")
        self._came[sender] = _Contribution(
            samples=samples,
            delta=delta,
            counters=counters,
            evaluation=evaluation,
            loss_sum=loss_sum,
            busy_us=busy_us,
            lag=lag,
        )
        return True

    @property
    def heard(self) -> frozenset[DeviceId]:
        """Trainers that have contributed."""
        return frozenset(self._came)

    @property
    def complete(self) -> bool:
        """Whether the quorum has come, or without one every planned trainer has been heard."""
        return len(self._came) >= (self._quorum or len(self._planned))

    @property
    def missing(self) -> tuple[DeviceId, ...]:
        """Planned trainers that have not been heard, by ID."""
        return tuple(sorted(self._planned.keys() - self._came.keys()))

    @property
    def enough(self) -> bool:
        """Whether the contributions so far may be merged: with a quorum only all of it, else at least half of the
        planned samples."""
        if self._quorum:
            return self.complete
        return self.can_do_without(())

    def sizes(self, pieces: Pieces) -> dict[DeviceId, float]:
        """The size (`outliers.size`) of each contribution with samples; `pieces` says how the slice's tensors lie."""
        return {
            sender: outliers.size(contribution.delta, contribution.samples, pieces)
            for sender, contribution in self._came.items()
            if contribution.samples
        }

    def can_do_without(self, senders: Collection[DeviceId]) -> bool:
        """Whether what came of the others is at least half of the planned samples."""
        rest = self._came.keys() - set(senders)
        return 2 * sum(self._planned[sender] for sender in rest) >= sum(self._planned.values())

    def merged(self, without: Collection[DeviceId] = ()) -> Merged:
        """Merge the contributions so far but those of `without`: their mean, weighted by samples and accumulated in the
        order of the senders' IDs.

        Where nobody has trained a sample all weigh alike. A contribution that lags counts for `1 / sqrt(1 + lag)` of
        its weight (FedBuff, arXiv 2106.06639).
        """
        came = sorted((sender, came) for sender, came in self._came.items() if sender not in without)
        samples = sum(contribution.samples for _, contribution in came)
        mean = torch.zeros(self._elements)
        for _, contribution in came:
            weight = contribution.samples / samples if samples else 1 / len(came)
            if weight:
                mean += contribution.delta * (weight / math.sqrt(1 + contribution.lag))
        return Merged(
            mean=mean,
            senders={sender: contribution.samples for sender, contribution in came},
            counters=tuple(map(max, zip(*(contribution.counters for _, contribution in came), strict=True))),
            evaluation=total(contribution.evaluation for _, contribution in came),
            loss=sum(contribution.loss_sum for _, contribution in came) / samples if samples else None,
            busy_us={sender: contribution.busy_us for sender, contribution in came if contribution.busy_us},
        )
