import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from crowd.actors.trainer.deadlines import Deadlines
from crowd.errors import MalformedMessage
from crowd.learning.evaluation import Evaluation
from crowd.learning.merge import SliceMerge
from crowd.units import SECOND_US, DeviceId
from tests.learning.nets import A, B, C

PLANNED = {A: 30, B: 20, C: 10}


def told(right: int, evaluated: int) -> Evaluation:
    return Evaluation(sums=(float(right), float(evaluated)), samples=evaluated)


def slice_merge() -> SliceMerge:
    return SliceMerge(PLANNED, 2)


def test_the_mean_is_weighted_by_the_samples_really_trained() -> None:
    merge = slice_merge()
    merge.add(A, 30, torch.tensor([1.0, 0.0]), (4, 1), told(3, 5), loss_sum=60.0)
    merge.add(B, 10, torch.tensor([5.0, 4.0]), (2, 6), told(1, 2), loss_sum=10.0)
    merged = merge.merged()
    assert merged.mean.tolist() == [2.0, 1.0]
    assert merged.senders == {A: 30, B: 10}
    assert merged.counters == (4, 6)
    assert (merged.evaluation, merged.loss) == (told(4, 7), 1.75)


@given(order=st.permutations([A, B, C]), seed=st.integers(0, 2**32))
def test_the_mean_does_not_depend_on_the_order_of_arrival(order: list[DeviceId], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    deltas = {device: torch.randn(50, generator=generator) for device in PLANNED}
    merges = SliceMerge(PLANNED, 50), SliceMerge(PLANNED, 50)
    for merge, devices in zip(merges, (order, [A, B, C]), strict=True):
        for device in devices:
            assert merge.add(device, PLANNED[device], deltas[device])
    assert torch.equal(merges[0].merged().mean, merges[1].merged().mean)
    assert list(merges[0].merged().senders) == [A, B, C]


def test_a_slice_is_complete_when_every_planned_trainer_was_heard() -> None:
    merge = slice_merge()
    for device in (C, A, B):
        assert not merge.complete
        merge.add(device, 1, torch.zeros(2))
    assert merge.complete


def test_half_of_the_planned_samples_is_enough() -> None:
    merge = slice_merge()
    assert not merge.enough
    merge.add(B, 20, torch.zeros(2))
    assert not merge.enough
    merge.add(C, 10, torch.zeros(2))
    assert merge.enough


def test_a_second_contribution_and_one_of_a_stranger_change_nothing() -> None:
    merge = slice_merge()
    assert merge.add(A, 30, torch.ones(2))
    assert not merge.add(A, 30, torch.zeros(2))
    assert not merge.add(DeviceId("stranger"), 30, torch.zeros(2))
    assert merge.merged().mean.tolist() == [1.0, 1.0]
    assert merge.merged().senders == {A: 30}


def test_a_trainer_without_a_sample_counts_as_heard_but_weighs_nothing() -> None:
    merge = SliceMerge({A: 1, B: 1}, 2)
    merge.add(A, 0, torch.ones(2), evaluation=told(1, 1))
    merge.add(B, 1, torch.zeros(2))
    assert merge.complete
    assert merge.merged().mean.tolist() == [0.0, 0.0]
    assert (merge.merged().evaluation, merge.merged().loss) == (told(1, 1), 0.0)


def test_where_nobody_trained_a_sample_all_weigh_alike() -> None:
    merge = slice_merge()
    merge.add(A, 0, torch.tensor([1.0, 3.0]))
    merge.add(B, 0, torch.tensor([3.0, -3.0]))
    assert merge.merged().mean.tolist() == [2.0, 0.0]


def test_a_slice_with_a_quorum_is_complete_with_it_and_not_enough_before() -> None:
    merge = SliceMerge(PLANNED, 2, quorum=2)
    merge.add(A, 30, torch.zeros(2))  # half of the samples
    assert not merge.complete
    assert not merge.enough
    merge.add(C, 10, torch.zeros(2))
    assert merge.complete
    assert merge.enough
    assert merge.missing == (B,)
    assert merge.heard == {A, C}


def test_what_lags_counts_for_less_and_what_is_missing_for_that_is_not_made_up() -> None:
    merge = SliceMerge(PLANNED, 2, quorum=2)
    merge.add(A, 10, torch.tensor([8.0, 0.0]), lag=3)
    merge.add(B, 10, torch.tensor([0.0, 8.0]))
    assert merge.merged().mean.tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("samples", "delta", "counters", "loss_sum"),
    [
        (1, torch.zeros(3), (1,), 0.0),
        (1, torch.zeros(2, 1), (1,), 0.0),
        (-1, torch.zeros(2), (1,), 0.0),
        (1, torch.zeros(2), (1, 2), 0.0),
        (1, torch.zeros(2), (1,), math.inf),
        (1, torch.zeros(2), (1,), math.nan),
    ],
)
def test_an_impossible_contribution_is_malformed_and_not_taken(
    samples: int, delta: torch.Tensor, counters: tuple[int, ...], loss_sum: float
) -> None:
    merge = slice_merge()
    merge.add(A, 30, torch.zeros(2), (1,))
    with pytest.raises(MalformedMessage, match="b sent"):
        merge.add(B, samples, delta, counters, loss_sum=loss_sum)
    assert merge.merged().senders == {A: 30}


# --- deadlines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("planned_us", "expected_us"), [(SECOND_US, 3 * SECOND_US), (9 * SECOND_US, 18 * SECOND_US)])
def test_before_any_arrival_an_owner_waits_generously(planned_us: int, expected_us: int) -> None:
    assert Deadlines().deadline_us(planned_us) == expected_us


def test_the_deadline_is_the_median_and_three_spreads() -> None:
    deadlines = Deadlines()
    for trainer, arrival_us in ((A, 1000), (B, 1600), (C, 2400)):
        deadlines.observe(trainer, arrival_us)
    assert deadlines.deadline_us(1) == 1600 + 3 * 600
    deadlines.observe(C, 1600)
    assert deadlines.deadline_us(1) == 1600 + 3 * 400


def test_the_deadline_is_never_below_the_planned_time() -> None:
    deadlines = Deadlines()
    deadlines.observe(A, 10)
    assert deadlines.deadline_us(5000) == 5000


def test_trainers_of_an_earlier_plan_are_forgotten() -> None:
    deadlines = Deadlines()
    deadlines.observe(A, 1_000)
    deadlines.observe(B, 100_000)
    deadlines.keep({A})
    assert deadlines.deadline_us(1) == 1_750


@given(
    others_us=st.lists(st.integers(1_000_000, 100_000_000), min_size=1, max_size=9),
    permille=st.integers(1000, 1500),
    planned_us=st.integers(1, 50_000_000),
)
@example(others_us=[10_000_000] * 3, permille=1400, planned_us=1)  # all others at the median
def test_a_regular_device_within_half_of_the_median_is_never_shut_out_for_ever(
    others_us: list[int], permille: int, planned_us: int
) -> None:
    regular = {DeviceId(f"d{index}"): arrival_us for index, arrival_us in enumerate(others_us)}
    ordered = sorted(others_us)
    regular[DeviceId("slow")] = ordered[len(ordered) // 2] * permille // 1000
    ordered = sorted(regular.values())
    median_us = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2
    deadlines = Deadlines()
    for number in range(6):
        deadline_us = deadlines.deadline_us(planned_us)
        for trainer, arrival_us in regular.items():
            if number >= 2 and 2 * arrival_us <= 3 * median_us:
                assert arrival_us <= deadline_us
            deadlines.observe(trainer, arrival_us)  # late ones too
