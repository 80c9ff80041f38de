"""What is held out where there is no evaluation set. A sample is a number here, its input."""

import itertools

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from crowd.learning.holdout import holdout
from crowd.learning.keys import keys_of
from crowd.learning.samples import SampleSet

BELOW = 2**64 // 10

numbers = st.lists(st.integers(0, 300), max_size=60)
"""Some of them more than once."""
short_series = st.lists(st.integers(0, 10_000), max_size=150)
gaps = st.integers(1, 5)


def samples_of(numbers: list[int]) -> SampleSet:
    return SampleSet(torch.tensor(numbers, dtype=torch.int64).view(-1, 1), torch.zeros(len(numbers)))


def split(numbers: list[int], gap: int | None = None) -> tuple[list[int], list[int]]:
    """What is trained, and what is held out."""
    trained, held = (part.inputs.view(-1).tolist() for part in holdout(samples_of(numbers), series_gap=gap))
    return trained, held


def has_small_key(number: int) -> bool:
    return int(keys_of(samples_of([number]))[0]) < BELOW


# --- any samples ------------------------------------------------------------------------------------------------------


def test_about_a_tenth_is_held_out_and_nothing_is_lost() -> None:
    trained, held = split(list(range(3000)))
    assert len(held) == pytest.approx(300, abs=60)
    assert sorted(trained + held) == list(range(3000))
    assert trained == sorted(trained), "in the data set's order"
    assert held == sorted(held)


@given(numbers=numbers)
def test_of_two_samples_that_differ_at_least_one_is_held_out_and_equal_ones_are_on_one_side(numbers: list[int]) -> None:
    trained, held = split(numbers)
    assert sorted(trained + held) == sorted(numbers)
    assert not set(trained) & set(held)
    assert (held and trained) or len(set(numbers)) < 2


@given(numbers=numbers, chance=st.randoms(use_true_random=False))
def test_what_is_held_out_does_not_depend_on_the_order(numbers: list[int], chance: object) -> None:
    shuffled = list(numbers)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert set(split(shuffled)[1]) == set(split(numbers)[1])


@given(numbers=numbers, more=numbers)
def test_nothing_moves_from_training_into_what_is_held_out_as_data_grow(numbers: list[int], more: list[int]) -> None:
    assume(len(set(numbers)) > 1 and not all(map(has_small_key, numbers)))
    assert not set(split(numbers)[0]) & set(split(numbers + more)[1])


def test_one_sample_alone_is_trained_and_may_be_the_one_of_two_that_is_held_out() -> None:
    large = [number for number in range(50) if not has_small_key(number)]
    first, second = sorted(large[:2], key=lambda number: int(keys_of(samples_of([number]))[0]))
    assert split([first]) == ([first], [])
    assert split([first, second]) == ([second], [first])


SMALL = [number for number in range(300) if has_small_key(number)]


@given(numbers=numbers, dropped=st.integers(0, 60), small=st.sampled_from(SMALL))
def test_of_what_is_left_nothing_changes_sides_where_a_key_is_small(
    numbers: list[int], dropped: int, small: int
) -> None:
    numbers = [*numbers, small]
    rest = numbers[min(dropped, len(numbers) - 1) :]
    assume(not all(map(has_small_key, rest)))
    trained, held = split(rest)
    assert set(trained) <= set(split(numbers)[0])
    assert set(held) <= set(split(numbers)[1])


# --- series -----------------------------------------------------------------------------------------------------------


def test_of_a_long_series_whole_stretches_are_held_out_and_little_is_left_out() -> None:
    for gap in (1, 5, 29):
        count = 4000 * (gap + 1)
        trained, held = split(list(range(count)), gap)
        assert 0.05 * count < len(held) < 0.12 * count
        assert len(trained) + len(held) > 0.92 * count
        turns = sum(later - earlier > 1 for earlier, later in itertools.pairwise(held))
        assert len(held) / (turns + 1) > 2 * gap


@given(numbers=st.lists(st.integers(0, 10_000), max_size=150, unique=True), gap=gaps)
def test_what_is_held_out_of_a_series_is_far_from_all_that_is_trained(numbers: list[int], gap: int) -> None:
    trained, held = split(numbers, gap)
    assert held or not numbers
    where = {number: index for index, number in enumerate(numbers)}
    for left in held:
        assert all(abs(where[left] - where[right]) > gap for right in trained)


@given(numbers=short_series, gap=gaps, steps=st.lists(st.integers(1, 40), max_size=4))
def test_as_a_series_grows_nothing_moves_from_training_into_what_is_held_out(
    numbers: list[int], gap: int, steps: list[int]
) -> None:
    ever_trained: set[int] = set()
    stop = len(numbers)
    for step in [*reversed(steps), 0]:
        stop = max(0, stop - step)
    for step in [0, *steps]:
        stop += step
        trained, held = split(numbers[:stop], gap)
        ever_trained |= set(trained)
        assert not ever_trained & set(held)


@given(
    numbers=st.lists(st.integers(0, 10_000), max_size=150, unique=True),
    gap=gaps,
    start=st.integers(0, 150),
    more=st.integers(0, 100),
)
def test_as_a_series_moves_on_nothing_moves_from_training_into_what_is_held_out(
    numbers: list[int], gap: int, start: int, more: int
) -> None:
    before, after = numbers[: len(numbers) - more], numbers[start:]
    trained, held = split(before, gap)
    later_trained, later_held = split(after, gap)
    assume(set(held) & set(later_held))  # else all that was held out is gone
    assert not set(trained) & set(later_held)
    assert set(trained) & set(after) <= set(later_trained)


def test_stretches_stay_where_they_are_as_a_series_moves_on() -> None:
    _, before = split(list(range(20_000)), 5)
    _, after = split(list(range(5_000, 25_000)), 5)
    assert [number for number in before if number >= 5_100] == [number for number in after if 5_100 <= number < 20_000]
    assert not [number for number in after if number < 5_000]


def test_equal_samples_of_a_series_are_not_held_out_where_others_of_them_are_not() -> None:
    day = list(range(48))
    trained, held = split(day * 200, 3)
    assert not set(trained) & set(held)
    assert not held, "as each day is like the others"


def test_a_short_series_holds_out_its_last_tenth_with_a_gap_before() -> None:
    numbers = [number for number in range(400) if int(keys_of(samples_of([number]))[0]) % 24][:40]
    assert split(numbers, 5) == (numbers[:31], numbers[36:])
    assert split(numbers[:4], 5) == ([], numbers[3:4])
