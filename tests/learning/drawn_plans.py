"""Small plans of every kind, as Hypothesis draws them; of some no two rounds go alike."""

from collections.abc import Sequence
from typing import TypeAlias

import attrs
from hypothesis import strategies as st

from crowd.actors.trainer.course import Waypoint
from crowd.agreement.ack import StateProgress
from crowd.planning.phase import Counts
from crowd.planning.plan import Encoding, Member, Plan, SliceOwner, TrainerRole
from crowd.planning.round_plan import RoundPlan, plan_round
from crowd.units import SECOND_US, DeviceId, Life

ELEMENTS = 7
DEVICES_MAX = 4
TURNING = "owners take turns"

Choices: TypeAlias = tuple[list[int], set[int], list[int], Encoding, bool]
"""What a plan is made of: samples by trainer, where slices are cut, their owners, the form of deltas, and whether these
two are others in the next round."""
LAST_PLAN: Choices = ([1] * DEVICES_MAX, {3}, [0, 1, 0], Encoding.FLOAT32, True)

numbers = st.integers(0, DEVICES_MAX - 1)
plans = st.tuples(
    st.lists(st.integers(1, 5), min_size=DEVICES_MAX, max_size=DEVICES_MAX),
    st.sets(st.integers(1, ELEMENTS - 1), max_size=2),
    st.lists(numbers, min_size=3, max_size=3),
    st.sampled_from([encoding for encoding in Encoding if encoding is not Encoding.NONE]),  # whose bytes tell no length
    st.booleans(),
)


def make_plan(names: Sequence[DeviceId], choices: Choices, *, seed: int) -> Plan:
    """The plan of these choices for the devices of these names."""
    samples, cuts, owners, encoding, turns = choices
    ends = [0, *sorted(cuts), ELEMENTS]
    return Plan(
        members=tuple(Member(device=name, life=Life(incarnation=1, boot=b"")) for name in names),
        trainers=tuple(TrainerRole(device=name, round_samples=samples[at]) for at, name in enumerate(names)),
        slices=tuple(
            SliceOwner(owner=names[owner % len(names)], start=start, stop=stop)
            for owner, start, stop in zip(owners, ends, ends[1:], strict=False)
        ),
        encoding=encoding,
        round_us=SECOND_US,
        seed=seed,
        why=TURNING if turns else "",
    )


def plan_in_turn(plan: Plan, before: Counts) -> RoundPlan:
    """From round to round each slice has another owner, and every second round is exact, where the plan says so."""
    planned = plan_round(plan, before)
    if plan.why != TURNING:
        return planned
    names = [member.device for member in plan.members]
    return attrs.evolve(
        planned,
        slices=tuple(
            attrs.evolve(span, owner=names[(names.index(span.owner) + planned.number) % len(names)])
            for span in plan.slices
        ),
        encodings=(Encoding.FLOAT32,) if planned.number % 2 else planned.encodings,
    )


def in_round(plan: Plan, number: int) -> RoundPlan:
    """How the round of that number goes."""
    return plan_in_turn(plan, Waypoint(progress=StateProgress(round=number - 1)))
