"""What `violations` finds, and how a plan names samples."""

from typing import Any

import attrs
import pytest

from crowd.planning.check import violations
from crowd.planning.estimate import memory_needed_bytes
from crowd.planning.plan import (
    Assignment,
    Consistency,
    Idle,
    Member,
    Mixing,
    MixingEdge,
    Plan,
    Range,
    SliceOwner,
    TrainerRole,
)
from crowd.planning.profile import Share
from crowd.units import DeviceId, Life
from tests.support.profiles import make_profile, task_facts

TASK = task_facts(state_elements=1_000, evaluation_samples=10)
A, B, C = (DeviceId(name) for name in "abc")
PROFILES = (
    make_profile("a", task=TASK, label_counts=(6, 4)),
    make_profile("b", task=TASK, label_counts=(3, 0, 5)),
    make_profile("c", task=TASK, label_counts=()),
)
PLAN = Plan(
    members=tuple(Member(device=profile.device, life=profile.life) for profile in PROFILES),
    trainers=(
        TrainerRole(device=A, round_samples=9, evaluation=(0, 7)),
        TrainerRole(device=C, round_samples=7, evaluation=(7, 10)),
    ),
    assignments=(
        Assignment(lender=A, trainer=A, counts=(4, 2)),
        Assignment(lender=A, trainer=C, counts=(2, 2)),
        Assignment(lender=B, trainer=A, counts=(1, 0, 2)),
        Assignment(lender=B, trainer=C, counts=(0, 0, 3)),
    ),
    idle=(Idle(device=B, counts=(2, 0, 0), reason="no room"),),
    slices=(SliceOwner(owner=A, start=0, stop=512), SliceOwner(owner=B, start=512, stop=1_000)),
    samples_total=16,
)


def replaced(what: str, index: int, **changes: object) -> Plan:
    values = list(getattr(PLAN, what))
    values[index] = attrs.evolve(values[index], **changes)
    changed: dict[str, Any] = {what: tuple(values)}
    return attrs.evolve(PLAN, **changed)


def test_a_good_plan_has_no_violations() -> None:
    assert violations(PLAN, PROFILES) == ()


@pytest.mark.parametrize(
    ("plan", "finding"),
    [
        (replaced("assignments", 1, counts=(1, 2)), "a holds (6, 4), but the plan places (5, 4)"),
        (replaced("assignments", 1, counts=(3, 2)), "a holds (6, 4), but the plan places (7, 4)"),
        (replaced("assignments", 1, counts=(2, 2, 0)), "a has 2 labels, but an entry names 3"),
        (replaced("idle", 0, reason=""), "samples of b are idle without a reason"),
        (attrs.evolve(PLAN, samples_total=17), "16 samples are assigned, but the plan counts 17"),
        (replaced("trainers", 0, round_samples=0), "a trains nothing in a round"),
        (replaced("trainers", 0, evaluation=(0, 6)), "[7, 10) of the evaluation set does not follow on 6"),
        (replaced("trainers", 1, evaluation=(6, 10)), "[6, 10) of the evaluation set does not follow on 7"),
        (replaced("trainers", 1, evaluation=(7, 9)), "the evaluation set is covered up to 9 of 10"),
        (replaced("slices", 1, start=500), "[500, 1000) of the state does not follow on 512"),
        (replaced("slices", 1, stop=900), "the state is covered up to 900 of 1000"),
        (attrs.evolve(PLAN, slices=()), "the state is covered up to 0 of 1000"),
        (replaced("slices", 0, owner=DeviceId("z")), "z is no member"),
        (replaced("assignments", 1, trainer=B), "b is given samples but is no trainer"),
        (attrs.evolve(PLAN, trainers=PLAN.trainers[:1]), "c is given samples but is no trainer"),
        (attrs.evolve(PLAN, trainers=PLAN.trainers[::-1]), "trainers are not in canonical order"),
        (attrs.evolve(PLAN, assignments=PLAN.assignments[::-1]), "assignments are not in canonical order"),
        (replaced("trainers", 0, round_samples=-1), "-1 is no count"),
        (replaced("trainers", 0, round_samples=True), "True is no count"),
        (replaced("members", 0, life=Life(incarnation=9, boot=b"")), "a does not live in the life that the plan names"),
        (attrs.evolve(PLAN, trainers=(), assignments=(), samples_total=0), "slices are owned though there is no work"),
    ],
)
def test_a_bad_plan_is_found_out(plan: Plan, finding: str) -> None:
    assert finding in violations(plan, PROFILES)


A_WITH_C = MixingEdge(first=A, second=C, weight_ppm=400_000)
MIXING = Mixing(every_steps=1, exchanges=3, links=(A_WITH_C,))
GOSSIP: dict[str, Any] = {"consistency": Consistency.AT_END, "mixing": MIXING}


def gossip(**changes: Any) -> Mixing:
    return attrs.evolve(MIXING, **changes)


@pytest.mark.parametrize(
    ("fields", "finding"),
    [
        ({"evaluate_every": 0}, "no round is evaluated"),
        ({"quorum": 3}, "3 contributions are awaited from 2 trainers"),
        ({"staleness_max": 4}, "stale contributions are merged, but not after how many"),
        ({"staleness_max": 4, "quorum": 1}, "stale contributions are merged by several owners"),
        (
            {"staleness_max": 4, "quorum": 1, "consistency": Consistency.NONE},
            "stale contributions are merged into parameters that are each trainer's own",
        ),
        (GOSSIP | {"consistency": Consistency.EVERY_ROUND}, "trainers mix parameters, but have none of their own"),
        (GOSSIP | {"mixing": gossip(exchanges=0)}, "parameters are never exchanged"),
        (GOSSIP | {"mixing": gossip(links=(attrs.evolve(A_WITH_C, first=B),))}, "b and c are no pair of trainers"),
        (
            GOSSIP | {"mixing": gossip(links=(MixingEdge(first=C, second=A, weight_ppm=1),))},
            "c and a are no pair of trainers",
        ),
        (
            GOSSIP | {"mixing": gossip(links=(attrs.evolve(A_WITH_C, weight_ppm=1_000_001),))},
            "a gives its neighbours more than all weight",
        ),
        (GOSSIP | {"mixing": gossip(links=(A_WITH_C, A_WITH_C))}, "links are not in canonical order"),
    ],
)
def test_fields_of_a_plan_that_do_not_go_together_are_found_out(fields: dict[str, Any], finding: str) -> None:
    found = violations(attrs.evolve(PLAN, **fields), PROFILES)
    assert any(text.startswith(finding) for text in found), found


def test_gossip_and_waiting_for_all_may_be_planned() -> None:
    assert violations(attrs.evolve(PLAN, quorum=2, **GOSSIP), PROFILES) == ()
    assert MIXING.neighbours(C) == {A: 400_000}
    assert MIXING.neighbours(B) == {}


@pytest.mark.parametrize("share", [Share.FEATURES, Share.NEVER])
def test_raw_samples_of_a_device_that_does_not_share_them_may_not_move(share: Share) -> None:
    profiles = (attrs.evolve(PROFILES[0], share=share), *PROFILES[1:])
    assert violations(PLAN, profiles) == (f"a lends to c, but shares {share.value}",)


def test_memory_must_suffice_for_training_owning_and_borrowing_to_the_byte() -> None:
    needed = memory_needed_bytes(TASK, trains=True, samples_borrowed=3, owned_elements=512)
    assert needed == 4 * (9 * 1_000 + 4 * 512) + 3 * TASK.sample_bytes
    enough = (attrs.evolve(PROFILES[0], memory_bytes=needed), *PROFILES[1:])
    short = (attrs.evolve(PROFILES[0], memory_bytes=needed - 1), *PROFILES[1:])
    assert violations(PLAN, enough) == ()
    assert violations(PLAN, short) == (f"a needs {needed} bytes of memory, but has {needed - 1}",)


def test_a_lender_keeps_the_head_of_its_order_and_lends_what_follows() -> None:
    named = {(assignment.lender, assignment.trainer): ranges for assignment, ranges in PLAN.ranges()}
    assert named[A, A] == (Range(label=0, start=0, stop=4), Range(label=1, start=0, stop=2))
    assert named[A, C] == (Range(label=0, start=4, stop=6), Range(label=1, start=2, stop=4))
    assert named[B, C] == (Range(label=2, start=2, stop=5),)


def test_idle_samples_of_a_device_are_added_up_with_their_reasons() -> None:
    idle = (
        Idle(device=A, counts=(1, 2), reason="no room"),
        Idle(device=A, counts=(4,), reason="too slow"),
        Idle(device=B, counts=(7,), reason="no room"),
    )
    assert Plan(members=(), idle=idle).idle_by_device() == {A: (7, "no room; too slow"), B: (7, "no room")}
