"""A plan: who trains which samples, who merges which slice, in what form deltas travel. Integers only.

A plan is rich enough that every method of the comparison is a policy on the same engine: no moves, one slice owner and
equal epochs is FedAvg; everything moved to one trainer is ship-once.
"""

import enum
from collections.abc import Iterator

import attrs

from crowd.units import DeviceId, Life


class DeltaForm(enum.Enum):
    """How a delta is written on the wire."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BLOCKWISE8 = "blockwise8"
    """Signed 8-bit integers with one float32 scale for each block of 256."""


class OuterKind(enum.Enum):
    PLAIN = "plain"
    NESTEROV = "nesterov"


class Consistency(enum.Enum):
    """When the replicas are equal."""

    EVERY_ROUND = "every_round"
    AT_END = "at_end"
    NONE = "none"


@attrs.frozen(kw_only=True)
class Outer:
    """The outer optimiser: what is done with the merged delta. Parts per million, to stay in integers."""

    kind: OuterKind = OuterKind.PLAIN
    rate_ppm: int = 1_000_000
    momentum_ppm: int = 0


@attrs.frozen(kw_only=True)
class Member:
    device: DeviceId
    life: Life
    data_epoch: int = 0
    """Which of its data sets the plan's assignments mean."""


@attrs.frozen(kw_only=True)
class LeftOut:
    """A living device that is no member, and why."""

    device: DeviceId
    life: Life
    reason: str


@attrs.frozen(kw_only=True)
class Assignment:
    """`counts[label]` samples of `lender` are trained by `trainer` (its own where the two are the same)."""

    lender: DeviceId
    trainer: DeviceId
    counts: tuple[int, ...]

    @property
    def samples(self) -> int:
        return sum(self.counts)


@attrs.frozen(kw_only=True)
class Idle:
    """Samples of a member that nobody trains for now, and why."""

    device: DeviceId
    counts: tuple[int, ...]
    reason: str


@attrs.frozen(kw_only=True)
class Trainer:
    """One trainer's part in every round."""

    device: DeviceId
    round_samples: int
    """Samples that it trains between two merges."""
    evaluation: tuple[int, int] = (0, 0)
    """Its share `[start, stop)` of the common evaluation set."""


@attrs.frozen(kw_only=True)
class SliceOwner:
    """`owner` merges elements `[start, stop)` of the flat state vector."""

    owner: DeviceId
    start: int
    stop: int


@attrs.frozen(kw_only=True)
class Range:
    """Positions `[start, stop)` in a lender's seeded order of its samples of one label."""

    label: int
    start: int
    stop: int


@attrs.frozen(kw_only=True)
class Plan:
    """What a cluster does until its next plan. Canonical: every tuple is sorted by device (slices by `start`)."""

    members: tuple[Member, ...]
    left_out: tuple[LeftOut, ...] = ()
    trainers: tuple[Trainer, ...] = ()
    """Empty: the plan contains no work."""
    assignments: tuple[Assignment, ...] = ()
    idle: tuple[Idle, ...] = ()
    slices: tuple[SliceOwner, ...] = ()
    """Cover `[0, state_elements)` without gap or overlap if there is work."""
    form: DeltaForm = DeltaForm.FLOAT32
    outer: Outer = Outer()
    consistency: Consistency = Consistency.EVERY_ROUND
    round_us: int = 0
    """Planned time of one round, merge included."""
    samples_total: int = 0
    """Samples of all members that some trainer trains: one epoch."""
    epochs_max: int = 0
    seed: int = 0
    why: str = ""
    """One sentence for people."""

    @property
    def has_work(self) -> bool:
        return bool(self.trainers)

    def life_of(self, device: DeviceId) -> Life | None:
        """The life in which `device` is a member, or `None`."""
        return next((member.life for member in self.members if member.device == device), None)

    def trainer(self, device: DeviceId) -> Trainer | None:
        return next((trainer for trainer in self.trainers if trainer.device == device), None)

    def ranges(self) -> Iterator[tuple[Assignment, tuple[Range, ...]]]:
        """Which positions each assignment names. A lender keeps the head of its seeded order per label and lends
        consecutive ranges behind it, borrowers in order of their IDs; what is left is idle. Every device computes the
        same names from the plan alone."""
        taken: dict[DeviceId, list[int]] = {}
        for own_first in (True, False):
            for assignment in self.assignments:
                if (assignment.lender == assignment.trainer) is not own_first:
                    continue
                offsets = taken.setdefault(assignment.lender, [0] * len(assignment.counts))
                ranges = []
                for label, count in enumerate(assignment.counts):
                    if count:
                        ranges.append(Range(label=label, start=offsets[label], stop=offsets[label] + count))
                        offsets[label] += count
                yield assignment, tuple(ranges)
