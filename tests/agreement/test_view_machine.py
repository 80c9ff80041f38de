"""Replicas of a view that hear of profiles and evictions in any order, late, twice and from each other.

The reference is what "join-semilattice" means: each replica is the set of all it has heard, and sets only grow.
"""

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from crowd.agreement.view import View
from crowd.planning.profile import Profile
from crowd.units import DeviceId, Life
from tests.agreement.test_view import NAMES, join
from tests.support.profiles import make_profile

REPLICAS = 3
replicas = st.integers(0, REPLICAS - 1)


@attrs.frozen
class Heard:
    """All that one replica was ever told."""

    profiles: frozenset[tuple[DeviceId, Life, int]] = frozenset()
    evictions: frozenset[tuple[DeviceId, Life]] = frozenset()

    def __or__(self, other: "Heard") -> "Heard":
        return Heard(self.profiles | other.profiles, self.evictions | other.evictions)

    def latest(self) -> dict[DeviceId, tuple[Life, int]]:
        return {
            name: max((life, revision) for device, life, revision in self.profiles if device == name)
            for name in {device for device, _, _ in self.profiles}
        }

    def last_evicted(self) -> dict[DeviceId, Life]:
        return {
            name: max(life for device, life in self.evictions if device == name)
            for name in {device for device, _ in self.evictions}
        }

    def living(self) -> dict[DeviceId, tuple[Life, int]]:
        return {
            name: version
            for name, version in self.latest().items()
            if not any(device == name and life >= version[0] for device, life in self.evictions)
        }


class Views(RuleBasedStateMachine):
    """Devices publish and are evicted; replicas are told of it, or told by one another."""

    profiles = Bundle("profiles")
    evictions = Bundle("evictions")

    def __init__(self) -> None:
        super().__init__()
        self.views = [View() for _ in range(REPLICAS)]
        self.heard = [Heard() for _ in range(REPLICAS)]
        self.current: dict[DeviceId, Profile] = {}
        self.lives: set[tuple[DeviceId, Life]] = set()

    # --- what devices do ----------------------------------------------------------------------------------------------

    @initialize(target=profiles)
    def devices_start(self) -> MultipleResults[Profile]:
        self.current = {name: make_profile(name, life=Life(incarnation=1, boot=b"m")) for name in NAMES}
        self.lives = {(name, profile.life) for name, profile in self.current.items()}
        return multiple(*self.current.values())

    @rule(target=profiles, name=st.sampled_from(NAMES), speed_kflops=st.integers(1, 3))
    def a_device_publishes_a_newer_profile(self, name: DeviceId, speed_kflops: int) -> Profile:
        revision = self.current[name].revision + 1
        self.current[name] = attrs.evolve(self.current[name], revision=revision, speed_kflops=speed_kflops)
        return self.current[name]

    @rule(target=profiles, name=st.sampled_from(NAMES), incarnation=st.integers(1, 3), boot=st.binary(max_size=2))
    def a_device_begins_a_new_life(
        self, name: DeviceId, incarnation: int, boot: bytes
    ) -> Profile | MultipleResults[Profile]:
        """Without its disk it may be a life that compares lower than its last."""
        life = Life(incarnation=incarnation, boot=boot)
        if (name, life) in self.lives:
            return multiple()
        self.lives.add((name, life))
        self.current[name] = attrs.evolve(self.current[name], life=life, revision=0)
        return self.current[name]

    @rule(target=evictions, profile=profiles)
    def a_life_is_declared_dead(self, profile: Profile) -> tuple[DeviceId, Life]:
        return (profile.device, profile.life)

    # --- what replicas hear -------------------------------------------------------------------------------------------

    @rule(replica=replicas, told=st.lists(profiles, max_size=3), evicted=st.lists(evictions, max_size=2))
    def a_replica_is_told(self, replica: int, told: list[Profile], evicted: list[tuple[DeviceId, Life]]) -> None:
        """New or stale, once more or for the first time."""
        last = Heard(evictions=frozenset(evicted)).last_evicted()
        news = Heard(frozenset((profile.device, *profile.version) for profile in told), frozenset(last.items()))
        self._grow(replica, self.views[replica].merge(told, last), self.heard[replica] | news)

    @rule(replica=replicas, source=replicas)
    def a_replica_is_told_all_by_another(self, replica: int, source: int) -> None:
        self._grow(replica, join(self.views[replica], self.views[source]), self.heard[replica] | self.heard[source])

    def _grow(self, replica: int, view: View, heard: Heard) -> None:
        before, known = self.views[replica], self.heard[replica]
        _expect(before, known)  # merging leaves the merged view as it was
        assert join(view, before) is view, "a view lost something"
        news = (heard.latest(), heard.last_evicted()) != (known.latest(), known.last_evicted())
        assert (view is before) is not news
        self.views[replica], self.heard[replica] = view, heard

    # --- laws ---------------------------------------------------------------------------------------------------------

    @invariant()
    def every_replica_holds_the_newest_it_heard_of(self) -> None:
        for view, heard in zip(self.views, self.heard, strict=True):
            _expect(view, heard)

    @invariant()
    def digests_are_equal_exactly_where_the_living_are(self) -> None:
        for view, heard in zip(self.views, self.heard, strict=True):
            for other, others in zip(self.views, self.heard, strict=True):
                assert (view.digest == other.digest) is (heard.living() == others.living())

    @rule(one=replicas, other=replicas, third=replicas)
    def replicas_can_be_joined_in_any_order(self, one: int, other: int, third: int) -> None:
        a, b, c = self.views[one], self.views[other], self.views[third]
        assert join(a, b) == join(b, a)
        assert join(join(a, b), c) == join(a, join(b, c))
        assert join(join(a, b), b) == join(a, b)
        assert join(a, a) is a
        _expect(join(a, b), self.heard[one] | self.heard[other])


def _expect(view: View, heard: Heard) -> None:
    assert {name: profile.version for name, profile in view.profiles.items()} == heard.latest()
    assert dict(view.tombstones) == heard.last_evicted()
    assert [(profile.device, profile.version) for profile in view.living] == sorted(heard.living().items())
    assert all(view.is_living(name) is (name in heard.living()) for name in NAMES)


def test_replicas_that_have_heard_the_same_are_equal_whatever_the_order() -> None:
    run_state_machine_as_test(Views, settings=settings(max_examples=250, stateful_step_count=30, deadline=None))
