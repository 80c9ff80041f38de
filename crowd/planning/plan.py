"""A plan: who trains which samples, who merges which slice, in what form deltas travel. Integers only.

A plan is rich enough that every method of the comparison is a policy on the same engine: no moves, one slice owner and
equal epochs is FedAvg; everything moved to one trainer is ship-once.
"""

import enum
from collections.abc import Iterator

import attrs

from crowd.planning.canonical import digest
from crowd.units import DeviceId, Life

PPM = 1_000_000
"""A whole, in parts per million: plans hold integers only."""
GROUP_BATCHES = 2
"""Importance sampling chooses among so many times what it trains."""


class Encoding(enum.Enum):
    """How a delta is written on the wire."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BLOCKWISE8 = "blockwise8"
    """Signed 8-bit integers with one float32 scale for each block of 256."""
    NONE = "nothing"
    """No bytes: all of it stays at home."""


class OuterKind(enum.Enum):
    PLAIN = "plain"
    NESTEROV = "nesterov"


class Sampling(enum.Enum):
    """Which assigned samples a trainer's steps are made of."""

    UNIFORM = "uniform"
    """Each once in an epoch."""
    IMPORTANCE = "importance"
    """Of every `GROUP_BATCHES` batches in the epoch's order one is drawn, in proportion to the samples' losses."""


class Consistency(enum.Enum):
    """When the replicas are equal."""

    EVERY_ROUND = "every_round"
    AT_END = "at_end"
    """Every trainer goes on from parameters of its own. Rounds carry evaluations of these, until one more round merges
    all into the final state."""
    NONE = "none"
    """As at the end, but nothing is ever merged: every device ends with its own."""


@attrs.frozen(kw_only=True)
class Outer:
    """The outer optimiser: what is done with the merged delta. Parts per million, to stay in integers."""

    kind: OuterKind = OuterKind.PLAIN
    rate_ppm: int = PPM
    momentum_ppm: int = 0


@attrs.frozen(kw_only=True)
class MixingEdge:
    """Two trainers that exchange parameters, and with what weight each takes in the other's."""

    first: DeviceId
    second: DeviceId
    """The greater ID."""
    weight_ppm: int


@attrs.frozen(kw_only=True)
class Mixing:
    """Gossip: after each so many local steps every trainer waits for the parameters of its neighbours and takes the
    weighted mean of theirs and its own, whose weight is what the links leave."""

    every_steps: int
    exchanges: int
    """In a round, which is over after the last one, however many samples that were."""
    links: tuple[MixingEdge, ...]

    def neighbours(self, device: DeviceId) -> dict[DeviceId, int]:
        """Weights in millionths, by neighbour."""
        return {
            link.second if link.first == device else link.first: link.weight_ppm
            for link in self.links
            if device in (link.first, link.second)
        }


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
    batch_size: int = 0
    """Samples of one of its steps; 0: the task's."""


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
    encoding: Encoding = Encoding.FLOAT32
    outer: Outer = Outer()
    consistency: Consistency = Consistency.EVERY_ROUND
    quorum: int = 0
    """So many contributions make a merged slice; 0: all that come before the owner's deadline."""
    staleness_max: int = 0
    """By how many rounds a contribution may lag behind the one that merges it, with weight `1 / sqrt(1 + lag)`. Above 0
    the plan is asynchronous: the one owner completes the rounds, and nobody else follows them. A trainer fetches the
    newest state whenever its last contribution has arrived; all others get the final one."""
    mixing: Mixing | None = None
    """Only where trainers go on from parameters of their own."""
    proximal_ppm: int = 0
    """Pull of local steps towards the round's start: this part of the distance is added to the gradient."""
    sampling: Sampling = Sampling.UNIFORM
    evaluate_every: int = 1
    """Rounds from one evaluation to the next."""
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

    @property
    def asynchronous(self) -> bool:
        """Whether trainers do not wait for rounds."""
        return self.staleness_max > 0

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


def plan_digest(plan: Plan) -> bytes:
    """The digest by which devices compare plans: BLAKE2b (16 bytes) of the plan's canonical form."""
    return digest(plan)
