"""CrowdLearning's choices on small clusters, against numbers worked out by hand."""

import attrs
import pytest
from hypothesis import given, settings

from crowd.planning.convergence import label_totals, lost_tenths, mix
from crowd.planning.estimate import estimate, memory_needed_bytes
from crowd.planning.plan import Consistency, Encoding, Plan
from crowd.planning.policy import Cluster, decide
from crowd.planning.profile import Module, Prefer, Profile, Share
from policies.crowd_learning.sync import EPOCHS_PER_MERGE_MAX
from policies.labels import padded
from tests.agreement.strategies import POLICIES, clusters
from tests.support.profiles import make_profile, task_facts

MEGABIT_S = 125_000
TASK = task_facts(state_elements=54_000, flops_per_sample=3_600_000, sample_bytes=785, evaluation_samples=3_000)


def device(name: str, speed: int, labels: tuple[int, ...], *, mbps: int = 50, **changes: object) -> Profile:
    """`speed` in MFLOP/s."""
    rates = {"uplink_bytes_s": mbps * MEGABIT_S, "downlink_bytes_s": mbps * MEGABIT_S}
    values = {"policy": "crowd_learning", "task": TASK, "speed_kflops": speed * 1_000, "label_counts": labels}
    return make_profile(name, **(values | rates | changes))


def plan_for(*profiles: Profile) -> Plan:
    return decide(profiles, POLICIES)


def moved(plan: Plan) -> int:
    return sum(each.samples for each in plan.assignments if each.lender != each.trainer)


def assigned(plan: Plan) -> dict[str, int]:
    counts: dict[str, int] = {}
    for each in plan.assignments:
        counts[each.trainer] = counts.get(each.trainer, 0) + each.samples
    return counts


def total_us(profiles: tuple[Profile, ...], plan: Plan) -> int:
    members = tuple(sorted(profiles, key=lambda profile: profile.device))
    return estimate(Cluster(members=members, prefer=members[0].prefer, seed=0), plan).total_us


def lost(profiles: tuple[Profile, ...], plan: Plan) -> int:
    totals = label_totals(Cluster(members=profiles, prefer=Prefer.TIME, seed=0))
    idle = [sum(column) for column in zip(*(padded(idle.counts, len(totals)) for idle in plan.idle), strict=True)]
    return lost_tenths(totals, idle)


def test_equal_devices_with_balanced_classes_move_nothing() -> None:
    plan = plan_for(*(device(name, 500, (500, 500, 500)) for name in "abcd"))
    assert moved(plan) == 0
    assert assigned(plan) == dict.fromkeys("abcd", 1_500)
    assert len({trainer.round_samples for trainer in plan.trainers}) == 1


def test_shares_are_in_proportion_to_speed() -> None:
    plan = plan_for(*(device(name, speed, (2_000, 2_000)) for name, speed in zip("abc", (600, 300, 100), strict=True)))
    shares = assigned(plan)
    for name, ideal in zip("abc", (7_200, 3_600, 1_200), strict=True):
        assert abs(shares[name] - ideal) <= ideal // 100


def test_each_trainer_gets_every_label_in_proportion_to_its_share() -> None:
    plan = plan_for(device("a", 600, (3_000, 0)), device("b", 300, (0, 3_000)), device("c", 300, ()))
    for trainer in plan.trainers:
        hands = [each.counts for each in plan.assignments if each.trainer == trainer.device]
        first, second = (sum(counts[label] for counts in hands) for label in (0, 1))
        assert abs(first - second) <= 1


def test_only_what_a_borrower_lacks_moves() -> None:
    plan = plan_for(device("a", 500, (1_000, 1_000)), device("b", 500, (500, 500)))
    assert moved(plan) <= 510
    assert not [each for each in plan.assignments if (each.lender, each.trainer) == ("b", "a")]


def test_one_giant_among_dwarfs_gets_everything_and_trains_alone() -> None:
    plan = plan_for(device("giant", 60_000, ()), *(device(name, 10, (600, 600)) for name in ("d1", "d2", "d3")))
    assert [trainer.device for trainer in plan.trainers] == ["giant"]
    assert assigned(plan) == {"giant": 3_600}
    assert plan.trainers[0].round_samples == 3_600
    assert (
        plan.why == "giant trains all 3,600 samples alone; 3 devices lend all their 3,600 samples; est. 0.3 s a round"
    )


def test_a_slow_device_lends_everything_where_training_on_it_costs_more_than_it_brings() -> None:
    plan = plan_for(device("a", 1_000, (900, 900)), device("b", 1_000, (900, 900)), device("zero", 1, (200, 200)))
    assert assigned(plan).keys() == {"a", "b"}
    assert "2 of 3 devices train in proportion to their speed; zero lends all its 400 samples" in plan.why


def test_a_slower_link_moves_less() -> None:
    def home(mbps: int) -> tuple[Profile, ...]:
        large = task_facts(state_elements=5_000, flops_per_sample=3_600_000, sample_bytes=100_000, evaluation_samples=0)
        return (
            device("a", 900, (1_000, 1_000), mbps=mbps, task=large),
            device("b", 300, (1_000, 1_000), mbps=mbps, task=large),
        )

    fast, slower, slowest = (moved(plan_for(*home(mbps))) for mbps in (1_000, 20, 1))
    assert fast > slower > slowest


def test_a_device_that_shares_nothing_keeps_its_samples_and_trains_them_at_its_own_pace() -> None:
    plan = plan_for(
        device("a", 1_000, (2_000, 2_000)),
        device("b", 1_000, (2_000, 2_000)),
        device("shy", 100, (1_000, 1_000), share=Share.NEVER),
    )
    assert [(each.trainer, each.counts) for each in plan.assignments if each.lender == "shy"] == [
        ("shy", (1_000, 1_000))
    ]
    rounds: dict[str, int] = {trainer.device: trainer.round_samples for trainer in plan.trainers}
    assert abs(10 * rounds["shy"] - rounds["a"]) <= rounds["a"] // 50


def test_a_device_that_shares_nothing_and_cannot_train_is_idle_with_a_reason() -> None:
    plan = plan_for(device("a", 500, (500, 500)), device("shy", 500, (30, 30), share=Share.NEVER, memory_bytes=1_000))
    (idle,) = plan.idle
    assert (idle.device, idle.counts) == ("shy", (30, 30))
    assert "has not the memory to train" in idle.reason


def test_a_device_that_shares_nothing_is_idle_where_its_link_would_hold_all_others_up() -> None:
    plan = plan_for(
        *(device(name, 500, (900, 900)) for name in "abc"),
        device("shy", 500, (20, 20), share=Share.NEVER, uplink_bytes_s=500),
    )
    (idle,) = plan.idle
    assert (idle.device, idle.counts) == ("shy", (20, 20))
    assert "cost more than it brings" in idle.reason


def test_a_class_that_only_a_slow_device_holds_is_trained_there() -> None:
    plan = plan_for(
        device("giant", 60_000, (2_000, 2_000, 0)),
        device("shy", 10, (0, 0, 400), share=Share.NEVER),
    )
    assert plan.idle == ()
    assert [trainer.device for trainer in plan.trainers] == ["giant", "shy"]


@pytest.mark.parametrize("epochs_max", [20, 60, 400])
def test_a_class_on_a_slow_device_gets_its_training_before_the_last_epoch(epochs_max: int) -> None:
    task = attrs.evolve(TASK, epochs_max=epochs_max)
    profiles = (
        device("giant", 60_000, (2_000, 2_000, 0), task=task),
        device("shy", 2, (0, 0, 400), share=Share.NEVER, task=task),
    )
    plan = plan_for(*profiles)
    parts = [
        (trainer.round_samples, next(each.counts for each in plan.assignments if each.trainer == trainer.device))
        for trainer in plan.trainers
    ]
    assert mix((2_000, 2_000, 400), parts).in_time(epochs_max)


def test_a_thin_link_is_waited_for_where_a_class_depends_on_it() -> None:
    plan = plan_for(
        *(device(name, 500, (900, 900, 0)) for name in "abc"),
        device("shy", 500, (0, 0, 40), share=Share.NEVER, uplink_bytes_s=500),
    )
    assert plan.idle == ()


def test_devices_that_hold_a_class_together_are_not_all_left_out() -> None:
    shy = [
        device(f"shy-{index:02d}", 500, (0, 4), share=Share.FEATURES, uplink_bytes_s=500 + index) for index in range(20)
    ]
    profiles = (device("a", 50_000, (3_000, 0)), *shy)
    plan = plan_for(*profiles)
    assert lost(profiles, plan) == 0
    assert sum(sum(idle.counts) for idle in plan.idle) < 8


def test_what_no_device_may_train_excuses_no_other_loss() -> None:
    """One class is lost, as its only holder has not the memory; the other slow device's class is not."""
    plan = plan_for(
        device("giant", 60_000, (2_000, 0, 0)),
        device("full", 500, (0, 300, 0), share=Share.NEVER, memory_bytes=1_000),
        device("slow", 10, (0, 0, 300), share=Share.NEVER),
    )
    assert [idle.device for idle in plan.idle] == ["full"]


def test_a_lone_trainer_trains_more_epochs_a_round_where_listeners_cannot_follow_more_merges() -> None:
    def rounds(downlink_bytes_s: int) -> int:
        listeners = [device(name, 1, (500, 500), downlink_bytes_s=downlink_bytes_s) for name in "bcd"]
        (trainer,) = plan_for(device("a", 60_000, (500, 500)), *listeners).trainers
        return trainer.round_samples

    assert (rounds(50 * MEGABIT_S), rounds(MEGABIT_S // 10)) == (4_000, 4_000 * EPOCHS_PER_MERGE_MAX)


def test_a_borrower_takes_no_more_than_its_memory_holds() -> None:
    room = memory_needed_bytes(TASK, trains=True, owned_elements=TASK.state_elements, samples_borrowed=100)
    plan = plan_for(device("a", 900, (1_000, 1_000)), device("b", 900, (), memory_bytes=room))
    assert assigned(plan).get("b", 0) <= 100


def test_a_device_without_the_memory_to_train_lends_all_its_samples() -> None:
    plan = plan_for(device("a", 500, (300, 300)), device("tiny", 900, (300, 300), memory_bytes=1_000))
    assert assigned(plan) == {"a": 1_200}
    assert plan.idle == ()


def test_evaluation_is_shared_in_proportion_to_speed() -> None:
    plan = plan_for(*(device(name, speed, (3_000, 3_000)) for name, speed in zip("abc", (500, 300, 200), strict=True)))
    assert [trainer.evaluation for trainer in plan.trainers] == [(0, 1_500), (1_500, 2_400), (2_400, 3_000)]


def test_deltas_travel_in_eight_bits() -> None:
    assert plan_for(device("a", 500, (500, 500)), device("b", 500, (500, 500))).encoding is Encoding.BLOCKWISE8


def test_the_planned_round_is_the_estimated_one() -> None:
    profiles = (device("a", 600, (3_000, 100)), device("b", 300, (100, 3_000)), device("c", 50, (10, 10)))
    plan = plan_for(*profiles)
    assert plan.round_us == estimate(Cluster(members=profiles, prefer=Prefer.TIME, seed=0), plan).round_us


def test_a_cluster_that_prefers_bytes_sends_fewer() -> None:
    def home(prefer: Prefer) -> tuple[Profile, ...]:
        return tuple(device(name, 500, (900, 900), prefer=prefer) for name in "abcd")

    def bytes_total(prefer: Prefer) -> int:
        members = home(prefer)
        return estimate(Cluster(members=members, prefer=prefer, seed=0), plan_for(*members)).bytes_total

    assert bytes_total(Prefer.BYTES) < bytes_total(Prefer.TIME)


@given(clusters(policies=("crowd_learning",)))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_no_baseline_is_expected_to_be_faster(profiles: tuple[Profile, ...]) -> None:
    """The planner's own estimate, on any cluster where time counts and memory is no matter. For networks of a block
    of parameters or more: below, the scale of a block makes its encoding no smaller than plain floats. A baseline
    counts as safe as this policy, of which a failing device takes one round with it: with a merge in every round. One
    that leaves more of a class untrained is no better for being faster."""
    task = profiles[0].task
    elements = max(256, task.state_elements)
    whole = Module("", elements, task.flops_per_sample, activation_bytes=40)
    task = attrs.evolve(task, state_elements=elements, modules=(whole,))
    roomy = tuple(attrs.evolve(profile, prefer=Prefer.TIME, memory_bytes=10**14, task=task) for profile in profiles)
    plan = decide(roomy, POLICIES)
    for name in ("fedavg", "ship_once"):
        other = decide(tuple(attrs.evolve(profile, policy=name) for profile in roomy), POLICIES)
        if other.has_work and lost(roomy, other) <= lost(roomy, plan):
            safe = attrs.evolve(other, consistency=Consistency.EVERY_ROUND)
            assert total_us(roomy, plan) <= total_us(roomy, safe) * 105 // 100


def test_a_small_change_of_speed_moves_few_samples() -> None:
    base = tuple(device(name, 1_000, (600, 600)) for name in "abcd")
    changed = (attrs.evolve(base[0], speed_kflops=1_100_000), *base[1:])
    before, after = plan_for(*base), plan_for(*changed)
    assert moved(before) == 0
    assert moved(after) <= 4_800 // 40
