"""A plan: who trains which samples, who merges which slice, in which encoding deltas travel. Integers only.

A plan is rich enough that every method of the comparison is a policy on the same engine: no moves, one slice owner and
equal epochs is FedAvg; everything moved to one trainer is ship-once.
"""

import enum
from collections.abc import Iterator

import attrs

from crowd.planning.canonical import digest
from crowd.planning.encoding_size import Encoding as Encoding
from crowd.units import DeviceId, Life

PPM = 1_000_000
"""A whole, in parts per million: plans hold integers only."""
GROUP_BATCHES = 2
"""Batches among which importance sampling chooses each batch that it trains."""


class OuterKind(enum.Enum):
    """The kind of outer optimiser."""

    PLAIN = "plain"
    """The merged delta, times the rate, is added to the state."""
    NESTEROV = "nesterov"
    """Nesterov momentum over merged deltas (DiLoCo, arXiv 2311.08105)."""


class Sampling(enum.Enum):
    """The choice of assigned samples for a trainer's steps."""

    UNIFORM = "uniform"
    """Each sample once in an epoch."""
    IMPORTANCE = "importance"
    """One batch drawn from every `GROUP_BATCHES` batches in the epoch's order, in proportion to the samples' losses."""


class Consistency(enum.Enum):
    """The moments at which the replicas are equal."""

    EVERY_ROUND = "every_round"
    """Replicas equal bit by bit on all devices that have completed the same round."""
    AT_END = "at_end"
    """Replicas equal at the end only. Every trainer goes on from parameters of its own; rounds carry evaluations of
    these, until one more round merges all into the final state."""
    NONE = "none"
    """Replicas never equal: trainers go on from parameters of their own, nothing is ever merged, every device ends with
    its own."""


@attrs.frozen(kw_only=True)
class Outer:
    """The outer optimiser, which applies the merged delta to the state. Rates are in parts per million, to stay in
    integers."""

    kind: OuterKind = OuterKind.PLAIN
    rate_ppm: int = PPM
    momentum_ppm: int = 0


@attrs.frozen(kw_only=True)
class MixingEdge:
    """Two trainers that exchange parameters, and the weight with which each takes in the other's."""

    first: DeviceId
    second: DeviceId
    """The greater ID of the two."""
    weight_ppm: int
    """Weight of the other's parameters in the mean, in parts per million."""


@attrs.frozen(kw_only=True)
class Mixing:
    """Gossip: after every `every_steps` local steps each trainer waits for the parameters of its neighbours and takes
    the weighted mean of theirs and its own, whose weight is what the links leave."""

    every_steps: int
    exchanges: int
    """Exchanges in a round, which is over after the last one, however many samples were trained."""
    links: tuple[MixingEdge, ...]

    def neighbours(self, device: DeviceId) -> dict[DeviceId, int]:
        """Weights of the neighbours of `device`, in parts per million, by neighbour."""
        return {
            link.second if link.first == device else link.first: link.weight_ppm
            for link in self.links
            if device in (link.first, link.second)
        }


@attrs.frozen(kw_only=True)
class Member:
    """A device that takes part in a plan, in one of its lives."""

    device: DeviceId
    life: Life
    data_epoch: int = 0
    """The device's data set that the plan's assignments mean, by its `Profile.data_epoch`."""
    held_out: int = 0
    """Samples that the device holds out for evaluations; 0 where there is a common evaluation set."""


SUSPENDED = "its work stands still"
"""The `reason` of a device that is left out until it shows progress."""


@attrs.frozen(kw_only=True)
class LeftOut:
    """A living device that is no member, and why."""

    device: DeviceId
    life: Life
    reason: str


@attrs.frozen(kw_only=True)
class Assignment:
    """A share of a lender's samples that one trainer trains: `counts[label]` samples (its own where `lender` is
    `trainer`)."""

    lender: DeviceId
    trainer: DeviceId
    counts: tuple[int, ...]

    @property
    def samples(self) -> int:
        """Number of assigned samples, over all labels."""
        return sum(self.counts)


@attrs.frozen(kw_only=True)
class Idle:
    """Samples of a member that nobody trains for now, and why."""

    device: DeviceId
    counts: tuple[int, ...]
    reason: str


@attrs.frozen(kw_only=True)
class TrainerRole:
    """One trainer's part in every round."""

    device: DeviceId
    round_samples: int
    """Samples that the device is planned to train between two merges."""
    evaluation: tuple[int, int] = (0, 0)
    """Share `[start, stop)` of the common evaluation set that the device evaluates."""
    batch_size: int = 0
    """Samples of one of the device's steps; 0: the task's batch size."""
    steps_us: int = 0
    """Planned microseconds of its steps in a round. Where rounds show another time, quotas follow it
    (`round_report.quotas`); 0: the quota stays as it is."""


@attrs.frozen(kw_only=True)
class SliceOwner:
    """A slice of the state: `owner` merges elements `[start, stop)` of the flat vector."""

    owner: DeviceId
    start: int
    stop: int


@attrs.frozen(kw_only=True)
class Range:
    """Positions `[start, stop)` in a lender's order of its samples of one label."""

    label: int
    start: int
    stop: int


@attrs.frozen(kw_only=True)
class Plan:
    """The work of a cluster until its next plan. Canonical: every tuple is sorted by device (slices by `start`)."""

    members: tuple[Member, ...]
    """Devices that take part, trainers or not."""
    left_out: tuple[LeftOut, ...] = ()
    """Living devices that are no members, each with the reason."""
    trainers: tuple[TrainerRole, ...] = ()
    """Members that train; empty: the plan contains no work."""
    assignments: tuple[Assignment, ...] = ()
    """Samples by lender and trainer."""
    idle: tuple[Idle, ...] = ()
    """Samples that nobody trains for now, each entry with the reason."""
    slices: tuple[SliceOwner, ...] = ()
    """Slices of the state and their owners; they cover `[0, state_elements)` without gap or overlap if there is
    work."""
    encoding: Encoding = Encoding.FLOAT32
    """Encoding of contributions, merged slices and exchanged parameters."""
    outer: Outer = Outer()
    consistency: Consistency = Consistency.EVERY_ROUND
    quorum: int = 0
    """Contributions that make a merged slice; 0: all that come before the owner's deadline."""
    staleness_max: int = 0
    """Rounds by which a contribution may lag behind the one that merges it, with weight `1 / sqrt(1 + lag)`.

    Above 0 the plan is asynchronous: the one owner completes the rounds, and nobody else follows them. A trainer
    fetches the newest state whenever its last contribution has arrived; all others get the final one.
    """
    mixing: Mixing | None = None
    """Exchange of parameters between neighbours; only where trainers go on from parameters of their own."""
    proximal_ppm: int = 0
    """Pull of local steps towards the round's start, in parts per million: this part of the distance is added to the
    gradient (FedProx, arXiv 1812.06127, equation 2)."""
    sampling: Sampling = Sampling.UNIFORM
    evaluate_every: int = 1
    """Rounds from one evaluation to the next."""
    round_us: int = 0
    """Planned microseconds of one round, merge included."""
    samples_total: int = 0
    """Samples of all members that some trainer trains: one epoch."""
    epochs_max: int = 0
    """Epochs after which the run ends without reaching the target."""
    seed: int = 0
    """Seed of the sampling orders."""
    why: str = ""
    """The reason for this plan, one sentence for people."""

    @property
    def has_work(self) -> bool:
        """Whether anybody trains."""
        return bool(self.trainers)

    @property
    def asynchronous(self) -> bool:
        """Whether trainers do not wait for rounds."""
        return self.staleness_max > 0

    def member(self, device: DeviceId) -> Member | None:
        """`device` as a member, or `None`."""
        return next((member for member in self.members if member.device == device), None)

    def life_of(self, device: DeviceId) -> Life | None:
        """The life in which `device` is a member, or `None`."""
        member = self.member(device)
        return None if member is None else member.life

    def samples_borrowed(self, device: DeviceId) -> int:
        """How many samples of others `device` trains."""
        return sum(each.samples for each in self.assignments if each.trainer == device != each.lender)

    def trainer(self, device: DeviceId) -> TrainerRole | None:
        """The part of `device` as a trainer, or `None`."""
        return next((trainer for trainer in self.trainers if trainer.device == device), None)

    def idle_by_device(self) -> dict[str, tuple[int, str]]:
        """Number of each device's samples that nobody trains, and why; without those of which all are trained."""
        found: dict[str, tuple[int, str]] = {}
        for idle in self.idle:
            samples, reasons = found.get(idle.device, (0, ""))
            found[idle.device] = (samples + sum(idle.counts), f"{reasons}; {idle.reason}" if reasons else idle.reason)
        return found

    def ranges(self) -> Iterator[tuple[Assignment, tuple[Range, ...]]]:
        """The positions that each assignment names.

        A lender keeps the head of its order per label and lends consecutive ranges behind it, borrowers in order of
        their IDs; the rest is idle. Every device computes the same ranges from the plan alone.
        """
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
    """BLAKE2b digest (16 bytes) of the plan's canonical form, by which devices compare plans."""
    return digest(plan)
