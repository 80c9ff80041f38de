"""The labels that each borrower trains, and the lenders that they come from.

Layout: `proportional` (largest remainders), `deal` (shared samples to borrowers, label by label), `match` (surplus to
lack).
"""

from collections.abc import Collection, Mapping, Sequence

from crowd.planning.profile import Profile
from crowd.units import DeviceId

Counts = tuple[int, ...]
"""Samples by label."""


def padded(counts: Sequence[int], length: int) -> Counts:
    """`counts` with zeros up to `length`."""
    return (*counts, *[0] * (length - len(counts)))


def proportional(weights: Sequence[int], total: int) -> Counts:
    """A split of `total` in proportion to `weights` by largest remainders (ties: the first); no part exceeds its weight
    where `total` does not exceed their sum."""
    every = sum(weights)
    if not every or not total:
        return (0,) * len(weights)
    counts = [total * weight // every for weight in weights]
    missing = total - sum(counts)
    if missing:
        remainders = [total * weight % every for weight in weights]
        for index in sorted(range(len(weights)), key=remainders.__getitem__, reverse=True)[:missing]:
            counts[index] += 1
    return tuple(counts)


def deal(
    borrowers: Sequence[Profile],
    pinned: Collection[DeviceId],
    targets: Sequence[int],
    pool: Sequence[int],
    room: Mapping[DeviceId, int],
    *,
    balanced: bool,
) -> list[Counts]:
    """The samples of the `pool` that each borrower shall train, by label; they add up to its target.

    Balanced: all labels in proportion, except that a borrower without the `room` to swap for it keeps its own samples
    first, as everybody does if not balanced. The samples of `pinned` devices are not in the pool.
    """
    everybody = {member.device for member in borrowers} - set(pinned)
    keeping = set() if balanced else everybody
    for _ in range(2):
        wants = _hands(borrowers, targets, pool, keeping)
        tight = {
            member.device
            for member, want in zip(borrowers, wants, strict=True)
            if member.device in everybody and _lack(member, want) > room[member.device]
        }
        if not tight:
            return wants
        keeping |= tight
    return _hands(borrowers, targets, pool, everybody)


def _lack(member: Profile, want: Counts) -> int:
    own = padded(member.label_counts, len(want))
    return sum([count - have for count, have in zip(want, own, strict=True) if count > have])


def _hands(
    borrowers: Sequence[Profile], targets: Sequence[int], pool: Sequence[int], keeping: Collection[DeviceId]
) -> list[Counts]:
    """The counts dealt to each borrower, in proportion to what was left of every label before: both margins come out
    exactly."""
    left = list(pool)
    kept: list[Counts] = []
    for member, target in zip(borrowers, targets, strict=True):
        dealt_one: Counts = (0,) * len(pool)
        if member.device in keeping:
            dealt_one = proportional(padded(member.label_counts, len(pool)), min(target, member.samples))
            left = list(map(int.__sub__, left, dealt_one))
        kept.append(dealt_one)
    wants = []
    for target, dealt_one in zip(targets, kept, strict=True):
        more = proportional(left, target - sum(dealt_one))
        left = list(map(int.__sub__, left, more))
        wants.append(tuple(map(int.__add__, dealt_one, more)))
    return wants


def match(
    surplus: Mapping[DeviceId, Counts], lacks: Mapping[DeviceId, Counts]
) -> tuple[dict[tuple[DeviceId, DeviceId], Counts], dict[DeviceId, Counts]]:
    """The moves `(lender, borrower) -> counts`, and what is left over of each lender's surplus.

    The largest lack of a label is served from the largest surplus of it (ties: the lowest ID), so that few pairs of
    devices have to meet.
    """
    labels = max((len(counts) for counts in surplus.values()), default=0)
    left = {device: list(counts) for device, counts in surplus.items()}
    moves: dict[tuple[DeviceId, DeviceId], list[int]] = {}
    for label in range(labels):
        givers = sorted((-counts[label], device) for device, counts in left.items() if counts[label])
        takers = sorted((-counts[label], device) for device, counts in lacks.items() if counts[label])
        for less, borrower in takers:
            missing = -less
            while missing and givers:
                lender = givers[0][1]
                moved = min(missing, left[lender][label])
                moves.setdefault((lender, borrower), [0] * labels)[label] += moved
                left[lender][label] -= moved
                missing -= moved
                if not left[lender][label]:
                    givers.pop(0)
    return (
        {pair: tuple(counts) for pair, counts in moves.items()},
        {device: tuple(counts) for device, counts in left.items() if any(counts)},
    )
