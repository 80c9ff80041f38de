"""Contributions out of all proportion are told from those of devices that merely have more to learn."""

import pytest
import torch

from crowd.learning.evaluation import Evaluation
from crowd.learning.layout import Pieces
from crowd.learning.merge import SliceMerge
from crowd.learning.outliers import Outliers, size
from crowd.units import DeviceId

A, B, C, D, E = map(DeviceId, "abcde")
PLAIN = Pieces((100,))


def test_the_size_grows_neither_with_the_samples_of_a_random_walk_nor_with_the_slice() -> None:
    one = size(torch.ones(100), 16, PLAIN)
    assert one == pytest.approx(0.25)
    assert size(2 * torch.ones(100), 64, PLAIN) == pytest.approx(one)
    assert size(torch.ones(400), 16, Pieces((400,))) == pytest.approx(one)


def test_statistics_do_not_count() -> None:
    delta = torch.ones(110)
    delta[40:50] = 1e8
    assert size(delta, 16, Pieces((40, 60), ((40, 50),))) == pytest.approx(0.25)


@pytest.mark.parametrize("wrong", [10.1, 1e6])
def test_one_that_is_over_ten_times_the_median_of_the_others_is_found(wrong: float) -> None:
    assert Outliers().among({A: 1.0, B: 1.1, C: 0.9, D: wrong}) == {D}


@pytest.mark.parametrize(
    "sizes", [{A: 1.0, B: 1.0, C: 10.0, D: 1.0}, {A: 1.0, B: 1.0, C: 100.0}, {A: 0.0, B: 0.0, C: 0.0, D: 1.0}]
)
def test_ten_times_is_not_over_and_three_are_too_few_to_tell(sizes: dict[DeviceId, float]) -> None:
    assert not Outliers().among(sizes)


def test_who_comes_late_with_something_new_may_be_as_large_as_others_were_at_the_beginning() -> None:
    outliers = Outliers()
    assert not outliers.among({A: 1.0, B: 1.0, C: 1.0, D: 1.0})
    assert not outliers.among({A: 0.01, B: 0.01, C: 0.01, D: 2.0})
    assert outliers.among({A: 0.01, B: 0.01, C: 0.01, D: 11.0}) == {D}


def test_a_slice_is_merged_without_them() -> None:
    merge = SliceMerge(dict.fromkeys((A, B, C, D), 10), 2)
    for sender in (A, B, C):
        merge.add(sender, 10, torch.ones(2), (1,), Evaluation(sums=(1.0, 2.0), samples=2))
    merge.add(D, 10, -torch.full((2,), 100.0), (9,), Evaluation(sums=(0.0, 2.0), samples=2))
    assert Outliers().among(merge.sizes(Pieces((2,)))) == {D}
    assert merge.can_do_without({D})
    assert not merge.can_do_without({A, B, C})
    merged = merge.merged(without={D})
    assert merged.mean.tolist() == [1.0, 1.0]
    assert merged.senders == {A: 10, B: 10, C: 10}
    assert (merged.counters, merged.evaluation.sums) == ((1,), (3.0, 6.0))
