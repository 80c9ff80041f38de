"""A view is a join-semilattice: order, duplication and repetition do not matter."""

import random

import attrs
from hypothesis import given
from hypothesis import strategies as st

from crowd.agreement.view import View
from crowd.planning.profile import Profile
from crowd.units import DeviceId, Life
from tests.support.profiles import make_profile

NAMES = [DeviceId(name) for name in ("a", "b", "c")]
lives = st.builds(Life, incarnation=st.integers(0, 2), boot=st.sampled_from([b"x", b"y"]))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """A profile whose content follows from its version, as the signature of its device guarantees."""
    life, revision = draw(lives), draw(st.integers(0, 2))
    speed = 1 + revision + 10 * life.incarnation + 100 * life.boot[0]
    return make_profile(draw(st.sampled_from(NAMES)), life=life, revision=revision, speed_kflops=speed)


@st.composite
def views(draw: st.DrawFn) -> View:
    return View().merge(draw(st.lists(profiles(), max_size=5)), draw(st.dictionaries(st.sampled_from(NAMES), lives)))


def join(one: View, other: View) -> View:
    return one.merge(other.profiles.values(), other.tombstones)


@given(views(), views())
def test_merging_is_commutative(one: View, other: View) -> None:
    assert join(one, other) == join(other, one)
    assert join(one, other).digest == join(other, one).digest


@given(views(), views(), views())
def test_merging_is_associative(one: View, other: View, third: View) -> None:
    assert join(join(one, other), third) == join(one, join(other, third))


@given(views(), views())
def test_merging_is_idempotent_and_says_so_by_identity(one: View, other: View) -> None:
    both = join(one, other)
    assert join(both, other) is both
    assert join(both, one) is both


@given(st.lists(profiles(), max_size=6), st.randoms(use_true_random=False))
def test_repeated_and_reordered_messages_lead_to_the_same_view(messages: list[Profile], chance: random.Random) -> None:
    shuffled = messages * 2
    chance.shuffle(shuffled)
    one_by_one = View()
    for profile in shuffled:
        one_by_one = one_by_one.merge([profile])
    assert one_by_one == View().merge(messages)


def test_an_eviction_holds_for_that_life_and_those_before_it_only() -> None:
    first, second = (make_profile("a", life=Life(incarnation=number, boot=b"x")) for number in (1, 2))
    evicted = View().merge([first], {first.device: first.life})
    assert evicted.living == ()
    assert evicted.merge([second]).living == (second,)


def test_the_tombstone_of_someone_who_is_gone_does_not_change_the_digest() -> None:
    view = View().merge([make_profile("a")])
    assert view.merge(tombstones={DeviceId("b"): Life(incarnation=1, boot=b"x")}).digest == view.digest


def test_any_change_of_a_living_profile_changes_the_digest() -> None:
    profile = make_profile("a", revision=1)
    changed = attrs.evolve(profile, revision=2, memory_bytes=profile.memory_bytes - 1)
    assert View().merge([profile]).digest != View().merge([changed]).digest
