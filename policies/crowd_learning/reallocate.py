"""The encoding of deltas and the owners of slices: communication data reallocation (CrowdLearning, second module)."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from crowd.planning.encoding_size import BLOCK_ELEMENTS
from crowd.planning.estimate import (
    ELEMENT_BYTES,
    OWNING_COPIES,
    SyncCost,
    memory_needed_bytes,
    sync_cost,
)
from crowd.planning.plan import Encoding, SliceOwner
from crowd.planning.policy import Cluster
from crowd.planning.profile import Profile
from crowd.units import DeviceId, ceil_div
from policies.common import cut

ENCODING = Encoding.BLOCKWISE8
"""Encoding of deltas: a quarter of the bytes of float32 and, with error feedback, the same accuracy."""
SPLIT_GAIN_PERMILLE = 100
"""Part of a round, in thousandths, that more slices must save, as they are more messages."""


def slice_owners(
    cluster: Cluster, borrowed: Mapping[DeviceId, int], work_us: int, *, encoding: Encoding = ENCODING
) -> tuple[tuple[SliceOwner, ...], SyncCost] | None:
    """The owners of slices, and what a merge then costs; `None` if no member has the memory to merge.

    `borrowed` names the trainers and how many samples each has on loan; `work_us` is the time between two merges.
    Owners are the trainers with the best links; another member owns the only slice where no trainer can, or where its
    link saves a tenth of a round. There are as few slices as are within a tenth of a round of the fastest number.
    """
    elements = cluster.members[0].task.state_elements
    trainers = [member for member in cluster.by_link if member.device in borrowed]
    bystanders = [member for member in cluster.by_link if member.device not in borrowed]

    def has_free(member: Profile, needed_bytes: int) -> bool:
        lent = borrowed.get(member.device)
        used = memory_needed_bytes(member.task, trains=lent is not None, samples_borrowed=lent or 0)
        return member.memory_bytes - used >= needed_bytes

    best: tuple[tuple[SliceOwner, ...], SyncCost] | None = None
    fastest_us = 0
    for count in (1, 1, *_counts(len(borrowed))):
        largest = min(elements, ceil_div(ceil_div(elements, BLOCK_ELEMENTS), count) * BLOCK_ELEMENTS)
        needed = ELEMENT_BYTES * OWNING_COPIES * largest
        if count > 1:
            candidates: Sequence[Profile] = trainers
        else:
            candidates = cluster.by_link if best is not None else (*trainers, *bystanders)
        able = list(itertools.islice((one for one in candidates if has_free(one, needed)), count))
        if len(able) < count:
            continue
        slices = cut(elements, [member.device for member in able])
        cost = sync_cost(cluster, borrowed.keys(), slices, encoding)
        if best is None or _saves(best[1], cost, work_us):
            best = (slices, cost)
        elif count > 1 and cost.critical_us > fastest_us:
            break
        fastest_us = cost.critical_us
    return best


def _counts(trainers: int) -> Iterator[int]:
    """Numbers of slices to try: 2, 3, 4, 8, 16, …"""
    count = 2
    while count <= trainers:
        yield count
        count = count + 1 if count < 4 else 2 * count


def _saves(before: SyncCost, after: SyncCost, work_us: int) -> bool:
    round_us = max(work_us + before.critical_us, before.bystander_us)
    shorter_us = max(work_us + after.critical_us, after.bystander_us)
    return (round_us - shorter_us) * 1_000 > SPLIT_GAIN_PERMILLE * round_us
