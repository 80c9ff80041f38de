"""The cost of a plan: memory, time and bytes, in integers only, so that every device ranks plans alike.

Layout: the constants; the costs of one device (`memory_needed_bytes`, `train_us`, `evaluation_us`); of a merge
(`sync_cost`) and of the moves (`ship_cost`); all of it together, to the target (`project`, `estimate`). The number of
epochs to the target is in `convergence`.

Model of the network: every device has its own link to a broker on a machine of its own (a star).
"""

from collections.abc import Collection, Iterable, Mapping

import attrs

from crowd.planning.convergence import CONFIRMING_ROUNDS, NOMINAL_EPOCHS, Mix, epochs_permille, label_totals, mix
from crowd.planning.encoding_size import Encoding, encoded_bytes
from crowd.planning.plan import GROUP_BATCHES, Consistency, Plan, Sampling, SliceOwner
from crowd.planning.policy import Cluster
from crowd.planning.profile import Profile, TaskFacts
from crowd.units import SECOND_US, DeviceId, ceil_div

# --- memory: copies of float32 elements -------------------------------------------------------------------------------

ELEMENT_BYTES = 4
REPLICA_COPIES = 5
"""Copies of the state that every member holds: live state, snapshot of the last round, outer optimiser, a state being
fetched or served, and the best one or that with which the run began."""
TRAINING_COPIES = 4
"""Further copies of the state on a trainer: gradient, delta, residual, inner optimiser."""
OWNING_COPIES = 4
"""Copies of its slices that an owner holds: the running sum, one decoded contribution, two encoded rounds kept for
repair."""

# --- network ----------------------------------------------------------------------------------------------------------

PHASE_US = 5_000
"""Latency of each of the two phases of a merge, and of the moves."""
MESSAGE_US = 500
"""A device's own work for each message: signature, decoding, the broker's turn."""
MESSAGE_BYTES = 512
"""Overhead of a message: manifest, signature and the headers of MQTT, TCP and IP."""


# --- one device -------------------------------------------------------------------------------------------------------


def memory_needed_bytes(task: TaskFacts, *, trains: bool, samples_borrowed: int = 0, owned_elements: int = 0) -> int:
    """Bytes of every copy of the state that a member holds in its role, and of the samples lent to it. A device's own
    samples and the activations of one batch are in the reserve that its memory budget leaves."""
    copies = REPLICA_COPIES + (TRAINING_COPIES if trains else 0)
    return (
        ELEMENT_BYTES * (copies * task.state_elements + OWNING_COPIES * owned_elements)
        + samples_borrowed * task.sample_bytes
    )


def memory_planned_bytes(plan: Plan, task: TaskFacts) -> dict[DeviceId, int]:
    """Bytes by `memory_needed_bytes` of every member that trains or owns a slice."""
    trainers = {trainer.device for trainer in plan.trainers}
    borrowed: dict[DeviceId, int] = {}
    for assignment in plan.assignments:
        if assignment.lender != assignment.trainer:
            borrowed[assignment.trainer] = borrowed.get(assignment.trainer, 0) + assignment.samples
    owned: dict[DeviceId, int] = {}
    for part in plan.slices:
        owned[part.owner] = owned.get(part.owner, 0) + part.stop - part.start
    return {
        device: memory_needed_bytes(
            task,
            trains=device in trainers,
            samples_borrowed=borrowed.get(device, 0),
            owned_elements=owned.get(device, 0),
        )
        for device in sorted(trainers | owned.keys())
    }


def samples_spare(plan: Plan, task: TaskFacts, device: DeviceId, memory_bytes: int) -> int:
    """How many samples more than the plan lends it the device has the memory for."""
    needed = memory_planned_bytes(plan, task).get(device, memory_needed_bytes(task, trains=False))
    return max(0, memory_bytes - needed) // task.sample_bytes


def training_flops(task: TaskFacts, samples: int, sampling: Sampling) -> int:
    """FLOPs of training `samples`, and of the forward passes, a third of that each, in which they were chosen."""
    scored = GROUP_BATCHES * samples if sampling is Sampling.IMPORTANCE else 0
    return (3 * samples + scored) * task.flops_per_sample // 3


def train_us(profile: Profile, samples: int) -> int:
    """Microseconds in which `profile`'s device trains `samples`."""
    return ceil_div(samples * profile.task.flops_per_sample * 1_000, max(1, profile.speed_kflops))


def evaluation_us(profile: Profile, samples: int) -> int:
    """Microseconds of the forward pass alone, a third of the training work, over `samples`."""
    return ceil_div(samples * profile.task.flops_per_sample * 1_000, 3 * max(1, profile.speed_kflops))


def link_bytes_s(profile: Profile) -> int:
    """Bytes per second of the slower direction of the device's link, by which links are ranked."""
    return min(profile.uplink_bytes_s, profile.downlink_bytes_s)


def _link_us(size_bytes: int, rate_bytes_s: int) -> int:
    return ceil_div(size_bytes * SECOND_US, max(1, rate_bytes_s))


def _transfer_us(profile: Profile, up_bytes: int, down_bytes: int) -> int:
    return max(_link_us(up_bytes, profile.uplink_bytes_s), _link_us(down_bytes, profile.downlink_bytes_s))


# --- a merge ----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class SyncCost:
    """The cost of one merge."""

    critical_us: int
    """Microseconds from the last local step to the merged state on every trainer."""
    bystander_us: int
    """Microseconds that the slowest member that neither trains nor owns a slice takes to receive: no round can be
    shorter, yet nobody waits for it."""
    bytes_total: int
    """Bytes of the merge on all links, up and down."""


def sync_cost(
    cluster: Cluster, trainers: Collection[DeviceId], slices: Iterable[SliceOwner], encoding: Encoding
) -> SyncCost:
    """The cost of a merge in two phases: contributions go up to the slice owners; each merged slice goes up once and
    down to all others."""
    profiles = cluster.by_device
    owned: dict[DeviceId, tuple[int, int]] = {}
    every_bytes = every_slices = 0
    for part in slices:
        size = encoded_bytes(encoding, part.stop - part.start) + MESSAGE_BYTES
        size_before, slices_before = owned.get(part.owner, (0, 0))
        owned[part.owner] = (size_before + size, slices_before + 1)
        every_bytes += size
        every_slices += 1
    senders, listeners = len(trainers), len(cluster.members) - 1
    collect_us = fan_out_us = bystander_us = 0
    slowest_up, slowest_down, slowest_bystander = _slowest_links(cluster, trainers, owned)
    handling_us = every_slices * MESSAGE_US
    if slowest_up is not None and slowest_down is not None:
        collect_us = _link_us(every_bytes, slowest_up) + handling_us
        fan_out_us = _link_us(every_bytes, slowest_down) + handling_us
    if slowest_bystander is not None:
        bystander_us = _link_us(every_bytes, slowest_bystander) + handling_us
    for owner, (own_bytes, own_slices) in owned.items() if listeners else ():
        member, trains = profiles[owner], owner in trainers
        others = senders - trains
        sent_bytes, sent = (every_bytes - own_bytes, every_slices - own_slices) if trains else (0, 0)
        messages = sent + others * own_slices
        collect_us = max(collect_us, _transfer_us(member, sent_bytes, others * own_bytes) + messages * MESSAGE_US)
        fan_out_us = max(fan_out_us, _transfer_us(member, own_bytes, every_bytes - own_bytes) + handling_us)
    # Up and down: every trainer's contribution to every slice but its own, and every slice once up and down to all.
    contributions_bytes = sum(size * (senders - (owner in trainers)) for owner, (size, _) in owned.items())
    return SyncCost(
        critical_us=collect_us + fan_out_us + ((collect_us > 0) + (fan_out_us > 0)) * PHASE_US,
        bystander_us=bystander_us,
        bytes_total=2 * contributions_bytes + every_bytes * ((listeners > 0) + listeners),
    )


def _slowest_links(
    cluster: Cluster, trainers: Collection[DeviceId], owners: Collection[DeviceId]
) -> tuple[int | None, int | None, int | None]:
    """The slowest links of devices that own no slice, in bytes/s: uplink and downlink of a trainer, downlink of a
    bystander."""
    up = next((rate for rate, device in cluster.by_uplink if device in trainers and device not in owners), None)
    down = next((rate for rate, device in cluster.by_downlink if device in trainers and device not in owners), None)
    bystander = next(
        (rate for rate, device in cluster.by_downlink if device not in trainers and device not in owners), None
    )
    return up, down, bystander


# --- moves ------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ShipCost:
    """The cost of sending all lent samples to their borrowers."""

    ship_us: int
    """Microseconds until the last sample has arrived."""
    bytes_total: int
    """Bytes of the samples on all links, up and down."""


def ship_cost(cluster: Cluster, lent: Mapping[DeviceId, int], borrowed: Mapping[DeviceId, int]) -> ShipCost:
    """The cost of moving `lent[device]` samples away from and `borrowed[device]` samples to each device."""
    size = cluster.members[0].task.sample_bytes
    moved = sum(lent.values()) + sum(borrowed.values())
    if not moved:
        return ShipCost(ship_us=0, bytes_total=0)
    profiles = cluster.by_device
    slowest_us = max(
        max((_link_us(count * size, profiles[device].uplink_bytes_s) for device, count in lent.items()), default=0),
        max(
            (_link_us(count * size, profiles[device].downlink_bytes_s) for device, count in borrowed.items()), default=0
        ),
    )
    return ShipCost(ship_us=slowest_us + PHASE_US, bytes_total=moved * size)


def moves(plan: Plan) -> tuple[dict[DeviceId, int], dict[DeviceId, int]]:
    lent: dict[DeviceId, int] = {}
    borrowed: dict[DeviceId, int] = {}
    for assignment in plan.assignments:
        if assignment.lender != assignment.trainer:
            lent[assignment.lender] = lent.get(assignment.lender, 0) + assignment.samples
            borrowed[assignment.trainer] = borrowed.get(assignment.trainer, 0) + assignment.samples
    return lent, borrowed


# --- together ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Estimate:
    """The projected cost of a plan: one round, and the whole run to the target."""

    round_us: int
    """Microseconds of a round: local steps, evaluation and merge."""
    sync_us: int
    """Microseconds of the merge within a round."""
    rounds: int
    """Rounds to the target."""
    ship_us: int
    """Microseconds of the moves before the first round."""
    total_us: int
    """Microseconds to the target: moves and rounds."""
    bytes_total: int
    """Bytes to the target on all links, up and down: moves and rounds."""


def project(
    task: TaskFacts, *, spread: Mix, round_samples: int, work_us: int, sync: SyncCost, ship: ShipCost
) -> Estimate:
    """The cost of a whole run from its parts: `round_samples` of all trainers together, `work_us` of the slowest in a
    round. Samples that are idle, or trained less often than others, are made up for with longer training."""
    round_us = max(work_us + sync.critical_us, sync.bystander_us)
    epochs = epochs_permille(
        effective_trainers_permille=spread.effective_trainers_permille,
        skew_permille=spread.skew_permille,
        scarcest_permille=spread.scarcest_permille,
    )
    nominal = min(NOMINAL_EPOCHS, task.epochs_max)
    rounds = (
        ceil_div(nominal * spread.samples * spread.samples * epochs, 1_000 * spread.effective * round_samples)
        + CONFIRMING_ROUNDS
    )
    return Estimate(
        round_us=round_us,
        sync_us=sync.critical_us,
        rounds=rounds,
        ship_us=ship.ship_us,
        total_us=ship.ship_us + rounds * round_us,
        bytes_total=ship.bytes_total + rounds * sync.bytes_total,
    )


def estimate(cluster: Cluster, plan: Plan) -> Estimate:
    """The cost of `plan`, which must contain work, on this cluster."""
    profiles = {member.device: member for member in cluster.members}
    counts: dict[DeviceId, list[int]] = {trainer.device: [] for trainer in plan.trainers}
    for assignment in plan.assignments:
        labels = counts[assignment.trainer]
        labels.extend([0] * (len(assignment.counts) - len(labels)))
        for label, count in enumerate(assignment.counts):
            labels[label] += count
    work_us = 0
    for trainer in plan.trainers:
        profile = profiles[trainer.device]
        evaluated = trainer.evaluation[1] - trainer.evaluation[0] or profile.held_out
        flops = training_flops(profile.task, trainer.round_samples, plan.sampling)
        training_us = ceil_div(flops * 1_000, max(1, profile.speed_kflops))
        work_us = max(work_us, training_us + evaluation_us(profile, evaluated) // plan.evaluate_every)
    # what trainers keep to themselves travels to neighbours alone
    encoding = plan.encoding if plan.consistency is Consistency.EVERY_ROUND else Encoding.NONE
    sync = sync_cost(cluster, counts.keys(), plan.slices, encoding)
    sync = attrs.evolve(sync, bytes_total=sync.bytes_total + _mixing_bytes(plan, cluster.members[0].task))
    return project(
        cluster.members[0].task,
        spread=mix(
            label_totals(cluster), [(trainer.round_samples, tuple(counts[trainer.device])) for trainer in plan.trainers]
        ),
        round_samples=sum(trainer.round_samples for trainer in plan.trainers),
        work_us=work_us + _mixing_us(plan, profiles),
        sync=sync,
        ship=ship_cost(cluster, *moves(plan)),
    )


def _mixing_bytes(plan: Plan, task: TaskFacts) -> int:
    """Bytes of all exchanges of a round: over each pair's link both ways, each time up and down."""
    if plan.mixing is None:
        return 0
    size = encoded_bytes(plan.encoding, task.state_elements) + MESSAGE_BYTES
    return plan.mixing.exchanges * len(plan.mixing.links) * 4 * size


def _mixing_us(plan: Plan, profiles: Mapping[DeviceId, Profile]) -> int:
    """Microseconds of all exchanges of a round, each as long as for the trainer with the most neighbours for its
    link."""
    if plan.mixing is None:
        return 0
    exchange_us = 0
    for trainer in plan.trainers:
        profile, neighbours = profiles[trainer.device], len(plan.mixing.neighbours(trainer.device))
        sent_bytes = neighbours * (encoded_bytes(plan.encoding, profile.task.state_elements) + MESSAGE_BYTES)
        exchange_us = max(exchange_us, _transfer_us(profile, sent_bytes, sent_bytes) + 2 * neighbours * MESSAGE_US)
    return plan.mixing.exchanges * (exchange_us + PHASE_US)
