"""The cost model, against numbers worked out by hand."""

import ast
from pathlib import Path

import attrs
import pytest

from crowd.planning.convergence import NOMINAL_EPOCHS, epochs_permille, lost_tenths, mix
from crowd.planning.estimate import (
    MESSAGE_BYTES,
    estimate,
    evaluation_us,
    memory_needed_bytes,
    memory_planned_bytes,
    samples_spare,
    sync_cost,
    train_us,
)
from crowd.planning.plan import (
    GROUP_BATCHES,
    Assignment,
    Consistency,
    Encoding,
    Mixing,
    MixingEdge,
    Plan,
    Sampling,
    SliceOwner,
    TrainerRole,
)
from crowd.planning.policy import Cluster
from crowd.planning.profile import Prefer, Profile
from crowd.units import DeviceId
from tests.support.profiles import make_profile, task_facts

TASK = task_facts(state_elements=25_600, flops_per_sample=3_000_000, sample_bytes=1_000, evaluation_samples=0)
A, B, C = (DeviceId(name) for name in "abc")
MEGABYTE_S = 1_000_000


def device(name: str, **changes: object) -> Profile:
    """1 GFLOP/s, 3 ms a sample; 1 MB/s both ways, 1 ms a sample."""
    links = {"uplink_bytes_s": MEGABYTE_S, "downlink_bytes_s": MEGABYTE_S}
    return make_profile(name, **{"task": TASK, "speed_kflops": 1_000_000, "label_counts": (60, 40)} | links | changes)


def cluster(*members: Profile) -> Cluster:
    return Cluster(members=members, prefer=Prefer.TIME, seed=0)


def whole(owner: DeviceId) -> tuple[SliceOwner, ...]:
    return (SliceOwner(owner=owner, start=0, stop=25_600),)


def test_training_takes_work_divided_by_speed_and_evaluation_a_third_of_it() -> None:
    assert train_us(device("a"), 100) == 300_000
    assert evaluation_us(device("a"), 100) == 100_000


def test_memory_counts_every_copy() -> None:
    assert memory_needed_bytes(TASK, trains=True) == 9 * 4 * 25_600
    assert memory_needed_bytes(TASK, trains=False, owned_elements=100) == 5 * 4 * 25_600 + 4 * 4 * 100
    assert memory_needed_bytes(TASK, trains=True, samples_borrowed=7) == 9 * 4 * 25_600 + 7_000


def test_what_a_plan_leaves_of_the_memory_is_room_for_samples() -> None:
    plan = Plan(
        members=(),
        trainers=(TrainerRole(device=A, round_samples=1),),
        assignments=(Assignment(lender=B, trainer=A, counts=(3, 4)), Assignment(lender=A, trainer=A, counts=(50,))),
        slices=(SliceOwner(owner=C, start=0, stop=100),),
    )
    trains, owns = 9 * 4 * 25_600 + 7_000, 5 * 4 * 25_600 + 4 * 4 * 100
    assert memory_planned_bytes(plan, TASK) == {A: trains, C: owns}
    assert samples_spare(plan, TASK, A, trains + 5_999) == 5
    assert samples_spare(plan, TASK, A, trains - 1) == 0
    assert samples_spare(plan, TASK, B, 5 * 4 * 25_600 + 2_000) == 2


def test_the_owner_s_downlink_carries_every_other_trainer_s_contribution() -> None:
    # 25,600 elements: 25,600 bytes, 100 scales of 4 bytes, 512 of envelope = 26,512 bytes each.
    # Collect: 2 x 26,512 us and 2 messages; fan-out: 26,512 us and 1 message; 5 ms for each phase.
    members = cluster(device("a"), device("b"), device("c"))
    cost = sync_cost(members, {A, B, C}, whole(A), Encoding.BLOCKWISE8)
    assert cost.critical_us == 53_024 + 1_000 + 26_512 + 500 + 10_000


def test_four_bytes_an_element_as_float32() -> None:
    members = cluster(device("a"), device("b"))
    assert sync_cost(members, {A, B}, whole(A), Encoding.FLOAT32).critical_us == 2 * (102_400 + 512 + 500 + 5_000)


def test_slices_share_the_load_between_owners() -> None:
    # Half a state is 12,800 + 200 + 512 = 13,512 bytes. Each phase: one goes up, one comes down, 2 messages.
    halves = (SliceOwner(owner=A, start=0, stop=12_800), SliceOwner(owner=B, start=12_800, stop=25_600))
    members = cluster(device("a"), device("b"))
    assert sync_cost(members, {A, B}, halves, Encoding.BLOCKWISE8).critical_us == 2 * (13_512 + 1_000 + 5_000)


def test_bytes_are_counted_on_every_link() -> None:
    # Two contributions up and down, the merged slice once up and to two others down.
    members = cluster(device("a"), device("b"), device("c"))
    assert sync_cost(members, {A, B, C}, whole(A), Encoding.BLOCKWISE8).bytes_total == 7 * 26_512


def test_a_bystander_holds_nobody_up_but_bounds_the_round() -> None:
    members = cluster(device("a"), device("b", downlink_bytes_s=1_000))
    cost = sync_cost(members, {A}, whole(A), Encoding.BLOCKWISE8)
    assert cost.critical_us == 26_512 + 500 + 5_000
    assert cost.bystander_us == 26_512_000 + 500


def test_one_device_alone_has_nothing_to_send() -> None:
    cost = sync_cost(cluster(device("a")), {A}, whole(A), Encoding.BLOCKWISE8)
    assert (cost.critical_us, cost.bystander_us, cost.bytes_total) == (0, 0, 0)


@pytest.mark.parametrize(("trainers", "epochs"), [(1_000, 1_000), (2_250, 1_500), (4_000, 2_000), (9_000, 3_000)])
def test_epochs_grow_as_the_root_of_the_effective_trainers(trainers: int, epochs: int) -> None:
    assert epochs_permille(effective_trainers_permille=trainers) == epochs


def test_skewed_labels_cost_more_epochs() -> None:
    same = epochs_permille(effective_trainers_permille=2_000)
    assert epochs_permille(effective_trainers_permille=2_000, skew_permille=500) > same


@pytest.mark.parametrize(
    ("parts", "effective", "trainers", "skew"),
    [
        ([(100, (50, 50))], 100, 1_000, 0),
        ([(50, (25, 25)), (50, (25, 25))], 100, 2_000, 0),
        ([(50, (50, 0)), (50, (0, 50))], 100, 2_000, 500),
        ([(25, (25, 25))], 50, 1_000, 0),
        ([(50, (25, 25)), (25, (25, 25))], 90, 1_800, 0),
    ],
    ids=["one with all", "two alike", "a label each", "half idle", "one at half pace"],
)
def test_mix_says_how_well_the_data_is_used(
    parts: list[tuple[int, tuple[int, int]]], effective: int, trainers: int, skew: int
) -> None:
    spread = mix((50, 50), parts)
    assert spread.effective == effective
    assert spread.effective_trainers_permille == trainers
    assert spread.skew_permille == skew


@pytest.mark.parametrize(
    ("parts", "scarcest"),
    [
        ([(50, (25, 25)), (50, (25, 25))], 1_000),
        ([(50, (25, 25)), (25, (25, 25))], 1_000),
        ([(50, (50, 0)), (10, (0, 50))], 333),
        ([(50, (50, 0))], 0),
    ],
    ids=["even", "one at half pace", "a label at a fifth of the pace", "a label idle"],
)
def test_mix_says_how_much_less_the_scarcest_label_is_trained(
    parts: list[tuple[int, tuple[int, int]]], scarcest: int
) -> None:
    assert mix((50, 50), parts).scarcest_permille == scarcest


@pytest.mark.parametrize(("scarcest", "epochs"), [(1_000, 1_000), (250, 1_000), (125, 2_000), (25, 10_000)])
def test_a_label_with_less_than_a_quarter_of_its_training_costs_epochs(scarcest: int, epochs: int) -> None:
    assert epochs_permille(effective_trainers_permille=1_000, scarcest_permille=scarcest) == epochs


@pytest.mark.parametrize(
    ("idle", "lost"), [((0, 0, 0), 0), ((99, 0, 0), 0), ((100, 0, 0), 1), ((0, 5, 0), 10), ((1_000, 2), 14)]
)
def test_labels_lose_by_whole_tenths_of_their_samples(idle: tuple[int, ...], lost: int) -> None:
    assert lost_tenths((1_000, 5, 0), idle) == lost


def test_a_whole_plan_adds_up() -> None:
    # b lends its 100 samples to a: 100 ms and one latency; a trains 200 samples in 600 ms and publishes 26,512 bytes.
    members = cluster(device("a"), device("b"))
    plan = Plan(
        members=(),
        trainers=(TrainerRole(device=A, round_samples=200),),
        assignments=(
            Assignment(lender=A, trainer=A, counts=(60, 40)),
            Assignment(lender=B, trainer=A, counts=(60, 40)),
        ),
        slices=whole(A),
        encoding=Encoding.BLOCKWISE8,
        samples_total=200,
    )
    cost = estimate(members, plan)
    round_us = 600_000 + 26_512 + 500 + 5_000
    assert cost.ship_us == 105_000
    assert cost.round_us == round_us
    assert cost.rounds == NOMINAL_EPOCHS + 2
    assert cost.total_us == 105_000 + cost.rounds * round_us
    assert cost.bytes_total == 200_000 + cost.rounds * 2 * 26_512


AT_HOME = Plan(
    members=(),
    trainers=(TrainerRole(device=A, round_samples=100), TrainerRole(device=B, round_samples=100)),
    assignments=(
        Assignment(lender=A, trainer=A, counts=(60, 40)),
        Assignment(lender=B, trainer=B, counts=(60, 40)),
    ),
    slices=whole(A),
    encoding=Encoding.FLOAT32,
    samples_total=200,
)
"""Two devices that train 100 samples of their own each in 300 ms; `a` merges."""


def test_importance_costs_the_forward_passes_over_all_that_it_chooses_from() -> None:
    members = cluster(device("a"), device("b"))
    plain, chosen = estimate(members, AT_HOME), estimate(members, attrs.evolve(AT_HOME, sampling=Sampling.IMPORTANCE))
    assert chosen.round_us - plain.round_us == 300_000 * GROUP_BATCHES // 3


def test_what_trainers_keep_to_themselves_costs_no_more_than_its_messages() -> None:
    members = cluster(device("a"), device("b"))
    apart = estimate(members, attrs.evolve(AT_HOME, consistency=Consistency.AT_END))
    assert apart.sync_us < estimate(members, AT_HOME).sync_us
    assert apart.bytes_total == apart.rounds * 4 * MESSAGE_BYTES


def test_every_exchange_of_gossip_waits_for_its_links_and_sends_both_ways() -> None:
    members = cluster(device("a"), device("b"))
    mixing = Mixing(every_steps=1, exchanges=3, links=(MixingEdge(first=A, second=B, weight_ppm=500_000),))
    apart = estimate(members, attrs.evolve(AT_HOME, consistency=Consistency.AT_END))
    gossip = estimate(members, attrs.evolve(AT_HOME, consistency=Consistency.AT_END, mixing=mixing))
    sent_bytes = 4 * members.members[0].task.state_elements + MESSAGE_BYTES
    assert gossip.round_us - apart.round_us == 3 * (sent_bytes + 2 * 500 + 5_000)  # at a byte in a microsecond
    assert gossip.bytes_total - apart.bytes_total == gossip.rounds * 3 * 4 * sent_bytes


@pytest.mark.parametrize("folder", ["crowd/planning", "policies"])
def test_planning_knows_integers_only_and_neither_clock_nor_chance(folder: str) -> None:
    root = Path(__file__).parents[2]
    forbidden = {"torch", "time", "datetime", "random", "secrets", "numpy", "fractions", "decimal", "os"}
    for path in sorted((root / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), f"float at {where}"
            assert not (isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)), f"/ at {where}"
            assert not (isinstance(node, ast.Name) and node.id in {"float", "hash", "id"}), f"{node.id} at {where}"
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not forbidden & {name.split(".")[0] for name in names}, f"import at {where}"
