"""The baselines plan what their names promise; that they then train as their papers say is in `test_validation`."""

from collections.abc import Mapping

import pytest

from crowd.planning.estimate import memory_needed_bytes
from crowd.planning.plan import Consistency, Encoding, Outer, OuterKind, Plan, Sampling, SliceOwner
from crowd.planning.policy import decide
from crowd.planning.profile import Share
from crowd.units import DeviceId
from tests.agreement.strategies import POLICIES
from tests.support.profiles import make_profile, task_facts

TASK = task_facts()
NEVER = Share.NEVER
ALONE_BYTES = memory_needed_bytes(TASK, trains=True, owned_elements=TASK.state_elements)


def plan_for(policy: str, *devices: tuple[str, Mapping[str, object]]) -> Plan:
    return decide(tuple(make_profile(name, policy=policy, **changes) for name, changes in devices), POLICIES)


def test_in_fedavg_everybody_trains_one_epoch_of_its_own_and_nothing_moves() -> None:
    plan = plan_for("fedavg", ("a", {"label_counts": (7, 1)}), ("b", {"speed_kflops": 1}), ("c", {"label_counts": ()}))
    assert [(each.lender, each.trainer, each.counts) for each in plan.assignments] == [
        ("a", "a", (7, 1)),
        ("b", "b", (10, 10)),
    ]
    assert [trainer.round_samples for trainer in plan.trainers] == [8, 20]
    assert (plan.encoding, plan.outer) == (Encoding.FLOAT32, Outer())


def test_in_fedavg_the_fastest_link_averages_even_if_it_does_not_train() -> None:
    fast = {"uplink_bytes_s": 10**8, "downlink_bytes_s": 10**8, "label_counts": ()}
    plan = plan_for("fedavg", ("a", {}), ("b", fast), ("c", fast))
    assert plan.slices == (SliceOwner(owner=DeviceId("b"), start=0, stop=TASK.state_elements),)


def test_ship_once_moves_all_to_the_fastest_device() -> None:
    plan = plan_for("ship_once", ("a", {}), ("b", {"speed_kflops": 2_000_000, "label_counts": ()}), ("c", {}))
    assert [(each.lender, each.trainer, each.counts) for each in plan.assignments] == [
        ("a", "b", (10, 10)),
        ("c", "b", (10, 10)),
    ]
    assert plan.trainers[0].round_samples == 40
    assert plan.trainers[0].evaluation == (0, TASK.evaluation_samples)
    assert plan.encoding is Encoding.FLOAT32


def test_ship_once_passes_over_a_fast_device_without_the_memory() -> None:
    fast = {"speed_kflops": 2_000_000, "memory_bytes": ALONE_BYTES + 39 * TASK.sample_bytes}
    plan = plan_for("ship_once", ("a", {}), ("b", {}), ("c", fast))
    assert [trainer.device for trainer in plan.trainers] == ["a"]


def test_ship_once_leaves_idle_what_may_not_move() -> None:
    plan = plan_for("ship_once", ("a", {"speed_kflops": 9**9}), ("b", {"share": Share.FEATURES}))
    assert [(idle.device, idle.counts, idle.reason) for idle in plan.idle] == [("b", (10, 10), "they may not leave it")]


def test_ship_once_takes_the_device_with_most_room_where_none_has_room_for_all() -> None:
    rooms = {"a": 3, "b": 15}
    devices = [(name, {"memory_bytes": ALONE_BYTES + room * TASK.sample_bytes}) for name, room in rooms.items()]
    plan = plan_for("ship_once", *devices, ("c", {"memory_bytes": 0}))
    assert [trainer.device for trainer in plan.trainers] == ["b"]
    assert plan.samples_total == 20 + 15
    assert sum(sum(idle.counts) for idle in plan.idle) == 25


@pytest.mark.parametrize("policy", ["all_reduce", "all_reduce_balanced", "diloco"])
def test_all_who_train_merge_a_slice_each_and_no_sample_moves(policy: str) -> None:
    plan = plan_for(policy, ("a", {}), ("b", {}), ("c", {"label_counts": ()}), ("d", {}))
    assert [part.owner for part in plan.slices] == ["a", "b", "d"]
    sizes = [part.stop - part.start for part in plan.slices]
    assert max(sizes) - min(sizes) <= 256
    assert all(assignment.lender == assignment.trainer for assignment in plan.assignments)
    assert plan.encoding is Encoding.FLOAT32


@pytest.mark.parametrize("policy", ["all_reduce", "all_reduce_balanced", "diloco"])
def test_who_has_no_memory_to_merge_trains_all_the_same(policy: str) -> None:
    only_training = {"memory_bytes": memory_needed_bytes(TASK, trains=True)}
    plan = plan_for(policy, ("a", {}), ("b", only_training), ("c", {}))
    assert [trainer.device for trainer in plan.trainers] == ["a", "b", "c"]
    assert [part.owner for part in plan.slices] == ["a", "c"]


def test_all_reduce_merges_after_one_batch_of_each_however_fast_it_is() -> None:
    plan = plan_for("all_reduce", ("a", {"label_counts": (99, 1), "speed_kflops": 1}), ("b", {"label_counts": (40,)}))
    assert [trainer.round_samples for trainer in plan.trainers] == [32, 32]
    assert plan.outer == Outer()


def test_a_batch_is_no_larger_than_what_a_device_holds() -> None:
    for policy in ("all_reduce", "all_reduce_balanced"):
        plan = plan_for(policy, ("a", {"label_counts": (3, 2)}), ("b", {"label_counts": (40,)}))
        assert [trainer.round_samples for trainer in plan.trainers] == [5, 32]


def test_balanced_batches_take_equally_long() -> None:
    speeds = {"a": 800_000, "b": 400_000, "c": 25_000, "d": 100}
    devices = [(name, {"label_counts": (50, 50), "speed_kflops": speed}) for name, speed in speeds.items()]
    plan = plan_for("all_reduce_balanced", *devices)
    assert [trainer.round_samples for trainer in plan.trainers] == [83, 41, 2, 1]
    assert [trainer.batch_size for trainer in plan.trainers] == [83, 41, 2, 1]


def test_in_diloco_all_take_the_same_number_of_steps_whatever_they_hold() -> None:
    plan = plan_for("diloco", ("a", {"label_counts": (100,)}), ("b", {"label_counts": (33,)}), ("c", {}))
    # 153 samples, 3 devices, batches of 32: two steps each
    assert [trainer.round_samples for trainer in plan.trainers] == [64, 33, 40]
    assert plan.outer == Outer(kind=OuterKind.NESTEROV, rate_ppm=700_000, momentum_ppm=900_000)


def test_whoever_averages_with_a_server_waits_for_all() -> None:
    for policy in ("fedavg", "fedprox", "all_reduce", "all_reduce_balanced", "diloco", "mercury", "d_psgd"):
        assert plan_for(policy, ("a", {}), ("b", {}), ("c", {})).quorum == 3


def test_steps_that_merge_at_once_are_evaluated_once_an_epoch() -> None:
    devices = [(name, {"label_counts": (64, 64)}) for name in "abc"]
    for policy in ("all_reduce", "all_reduce_balanced", "mercury"):
        assert plan_for(policy, *devices).evaluate_every == 4


def test_fedprox_gives_a_slow_device_as_much_as_it_can_train_while_half_of_the_others_finish() -> None:
    speeds = {"a": 800_000, "b": 400_000, "c": 100_000, "d": 1}
    devices = [(name, {"label_counts": (400,), "speed_kflops": speed}) for name, speed in speeds.items()]
    plan = plan_for("fedprox", *devices)
    assert [trainer.round_samples for trainer in plan.trainers] == [400, 400, 100, 32]
    assert plan.proximal_ppm > 0


def test_alone_everybody_trains_at_its_own_speed_and_nothing_is_merged() -> None:
    plan = plan_for(
        "local_only", ("a", {"speed_kflops": 3000}), ("b", {"speed_kflops": 1000}), ("c", {"label_counts": ()})
    )
    assert [trainer.round_samples for trainer in plan.trainers] == [30, 10]
    assert plan.consistency is Consistency.NONE
    half = TASK.evaluation_samples // 2
    assert [trainer.evaluation for trainer in plan.trainers] == [(0, half), (half, TASK.evaluation_samples)]


@pytest.mark.parametrize(("policy", "neighbours"), [("d_psgd", {2}), ("d_psgd_random", {2, 3, 4})])
def test_in_d_psgd_all_exchange_with_their_neighbours_after_each_of_equally_many_steps(
    policy: str, neighbours: set[int]
) -> None:
    plan = plan_for(policy, *((f"d{index}", {"label_counts": (40, 10 * index)}) for index in range(8)))
    assert plan.mixing is not None
    assert (plan.mixing.every_steps, plan.mixing.exchanges) == (1, 3)  # 600 samples, 8 devices, batches of 32
    degrees = {len(plan.mixing.neighbours(trainer.device)) for trainer in plan.trainers}
    assert degrees <= neighbours
    assert plan.consistency is Consistency.AT_END


def test_in_fedbuff_a_quarter_fill_the_buffer_and_the_fastest_device_evaluates_alone() -> None:
    devices = [(f"d{index}", {"speed_kflops": 1000 * (1 + index % 3)}) for index in range(8)]
    plan = plan_for("fedbuff", *devices)
    assert plan.quorum == 2
    assert plan.asynchronous
    shares = {trainer.device: trainer.evaluation[1] - trainer.evaluation[0] for trainer in plan.trainers}
    assert {device for device, share in shares.items() if share} == {"d2"}
    assert len(plan.slices) == 1


def test_mercury_deals_the_samples_so_that_all_hold_as_many_of_every_label() -> None:
    plan = plan_for(
        "mercury", ("a", {"label_counts": (60, 0)}), ("b", {"label_counts": (0, 60)}), ("c", {"share": NEVER})
    )
    held = {name: [0, 0] for name in "abc"}
    for assignment in plan.assignments:
        for label, count in enumerate(assignment.counts):
            held[assignment.trainer][label] += count
    assert held == {"a": [30, 30], "b": [30, 30], "c": [10, 10]}
    assert plan.sampling is Sampling.IMPORTANCE


def test_mercury_leaves_samples_at_home_where_somebody_cannot_hold_its_part() -> None:
    little = {"label_counts": (10, 0), "memory_bytes": memory_needed_bytes(TASK, trains=True) + TASK.sample_bytes}
    plan = plan_for("mercury", ("a", {"label_counts": (60, 60)}), ("b", little))
    assert all(assignment.lender == assignment.trainer for assignment in plan.assignments)


def test_in_ship_once_only_the_trainer_has_the_model_until_the_end() -> None:
    assert plan_for("ship_once", ("a", {}), ("b", {})).consistency is Consistency.AT_END
