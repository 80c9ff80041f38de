"""What holds for every policy on any cluster."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crowd.planning.check import violations
from crowd.planning.policy import decide
from tests.agreement.strategies import POLICIES, clusters
from tests.support.profiles import make_profile


@pytest.mark.parametrize("name", sorted(POLICIES))
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_plan_has_no_violations(name: str, data: st.DataObject) -> None:
    profiles = data.draw(clusters(policies=(name,)))
    plan = decide(profiles, POLICIES)
    assert violations(plan, profiles) == ()
    assert plan.why
    assert not plan.has_work or plan.round_us > 0


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_whoever_can_train_does_so_if_there_is_nobody_else(name: str) -> None:
    plan = decide((make_profile("a", policy=name),), POLICIES)
    assert [trainer.round_samples for trainer in plan.trainers] == [20]
    assert plan.idle == ()


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_if_nobody_has_the_memory_everything_is_idle_and_the_plan_says_so(name: str) -> None:
    profiles = tuple(make_profile(device, policy=name, memory_bytes=1_000) for device in ("a", "b"))
    plan = decide(profiles, POLICIES)
    assert not plan.has_work
    assert [sum(idle.counts) for idle in plan.idle] == [20, 20]
    assert plan.why == "no device has the memory to train and merge"
