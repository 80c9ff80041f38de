"""Mercury (Zeng et al., SenSys 2021): distributed training on devices by stochastic importance sampling.

Synchronous data-parallel SGD in which every step trains samples drawn in proportion to their importance, with weights
that keep the gradient unbiased. Importance is worked out for one group of samples at a time, so that it stays cheap,
and samples are dealt anew to the devices so that each holds as much importance as the others.

Written after the paper's abstract. Departures: importance is the loss, in a group of twice the batch, from which the
batch is drawn at once; as a plan is made before anything is trained, samples are dealt so that all devices hold as many
of every label, where the paper deals by importance; the paper's overlap of communication with computation is left out.
"""

import attrs

from crowd.planning.estimate import estimate, memory_needed_bytes
from crowd.planning.plan import Assignment, Plan, Sampling, SliceOwner
from crowd.planning.policy import Cluster, Policy
from crowd.planning.profile import Profile, Share
from crowd.units import DeviceId
from policies.baselines.own_data import (
    plan_at_home,
    reduce_scatter,
    rounds_per_epoch,
    samples_of_steps,
    trainers_at_home,
)
from policies.common import nobody_trains
from policies.labels import Counts, deal, match, padded


class Mercury(Policy):
    """Samples are dealt evenly. All merge after every step on the samples that are most in need of it."""

    def plan(self, cluster: Cluster) -> Plan:
        trainers = trainers_at_home(cluster)
        slices = reduce_scatter(trainers)
        if not slices:
            return nobody_trains(cluster)
        assignments = _resharded(cluster, trainers, slices)
        held = {member.device: 0 for member in trainers}
        for assignment in assignments:
            held[assignment.trainer] += assignment.samples
        dealt = [attrs.evolve(member, label_counts=(held[member.device],)) for member in trainers]
        batches = [samples_of_steps(member, 1) for member in dealt]
        plan = plan_at_home(
            cluster,
            trainers,
            round_samples=batches,
            slices=slices,
            sampling=Sampling.IMPORTANCE,
            evaluate_every=rounds_per_epoch(trainers, batches),
            why=f"{len(trainers)} of {len(cluster.members)} devices hold equal parts of the samples, train those with "
            "the largest loss and merge after every step",
        )
        plan = attrs.evolve(plan, assignments=assignments)
        return attrs.evolve(plan, round_us=estimate(cluster, plan).round_us)


def _resharded(cluster: Cluster, trainers: list[Profile], slices: tuple[SliceOwner, ...]) -> tuple[Assignment, ...]:
    """The assignment of samples: all that may move spread evenly, with as many of every label for each. If a device has
    not the memory for its part, all keep their own."""
    task = cluster.members[0].task
    labels = max(len(member.label_counts) for member in cluster.members)
    own = {member.device: padded(member.label_counts, labels) for member in trainers}
    sharing = [member for member in trainers if member.share is Share.RAW]
    moves: dict[tuple[DeviceId, DeviceId], Counts] = {
        (member.device, member.device): own[member.device] for member in trainers if member not in sharing
    }
    if sharing:
        pool = [sum(counts) for counts in zip(*(own[member.device] for member in sharing), strict=True)]
        every, count = sum(pool), len(sharing)
        targets = [every * (place + 1) // count - every * place // count for place in range(count)]
        owned = {part.owner: part.stop - part.start for part in slices}
        room = {
            member.device: (
                member.memory_bytes - memory_needed_bytes(task, trains=True, owned_elements=owned.get(member.device, 0))
            )
            // max(1, task.sample_bytes)
            for member in sharing
        }
        dealt = deal(sharing, (), targets, pool, room, balanced=True)
        by_device = {member.device: dealt_one for member, dealt_one in zip(sharing, dealt, strict=True)}
        if any(sum(_less(dealt_one, own[device])) > room[device] for device, dealt_one in by_device.items()):
            by_device = {member.device: own[member.device] for member in sharing}
        surplus = {device: _less(own[device], dealt_one) for device, dealt_one in by_device.items()}
        lacks = {device: _less(dealt_one, own[device]) for device, dealt_one in by_device.items()}
        moves |= match(surplus, lacks)[0]
        moves |= {(device, device): tuple(map(min, own[device], dealt_one)) for device, dealt_one in by_device.items()}
    lengths = {member.device: len(member.label_counts) for member in trainers}
    return tuple(
        Assignment(lender=lender, trainer=trainer, counts=counts[: lengths[lender]])
        for (lender, trainer), counts in sorted(moves.items())
        if any(counts)
    )


def _less(some: Counts, others: Counts) -> Counts:
    return tuple(max(0, count - other) for count, other in zip(some, others, strict=True))
