"""Whether a plan may be carried out: what S2 and S4 (docs/protocol.md#agreement) and the plan's own form ask for."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from numbers import Number
from typing import Any

from crowd.errors import BadConfig
from crowd.planning.canonical import field_names
from crowd.planning.estimate import memory_planned_bytes
from crowd.planning.plan import PPM, SUSPENDED, Consistency, Plan
from crowd.planning.profile import Profile, Share, TaskFacts
from crowd.units import DeviceId

NO_SAMPLES = "no device has samples"
"""The `why` of a plan without work that cannot change by itself."""


def violations(plan: Plan, profiles: Iterable[Profile]) -> tuple[str, ...]:
    """Everything that is wrong with `plan` for these living devices, one sentence each; empty if it may be carried out.
    An engine refuses any other plan with `InfeasiblePlan`."""
    living = {profile.device: profile for profile in profiles}
    found = [*_shape(plan), *_members(plan, living)]
    if found:
        return tuple(found)
    members = {member.device: living[member.device] for member in plan.members}
    found.extend(_roles(plan, members))
    if found or not members:
        return tuple(found)
    task = next(iter(members.values())).task
    found.extend(_samples(plan, members))
    found.extend(_sharing(plan, members))
    found.extend(_memory(plan, members, task))
    found.extend(_trainers(plan, task))
    found.extend(_slices(plan, task))
    found.extend(_manner(plan))
    return tuple(found)


def check_hope(plan: Plan, device: str, members_min: int, members: Collection[DeviceId] = ()) -> None:
    """Raise `BadConfig` if, as things are, a run can never begin on `device`. While nobody trains, those of the
    `members` who have not come yet may be of its kind."""
    here = {member.device for member in plan.members} | {left_out.device for left_out in plan.left_out}
    may_change = not plan.has_work and not here.issuperset(members)
    for left_out in plan.left_out:
        if left_out.device == device and left_out.reason != SUSPENDED and not may_change:
            raise BadConfig(f"{device} is left out: {left_out.reason}; give it the others' and start it again")
    if plan.why == NO_SAMPLES and len(plan.members) >= members_min:
        devices = ", ".join(member.device for member in plan.members)
        raise BadConfig(f"{NO_SAMPLES} ({devices}): give at least one of them data to train")


def _shape(plan: Plan) -> Iterator[str]:
    """Violations of the plan's form: integers only, none negative, every tuple in its canonical order without
    repetition."""
    orders: dict[str, list[tuple[Any, ...]]] = {
        "members": [(member.device,) for member in plan.members],
        "left_out": [(left_out.device,) for left_out in plan.left_out],
        "trainers": [(trainer.device,) for trainer in plan.trainers],
        "assignments": [(assignment.lender, assignment.trainer) for assignment in plan.assignments],
        "idle": [(idle.device, idle.reason) for idle in plan.idle],
        "slices": [(part.start, part.stop) for part in plan.slices],
        "links": [(link.first, link.second) for link in plan.mixing.links] if plan.mixing else [],
    }
    for name, keys in orders.items():
        if any(first >= second for first, second in itertools.pairwise(keys)):
            yield f"{name} are not in canonical order"
    for number in _no_counts(plan):
        yield f"{number!r} is no count"


def _no_counts(plan: Plan) -> Iterator[object]:
    """The numbers in `plan` that are no counts; a life's and the seed need not be."""
    unseen: list[object] = [plan]
    while unseen:
        value = unseen.pop()
        kind = type(value)
        if kind is int:
            if value < 0:  # type: ignore[operator]
                yield value
        elif isinstance(value, str | bytes):
            pass
        elif isinstance(value, tuple | list):
            unseen.extend(value)
        elif isinstance(value, Number):
            yield value
        elif (names := field_names(kind)) is not None:  # type: ignore[arg-type]  # a class is hashable
            unseen.extend(getattr(value, name) for name in names if name not in ("life", "seed"))


def _members(plan: Plan, living: Mapping[DeviceId, Profile]) -> Iterator[str]:
    lives = [(member.device, member.life) for member in plan.members]
    lives.extend((left_out.device, left_out.life) for left_out in plan.left_out)
    for device, life in lives:
        profile = living.get(device)
        if profile is None or profile.life != life:
            yield f"{device} does not live in the life that the plan names"
    twice = {member.device for member in plan.members} & {member.device for member in plan.left_out}
    yield from (f"{device} is a member and left out" for device in sorted(twice))


def _roles(plan: Plan, members: Mapping[DeviceId, Profile]) -> Iterator[str]:
    """Violations of roles: only members have a part, only trainers are given samples, no work means none at all."""
    trainers = {trainer.device for trainer in plan.trainers}
    given = {assignment.trainer for assignment in plan.assignments}
    named = {assignment.lender for assignment in plan.assignments} | {idle.device for idle in plan.idle}
    for device in sorted((trainers | given | named | {part.owner for part in plan.slices}) - members.keys()):
        yield f"{device} is no member"
    yield from (f"{device} is given samples but is no trainer" for device in sorted(given - trainers))
    yield from (f"{device} is a trainer but is given no samples" for device in sorted(trainers - given))
    if not plan.has_work and plan.slices:
        yield "slices are owned though there is no work"


def _samples(plan: Plan, members: Mapping[DeviceId, Profile]) -> Iterator[str]:
    """Violations of S2: each sample of every member is assigned once or idle with a reason; a plan without work may
    leave it open."""
    placed = {device: [0] * len(profile.label_counts) for device, profile in members.items()}
    entries = [(assignment.lender, assignment.counts) for assignment in plan.assignments]
    for device, counts in (*entries, *((idle.device, idle.counts) for idle in plan.idle)):
        if len(counts) != len(placed[device]):
            yield f"{device} has {len(placed[device])} labels, but an entry names {len(counts)}"
            continue
        if not any(counts):
            yield f"an entry of {device} is empty"
        for label, count in enumerate(counts):
            placed[device][label] += count
    for device, profile in members.items():
        if tuple(placed[device]) != profile.label_counts and (plan.has_work or any(placed[device])):
            yield f"{device} holds {profile.label_counts}, but the plan places {tuple(placed[device])}"
    yield from (f"samples of {idle.device} are idle without a reason" for idle in plan.idle if not idle.reason)
    assigned = sum(assignment.samples for assignment in plan.assignments)
    if assigned != plan.samples_total:
        yield f"{assigned} samples are assigned, but the plan counts {plan.samples_total}"


def _sharing(plan: Plan, members: Mapping[DeviceId, Profile]) -> Iterator[str]:
    """Violations of S4: raw samples leave only a device that shares them."""
    for assignment in plan.assignments:
        share = members[assignment.lender].share
        if assignment.lender != assignment.trainer and share is not Share.RAW:
            yield f"{assignment.lender} lends to {assignment.trainer}, but shares {share.value}"


def _memory(plan: Plan, members: Mapping[DeviceId, Profile], task: TaskFacts) -> Iterator[str]:
    """Violations of S4: every device can hold what its part needs."""
    for device, needed in memory_planned_bytes(plan, task).items():
        if needed > members[device].memory_bytes:
            yield f"{device} needs {needed} bytes of memory, but has {members[device].memory_bytes}"


def _trainers(plan: Plan, task: TaskFacts) -> Iterator[str]:
    yield from (f"{trainer.device} trains nothing in a round" for trainer in plan.trainers if trainer.round_samples < 1)
    if plan.has_work:
        shares = [trainer.evaluation for trainer in plan.trainers]
        yield from _gaps("the evaluation set", shares, task.evaluation_samples)


def _slices(plan: Plan, task: TaskFacts) -> Iterator[str]:
    if plan.has_work:
        yield from _gaps("the state", [(part.start, part.stop) for part in plan.slices], task.state_elements)
        yield from (f"{part.owner} owns an empty slice" for part in plan.slices if part.start >= part.stop)


def _manner(plan: Plan) -> Iterator[str]:
    """Contradictions in how rounds are trained and merged."""
    trainers = {trainer.device for trainer in plan.trainers}
    if plan.has_work and plan.evaluate_every < 1:
        yield "no round is evaluated"
    if plan.quorum > len(trainers):
        yield f"{plan.quorum} contributions are awaited from {len(trainers)} trainers"
    if plan.asynchronous and not plan.quorum:
        yield "stale contributions are merged, but not after how many"
    if plan.asynchronous and len({part.owner for part in plan.slices}) > 1:
        yield "stale contributions are merged by several owners, so that nobody has a newest state"
    if plan.asynchronous and plan.consistency is not Consistency.EVERY_ROUND:
        yield "stale contributions are merged into parameters that are each trainer's own"
    if plan.mixing is None:
        return
    if plan.consistency is Consistency.EVERY_ROUND:
        yield "trainers mix parameters, but have none of their own"
    if plan.mixing.every_steps < 1 or plan.mixing.exchanges < 1:
        yield "parameters are never exchanged"
    for link in plan.mixing.links:
        if not {link.first, link.second} <= trainers or link.first >= link.second:
            yield f"{link.first} and {link.second} are no pair of trainers"
    for device in sorted(trainers):
        if sum(plan.mixing.neighbours(device).values()) > PPM:
            yield f"{device} gives its neighbours more than all weight"


def _gaps(what: str, ranges: Iterable[tuple[int, int]], length: int) -> Iterator[str]:
    """Violations where the ranges, one after the other, do not cover `[0, length)` without gap or overlap."""
    position = 0
    for start, stop in ranges:
        if stop < start or (start != position and start != stop):
            yield f"[{start}, {stop}) of {what} does not follow on {position}"
        position = max(position, stop)
    if position != length:
        yield f"{what} is covered up to {position} of {length}"
