"""The pieces of offloading and reallocation: dealing, matching, cutting, merging often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowd.planning.policy import Cluster
from crowd.planning.profile import Prefer
from crowd.units import DeviceId
from policies.common import cut, evaluation_shares
from policies.crowd_learning.reallocate import slice_owners
from policies.labels import deal, match, proportional
from tests.support.profiles import make_profile, task_facts

A, B, C, D = (DeviceId(name) for name in "abcd")
histograms = st.lists(st.integers(0, 50), min_size=1, max_size=5)


@given(histograms, st.data())
def test_largest_remainders_add_up_and_stay_within_one_of_the_exact_share(
    weights: list[int], data: st.DataObject
) -> None:
    total = data.draw(st.integers(0, sum(weights)))
    counts = proportional(weights, total)
    assert sum(counts) == total
    for count, weight in zip(counts, weights, strict=True):
        assert count <= weight
        assert abs(count * sum(weights) - total * weight) < max(1, sum(weights))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6), st.data())
def test_a_deal_gives_each_its_target_and_no_more_than_there_is(
    holdings: list[tuple[int, int]], data: st.DataObject
) -> None:
    members = [make_profile(f"d{index}", label_counts=counts) for index, counts in enumerate(holdings)]
    pool = [sum(column) for column in zip(*holdings, strict=True)]
    targets: list[int] = []
    for _ in members:
        targets.append(data.draw(st.integers(0, sum(pool) - sum(targets))))
    # Its own samples and this much more: whoever is given more than it holds must have room for the rest.
    room = {
        member.device: max(0, target - member.samples) + data.draw(st.integers(0, 40))
        for member, target in zip(members, targets, strict=True)
    }
    hands = deal(members, (), targets, pool, room, balanced=data.draw(st.booleans()))
    assert [sum(hand) for hand in hands] == targets
    assert all(sum(column) <= there for column, there in zip(zip(*hands, strict=True), pool, strict=True))
    for member, hand in zip(members, hands, strict=True):
        lack = sum(max(0, count - own) for count, own in zip(hand, member.label_counts, strict=True))
        assert lack <= room[member.device]


def test_the_largest_lack_is_served_from_the_largest_surplus() -> None:
    moves, left = match({A: (5, 0), B: (9, 2)}, {C: (8, 1), D: (3, 0)})
    assert moves == {(B, C): (8, 1), (B, D): (1, 0), (A, D): (2, 0)}
    assert left == {A: (3, 0), B: (0, 1)}


def test_slices_end_on_block_boundaries_and_cover_the_state() -> None:
    assert [(part.owner, part.start, part.stop) for part in cut(1_000, [A, B, C])] == [
        (A, 0, 256),
        (B, 256, 512),
        (C, 512, 1_000),
    ]
    assert len(cut(100, [A, B, C])) == 1


@pytest.mark.parametrize(("work_us", "slices"), [(1_000, 4), (1_000_000_000, 1)], ids=["merge-bound", "work-bound"])
def test_slices_are_many_only_where_merging_takes_much_of_the_round(work_us: int, slices: int) -> None:
    task = task_facts(state_elements=1_000_000)
    members = tuple(make_profile(name, task=task) for name in "abcd")
    owners = slice_owners(Cluster(members=members, prefer=Prefer.TIME, seed=0), dict.fromkeys((A, B, C, D), 0), work_us)
    assert owners is not None
    assert len(owners[0]) == slices


def test_the_trainer_with_the_best_link_owns_the_only_slice() -> None:
    members = (make_profile("a"), make_profile("b", uplink_bytes_s=10**7, downlink_bytes_s=10**7), make_profile("c"))
    owners = slice_owners(Cluster(members=members, prefer=Prefer.TIME, seed=0), {A: 0, B: 0}, 10**9)
    assert owners is not None
    assert [part.owner for part in owners[0]] == [B]


def test_a_bystander_owns_the_slice_where_its_link_saves_much_of_the_round() -> None:
    hub = make_profile("z", uplink_bytes_s=10**9, downlink_bytes_s=10**9)
    members = (*(make_profile(name) for name in "abcd"), hub)
    owners = slice_owners(Cluster(members=members, prefer=Prefer.TIME, seed=0), dict.fromkeys((A, B, C, D), 0), 1_000)
    assert owners is not None
    assert [part.owner for part in owners[0]] == ["z"]


@given(st.lists(st.integers(0, 1_000), min_size=1, max_size=8), st.integers(0, 500))
def test_evaluation_shares_follow_on_each_other(speeds: list[int], samples: int) -> None:
    shares = evaluation_shares([make_profile(f"d{i}", speed_kflops=speed) for i, speed in enumerate(speeds)], samples)
    assert [start for start, _ in shares] == [0, *[stop for _, stop in shares[:-1]]]
    assert shares[-1][1] == samples
