"""The common parts of policies: why samples stay idle, shares of the evaluation set, slices of the state, and the plan
in which nobody trains."""

import itertools
from collections.abc import Sequence

from crowd.planning.encoding_size import BLOCK_ELEMENTS
from crowd.planning.plan import Idle, Plan, SliceOwner
from crowd.planning.policy import Cluster
from crowd.planning.profile import Profile
from crowd.units import DeviceId, ceil_div

NO_MEMORY = "they may not leave it, and it has not the memory to train"
"""The reason for which samples are idle on a device that cannot train."""
NO_ROOM = "no trainer has the memory for them"
"""The reason for which lendable samples are idle."""


def cut(elements: int, owners: Sequence[DeviceId]) -> tuple[SliceOwner, ...]:
    """Nearly equal slices of `[0, elements)` in whole blocks, one for each of `owners`, in their order; fewer slices
    where there are fewer blocks than owners."""
    blocks = ceil_div(elements, BLOCK_ELEMENTS)
    count = min(len(owners), blocks)
    bounds = [min(elements, blocks * index // count * BLOCK_ELEMENTS) for index in range(count + 1)]
    return tuple(
        SliceOwner(owner=owner, start=start, stop=stop)
        for owner, (start, stop) in zip(owners, itertools.pairwise(bounds), strict=False)
    )


def evaluation_shares(trainers: Sequence[Profile], samples: int) -> tuple[tuple[int, int], ...]:
    """Contiguous shares `[start, stop)` of `[0, samples)`, in proportion to speed, in the order of `trainers`."""
    weights = [max(1, trainer.speed_kflops) for trainer in trainers]
    every, passed, start = sum(weights), 0, 0
    shares = []
    for weight in weights:
        passed += weight
        stop = samples * passed // every
        shares.append((start, stop))
        start = stop
    return tuple(shares)


def nobody_trains(cluster: Cluster) -> Plan:
    """The plan where no device has the memory to train and to merge: all samples are idle."""
    return Plan(
        members=(),
        idle=tuple(
            Idle(device=member.device, counts=member.label_counts, reason=NO_MEMORY)
            for member in cluster.members
            if member.samples
        ),
        why="no device has the memory to train and merge",
    )
