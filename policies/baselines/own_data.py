"""The common parts of the baselines in which no sample moves: who trains, how many samples so many steps are, who
merges."""

from collections.abc import Sequence

import attrs

from crowd.planning.encoding_size import BLOCK_ELEMENTS
from crowd.planning.estimate import estimate, link_bytes_s, memory_needed_bytes
from crowd.planning.plan import (
    Assignment,
    Consistency,
    Encoding,
    Idle,
    Mixing,
    Outer,
    Plan,
    Sampling,
    SliceOwner,
    TrainerRole,
)
from crowd.planning.policy import Cluster
from crowd.planning.profile import Profile
from crowd.units import ceil_div
from policies.common import NO_MEMORY, cut, evaluation_shares


def trainers_at_home(cluster: Cluster) -> list[Profile]:
    """The members with samples and the memory to train them."""
    needed_bytes = memory_needed_bytes(cluster.members[0].task, trains=True)
    return [member for member in cluster.members if member.samples and member.memory_bytes >= needed_bytes]


def samples_of_steps(member: Profile, steps: int) -> int:
    """The number of its own samples that a device trains in so many steps: whole batches, but for the last of each
    epoch."""
    batch = member.task.batch_size
    epochs, rest = divmod(steps, ceil_div(member.samples, batch))
    return epochs * member.samples + min(rest * batch, member.samples)


def steps_per_epoch(trainers: Sequence[Profile]) -> int:
    """The number of steps of all trainers, in whole batches, that are an epoch of the cluster."""
    samples = sum(member.samples for member in trainers)
    return ceil_div(samples, len(trainers) * trainers[0].task.batch_size)


def reduce_scatter(trainers: Sequence[Profile]) -> tuple[SliceOwner, ...]:
    """Nearly equal slices of the state, one for every trainer to merge (the bandwidth-optimal all-reduce of Patarasuk
    and Yuan, J. Parallel Distrib. Comput. 2009, theorem 1: reduce-scatter, then all-gather). A trainer that has not the
    memory for that merges none; empty if nobody has."""
    owners = list(trainers)
    while owners:
        elements = owners[0].task.state_elements
        largest = min(elements, ceil_div(ceil_div(elements, BLOCK_ELEMENTS), len(owners)) * BLOCK_ELEMENTS)
        needed_bytes = memory_needed_bytes(owners[0].task, trains=True, owned_elements=largest)
        able = [member for member in owners if member.memory_bytes >= needed_bytes]
        if len(able) == len(owners):
            return cut(elements, [member.device for member in owners])
        owners = able
    return ()


def one_server(cluster: Cluster, trainers: Sequence[Profile]) -> tuple[SliceOwner, ...]:
    """One slice, which the member with the fastest link, and the memory for it, merges; empty if nobody has the
    memory."""
    task = cluster.members[0].task
    training = {member.device for member in trainers}
    able = [
        member
        for member in cluster.members
        if member.memory_bytes
        >= memory_needed_bytes(task, trains=member.device in training, owned_elements=task.state_elements)
    ]
    if not able:
        return ()
    server = min(able, key=lambda member: (-link_bytes_s(member), member.device))
    return (SliceOwner(owner=server.device, start=0, stop=task.state_elements),)


def rounds_per_epoch(trainers: Sequence[Profile], round_samples: Sequence[int]) -> int:
    """The number of rounds with so many samples of each trainer until as many as they hold have been trained."""
    return ceil_div(sum(member.samples for member in trainers), max(1, sum(round_samples)))


def plan_at_home(
    cluster: Cluster,
    trainers: Sequence[Profile],
    *,
    round_samples: Sequence[int],
    slices: tuple[SliceOwner, ...],
    why: str,
    batches: Sequence[int] = (),
    quorum: int | None = None,
    staleness_max: int = 0,
    consistency: Consistency = Consistency.EVERY_ROUND,
    mixing: Mixing | None = None,
    outer: Outer | None = None,
    proximal_ppm: int = 0,
    sampling: Sampling = Sampling.UNIFORM,
    evaluate_every: int = 1,
) -> Plan:
    """A plan in which the `trainers` train `round_samples` of their own samples each between two merges in float32, and
    samples of others are idle. `batches` are the trainers' batch sizes, where not the task's; a `quorum` of `None`
    waits for all. The other arguments are the plan's fields of the same name, and their defaults.
    """
    training = {member.device for member in trainers}
    shares = evaluation_shares(trainers, cluster.members[0].task.evaluation_samples)
    plan = Plan(
        members=(),
        trainers=tuple(
            TrainerRole(device=member.device, round_samples=samples, evaluation=share, batch_size=batch)
            for member, samples, share, batch in zip(
                trainers, round_samples, shares, batches or [0] * len(trainers), strict=True
            )
        ),
        assignments=tuple(
            Assignment(lender=member.device, trainer=member.device, counts=member.label_counts) for member in trainers
        ),
        idle=tuple(
            Idle(device=member.device, counts=member.label_counts, reason=NO_MEMORY)
            for member in cluster.members
            if member.samples and member.device not in training
        ),
        slices=slices,
        encoding=Encoding.FLOAT32,
        outer=Outer() if outer is None else outer,
        consistency=consistency,
        quorum=len(trainers) if quorum is None else quorum,
        staleness_max=staleness_max,
        mixing=mixing,
        proximal_ppm=proximal_ppm,
        sampling=sampling,
        evaluate_every=evaluate_every,
        samples_total=sum(member.samples for member in trainers),
        why=why,
    )
    return attrs.evolve(plan, round_us=estimate(cluster, plan).round_us)
