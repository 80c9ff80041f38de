"""The assignment of samples to trainers: heterogeneous resource-aware task offloading (CrowdLearning, first module).

Layout: `CostTables` (the cluster, laid out once for many tries), `Candidate` (one way to split the work), `offload`
(the `Allocation` of a candidate), `assign` (an allocation's moves, fewest bytes first). An allocation knows how many
samples of each label every device keeps, lends and borrows, which is all that costs depend on; whom it lends them to is
found only for the allocation that wins.

Device by device, every try is `O(devices x labels)`.
"""

import enum
import functools
from collections.abc import Iterable, Mapping, Sequence

import attrs

from crowd.planning.convergence import NOMINAL_EPOCHS, label_totals, lost_tenths
from crowd.planning.estimate import link_bytes_s, memory_needed_bytes
from crowd.planning.plan import Assignment, Idle
from crowd.planning.policy import Cluster
from crowd.planning.profile import Profile, Share
from crowd.units import DeviceId
from policies.common import NO_MEMORY, NO_ROOM
from policies.labels import deal, match, padded

PICO = 10**12
"""Picoseconds of a second, in which work is counted: a fast device takes less than a microsecond for a small sample."""

NOT_WORTH = "they stay where they are, and training there would cost more than it brings"
"""The reason for which samples are idle on a device that had better not train."""
TOO_SLOW = "they stay where they are, and it is too slow for one batch in a round"
"""The reason for which samples are idle on a device that cannot train a batch in time."""


class Pace(enum.Enum):
    """The part of its own samples, which no other device may train, that a slow device trains in each epoch."""

    FREE = "free"
    """As many samples as fit into the time in which the lent samples are trained."""
    BALANCE = "balance"
    """As many samples as fit if all work were spread evenly."""
    FULL = "full"
    """All samples; the others wait."""


@attrs.frozen(kw_only=True)
class Candidate:
    """One way to split the work."""

    borrowers: int
    """Trainers, the fastest first, that may be given samples of others."""
    poor_links_out: int = 0
    """Trainers with the worst links that do not train, those that are needed last."""
    non_lending: int = 0
    """Sharing trainers with the worst links that train their own samples instead of lending them."""
    stragglers_out: int = 0
    """Slowest own-data-only devices that stay idle, those that are needed last."""
    pace: Pace = Pace.FREE
    """Part of its own samples that a slow device trains."""
    balanced: bool = True
    """Whether borrowers swap samples until each has all labels in proportion, or keep what they have."""


class CostTables:
    """The costs of a cluster's devices, laid out for many tries."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.task = cluster.members[0].task
        self.totals = label_totals(cluster)
        self.labels = len(self.totals)
        self.own = {member.device: padded(member.label_counts, self.labels) for member in cluster.members}
        """Samples that each device holds, by label, all of one length."""
        self.epochs = min(NOMINAL_EPOCHS, self.task.epochs_max)
        trainer_bytes = memory_needed_bytes(self.task, trains=True)
        owner_bytes = memory_needed_bytes(self.task, trains=True, owned_elements=self.task.state_elements)
        able = [member for member in cluster.members if member.memory_bytes >= trainer_bytes]
        self.needed = {
            member.device
            for member in able
            if member.share is not Share.RAW and lost_tenths(self.totals, member.label_counts)
        }
        """Devices that must train, or a label is short of samples that nobody else can train."""
        self.by_speed = sorted(able, key=lambda member: (-member.speed_kflops, member.device))
        """Devices with the memory to train, fastest first."""
        self.by_link = sorted(
            able, key=lambda member: (member.device in self.needed, link_bytes_s(member), member.device)
        )
        """Devices with the memory to train, worst link first; those that are needed last."""
        self.sharing = [member for member in self.by_link if member.share is Share.RAW and member.samples]
        self.room = {
            member.device: (
                member.memory_bytes - (owner_bytes if member.memory_bytes >= owner_bytes else trainer_bytes)
            )
            // max(1, self.task.sample_bytes)
            for member in able
        }
        """Samples that each device can borrow. A device that could also own the state keeps the memory for that
        free."""
        self.cost = {member.device: self._cost(member) for member in able}
        """Picoseconds that each device takes for one sample in all epochs."""
        self.fetch = {
            member.device: self.task.sample_bytes * PICO // max(1, member.downlink_bytes_s) for member in able
        }
        """Picoseconds that each device takes to receive one sample, once."""

    def batch(self, samples: int) -> int:
        """Samples of a step of a device that trains so many."""
        return min(self.task.batch_size, samples)

    def _cost(self, member: Profile) -> int:
        return max(1, self.epochs * self.task.flops_per_sample * (PICO // 1_000) // max(1, member.speed_kflops))


@attrs.frozen(kw_only=True)
class Load:
    """One trainer's part in an allocation."""

    profile: Profile
    kept: tuple[int, ...]
    """Own samples that the device trains, by label."""
    borrowed: tuple[int, ...]
    """Borrowed samples that the device trains, by label."""
    epoch_samples: int
    """Samples that the device trains in an epoch: all, or less where it trains its own samples at its own pace."""

    @functools.cached_property
    def counts(self) -> tuple[int, ...]:
        return tuple(map(int.__add__, self.kept, self.borrowed))


@attrs.frozen(kw_only=True)
class Allocation:
    """The split of the samples by a candidate, before lenders are matched with borrowers. All label tuples have the
    same length."""

    loads: tuple[Load, ...]
    lent: Mapping[DeviceId, tuple[int, ...]]
    """Samples that each lender can give away, by label; more than is borrowed where memory is short."""
    idle: Mapping[DeviceId, str]
    """Devices whose own samples nobody trains, and why."""
    lost: int
    """What labels lose by samples that nobody trains: `lost_tenths`."""


def offload(tables: CostTables, candidate: Candidate) -> Allocation | None:
    """The split that `candidate` describes, or `None` if nobody would train anything.

    Borrowed and shared samples are spread so that all borrowers finish together, the time to fetch them included.
    """
    excluded = {member.device for member in tables.by_link[: candidate.poor_links_out]}
    trainers = [member for member in tables.by_speed if member.device not in excluded]
    borrowers = trainers[: candidate.borrowers]
    non_lending = {member.device for member in tables.sharing[: candidate.non_lending]} - excluded
    pinned = {
        member.device: member
        for member in tables.cluster.members
        if member.samples and (member.share is not Share.RAW or member.device in non_lending)
    }
    own_data_only = [member for member in trainers[candidate.borrowers :] if member.device in pinned]
    own_data_only.sort(key=lambda member: member.device not in tables.needed)
    own_data_only = own_data_only[: max(0, len(own_data_only) - candidate.stragglers_out)]
    lenders = [member for member in tables.cluster.members if member.samples and member.device not in pinned]

    pool = list(tables.totals)
    for device in pinned:
        pool = list(map(int.__sub__, pool, tables.own[device]))
    deadline, targets = _targets(tables, borrowers, pinned.keys(), sum(pool))
    deadline = _paced(tables, candidate.pace, deadline, [*borrowers, *own_data_only], pinned)
    wants = deal(borrowers, pinned.keys(), targets, pool, tables.room, balanced=candidate.balanced)

    loads = []
    lent = {member.device: tables.own[member.device] for member in lenders}
    for member, want in zip(borrowers, wants, strict=True):
        own = tables.own[member.device]
        kept = (
            own
            if member.device in pinned
            else tuple([have if have < count else count for have, count in zip(own, want, strict=True)])
        )
        borrowed = want if member.device in pinned else tuple(map(int.__sub__, want, kept))
        if member.device in lent:
            lent[member.device] = tuple(map(int.__sub__, own, kept))
        loads.append(_load(tables, member, kept, borrowed, deadline if member.device in pinned else None))
    for member in own_data_only:
        own = tables.own[member.device]
        loads.append(_load(tables, member, own, (0,) * tables.labels, deadline))
    idle = _idle(tables, loads, pinned)
    loads = [load for load in loads if load.epoch_samples and load.profile.device not in idle]
    if not loads:
        return None
    return Allocation(
        loads=tuple(sorted(loads, key=lambda load: load.profile.device)),
        lent=lent,
        idle=idle,
        lost=_lost(tables, idle, pool, wants),
    )


def _idle(tables: CostTables, loads: Iterable[Load], pinned: Iterable[DeviceId]) -> dict[DeviceId, str]:
    """The `pinned` devices whose own samples nobody trains, and why."""
    idle = {
        device: NOT_WORTH if device in tables.cost else NO_MEMORY
        for device in set(pinned) - {load.profile.device for load in loads}
    }
    for load in loads:
        if load.profile.device in pinned and load.epoch_samples < tables.batch(sum(load.counts)):
            idle[load.profile.device] = TOO_SLOW
    return idle


def _lost(tables: CostTables, idle: Iterable[DeviceId], pool: Sequence[int], wants: Iterable[Sequence[int]]) -> int:
    """What labels lose by the samples of `idle` devices, and by those of the `pool` for which no borrower has room."""
    left = list(pool)
    for want in wants:
        left = list(map(int.__sub__, left, want))
    for device in idle:
        left = list(map(int.__add__, left, tables.own[device]))
    return lost_tenths(tables.totals, left)


def _load(
    tables: CostTables, member: Profile, kept: tuple[int, ...], borrowed: tuple[int, ...], deadline: int | None
) -> Load:
    samples = sum(kept) + sum(borrowed)
    if deadline is not None and not any(borrowed):
        in_time = deadline // tables.cost[member.device]
        if member.device in tables.needed:
            in_time = max(in_time, tables.batch(samples))
        samples = min(samples, in_time)
    return Load(profile=member, kept=kept, borrowed=borrowed, epoch_samples=samples)


# --- how many each --------------------------------------------------------------------------------------------------


def _targets(
    tables: CostTables, borrowers: Sequence[Profile], pinned: Iterable[DeviceId], samples: int
) -> tuple[int, list[int]]:
    """The time at which all borrowers finish all epochs, in picoseconds, and how many of the `samples` each of them is
    to train by then: in proportion to its speed, less what the time to fetch borrowed samples costs, within its
    memory."""
    pinned = set(pinned)
    curves = []
    capacity = 0
    for member in borrowers:
        cost, room, is_pinned = tables.cost[member.device], tables.room[member.device], member.device in pinned
        kept = 0 if is_pinned else member.samples
        curves.append((cost, cost + tables.fetch[member.device], member.samples * cost, kept, room, is_pinned))
        capacity += room + kept

    def by(deadline: int) -> list[int]:
        counts = []
        for cost, fetched_cost, own_work, kept, room, is_pinned in curves:
            if deadline > own_work:
                more = (deadline - own_work) // fetched_cost
                counts.append(kept + (room if more > room else more))
            else:
                counts.append(0 if is_pinned else deadline // cost)
        return counts

    samples = min(samples, capacity)
    if not samples:
        return 0, [0] * len(borrowers)
    low, high = 0, samples * min(curve[0] for curve in curves) // len(curves) + 1
    while sum(by(high)) < samples:
        low, high = high, 2 * high
    while high - low > (low >> 10) + 1:
        middle = (low + high) // 2
        low, high = (low, middle) if sum(by(middle)) >= samples else (middle, high)
    counts, ceilings = by(low), by(high)
    missing = samples - sum(counts)
    for index, ceiling in enumerate(ceilings):
        extra = min(ceiling - counts[index], missing)
        counts[index] += extra
        missing -= extra
    return high, counts


def _paced(
    tables: CostTables, pace: Pace, deadline: int, trainers: Sequence[Profile], pinned: Mapping[DeviceId, Profile]
) -> int:
    """The time by which devices that train only their own samples must be done with all epochs of them, in
    picoseconds."""
    alone = [member for member in trainers if member.device in pinned]
    if not alone:
        return deadline
    full = max(member.samples * tables.cost[member.device] for member in alone)
    rate = sum(PICO * PICO // tables.cost[member.device] for member in trainers)
    samples = sum(member.samples for member in tables.cluster.members)
    balance = samples * PICO * PICO // max(1, rate)
    match pace:
        case Pace.FULL:
            return max(deadline, full)
        case Pace.BALANCE:
            return max(deadline, balance)
        case Pace.FREE:
            return deadline or balance


# --- from whom to whom ------------------------------------------------------------------------------------------------


def assign(tables: CostTables, allocation: Allocation) -> tuple[tuple[Assignment, ...], tuple[Idle, ...]]:
    """The allocation's assignments and idle samples, as a plan states them."""
    lengths = {member.device: len(member.label_counts) for member in tables.cluster.members}
    lacks = {load.profile.device: load.borrowed for load in allocation.loads}
    moves, left = match(allocation.lent, lacks)
    moves.update({(load.profile.device, load.profile.device): load.kept for load in allocation.loads if any(load.kept)})
    assignments = tuple(
        Assignment(lender=lender, trainer=trainer, counts=counts[: lengths[lender]])
        for (lender, trainer), counts in sorted(moves.items())
    )
    idle = {device: (counts[: lengths[device]], NO_ROOM) for device, counts in left.items()}
    for member in tables.cluster.members:
        if member.device in allocation.idle:
            idle[member.device] = (member.label_counts, allocation.idle[member.device])
    return assignments, tuple(
        Idle(device=device, counts=counts, reason=reason) for device, (counts, reason) in sorted(idle.items())
    )
