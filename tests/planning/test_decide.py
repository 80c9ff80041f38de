"""`decide`: whom a plan leaves out, whose word counts, and that the order of profiles does not matter."""

import random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowd.planning.check import violations
from crowd.planning.plan import plan_digest
from crowd.planning.policy import decide
from crowd.planning.profile import FINGERPRINT_PARTS, PART_BYTES, Profile
from crowd.units import Life
from tests.agreement.strategies import POLICIES, clusters
from tests.support.profiles import make_profile, task_facts


def home(*changes: dict[str, object]) -> tuple[Profile, ...]:
    """Devices `a`, `b`, … under FedAvg, each with its changes."""
    return tuple(
        make_profile(chr(ord("a") + index), **{"policy": "fedavg"} | each) for index, each in enumerate(changes)
    )


def left_out(profiles: tuple[Profile, ...]) -> dict[str, str]:
    return {each.device: each.reason for each in decide(profiles, POLICIES).left_out}


@given(clusters(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_profiles_does_not_change_the_plan(profiles: tuple[Profile, ...], chance: random.Random) -> None:
    shuffled = list(profiles)
    chance.shuffle(shuffled)
    assert plan_digest(decide(tuple(shuffled), POLICIES)) == plan_digest(decide(profiles, POLICIES))


def test_a_device_that_asks_to_be_left_out_is_left_out_with_its_own_words() -> None:
    assert left_out(home({}, {"unfit": "its plan digest differed"}, {})) == {"b": "its plan digest differed"}


TASK = bytes(PART_BYTES * len(FINGERPRINT_PARTS))


def other_in(*parts: str) -> dict[str, object]:
    """A device whose task is not `TASK` in these parts."""
    made = b"".join((b"other" if part in parts else TASK)[:PART_BYTES] for part in FINGERPRINT_PARTS)
    return {"task": task_facts(fingerprint=made)}


SAME = other_in()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"policy_version": 2}, "its protocol or policy version differs from the others'"),
        ({"protocol_version": 2}, "its protocol or policy version differs from the others'"),
        (other_in("loss"), "its task differs from the others' in loss"),
        (other_in("epochs", "network"), "its task differs from the others' in network, epochs"),
        ({"task": task_facts(fingerprint=b"of other parts")}, "its task differs from the others'"),
    ],
)
def test_the_odd_one_out_is_left_out(change: dict[str, object], reason: str) -> None:
    assert left_out(home(SAME, SAME | change, SAME)) == {"b": reason}


def test_who_waits_for_a_device_that_is_left_out_says_so_and_why() -> None:
    pair = {"members_min": 2}
    plan = decide(home(SAME | pair, other_in("loss") | pair), POLICIES)
    assert plan.why == "1 of 2 devices are here; b is left out: its task differs from the others' in loss"


def test_of_equally_common_versions_the_lowest_stays() -> None:
    assert left_out(home({"policy_version": 2}, {"policy_version": 1})).keys() == {"a"}


def test_versions_of_different_policies_are_not_compared() -> None:
    assert left_out(home({}, {"policy": "ship_once", "policy_version": 2}, {})) == {}


def test_a_device_whose_policy_is_not_installed_is_left_out() -> None:
    assert left_out(home({"policy": "magic"}, {})) == {"a": "its policy 'magic' is not installed here"}


def test_who_is_left_out_is_no_member_and_has_no_part_in_the_work() -> None:
    plan = decide(home({}, {"unfit": "tired"}, {}), POLICIES)
    assert [member.device for member in plan.members] == ["a", "c"]
    assert [trainer.device for trainer in plan.trainers] == ["a", "c"]


def test_the_smallest_fit_device_has_the_word_on_policy_and_seed() -> None:
    plan = decide(home({"unfit": "tired", "seed": 1}, {"policy": "ship_once", "seed": 2}, {"seed": 3}), POLICIES)
    assert (len(plan.trainers), plan.seed) == (1, 2)


def test_below_the_largest_members_min_there_is_no_work_until_the_run_has_started() -> None:
    waiting = home({"members_min": 1}, {"members_min": 3})
    assert not decide(waiting, POLICIES).has_work
    assert decide(waiting, POLICIES).why == "2 of 3 devices are here"
    assert decide((attrs.evolve(waiting[0], started=True), waiting[1]), POLICIES).has_work


def test_without_samples_or_fit_devices_there_is_no_work() -> None:
    assert decide(home({"label_counts": ()}), POLICIES).why == "no device has samples"
    assert decide(home({"unfit": "tired"}), POLICIES).why == "no device is fit to train"


def test_a_member_is_named_in_the_life_that_its_profile_has() -> None:
    life = Life(incarnation=7, boot=b"seventh")
    (profile,) = home({"life": life})
    plan = decide((profile,), POLICIES)
    assert plan.life_of(profile.device) == life
    assert violations(plan, [profile]) == ()
