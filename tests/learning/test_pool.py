import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowd.learning.pool import Availability, EpochSampler, TrainingPool
from crowd.learning.shards import LentSamples
from tests.learning.nets import A
from tests.learning.test_shards import FROM_B, LENDER, header, numbered, span, store_of

sizes = st.integers(1, 9)


def here(*flags: bool) -> Availability:
    return Availability(np.array(flags, dtype=np.bool_))


def everything(count: int) -> Availability:
    return Availability(np.ones(count, dtype=np.bool_))


def sampler_of(count: int, generation: int = 1) -> EpochSampler:
    return EpochSampler(count, seed=0, generation=generation)


def epoch_of(sampler: EpochSampler, count: int) -> list[int]:
    return sampler.take(count, everything(count)).tolist()


# --- the order of an epoch --------------------------------------------------------------------------------------------


@given(count=st.integers(1, 50), size=sizes, epochs=st.integers(1, 3))
def test_every_row_is_dealt_once_per_epoch_and_no_batch_spans_two(count: int, size: int, epochs: int) -> None:
    sampler, available = sampler_of(count), everything(count)
    for epoch in range(epochs):
        dealt: list[int] = []
        while len(dealt) < count:
            rows = sampler.take(size, available)
            assert len(rows) == min(size, count - len(dealt))
            dealt.extend(rows.tolist())
            assert (sampler.epoch, sampler.trained_in_epoch) == (epoch, len(dealt))
        assert sorted(dealt) == list(range(count))


def test_each_epoch_and_each_generation_has_another_order_and_a_restart_has_the_same() -> None:
    first, restarted, later = sampler_of(50), sampler_of(50), sampler_of(50, generation=2)
    orders = [epoch_of(first, 50), epoch_of(first, 50), epoch_of(later, 50)]
    assert len({tuple(order) for order in orders}) == 3
    assert epoch_of(restarted, 50) == orders[0]


@given(data=st.data(), count=st.integers(1, 40), size=sizes)
def test_the_next_available_rows_are_dealt_in_the_order_of_the_epoch(
    data: st.DataObject, count: int, size: int
) -> None:
    order = epoch_of(sampler_of(count), count)
    sampler, available = sampler_of(count), everything(count)
    left = list(order)
    while left:
        mask = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=np.bool_)
        if not mask.any():
            mask[:] = True
        available.update(mask)
        for _ in range(2):
            expected = [row for row in left if mask[row]][:size]
            if not left:
                break
            assert sampler.take(size, available).tolist() == expected
            left = [row for row in left if row not in expected]
            assert sampler.trained_in_epoch == count - len(left)
    assert sampler.epoch == 0


def test_an_epoch_does_not_end_before_the_last_row_has_arrived() -> None:
    sampler, available = sampler_of(3), here(True, True, False)
    assert sorted(sampler.take(8, available).tolist()) == [0, 1]
    assert not len(sampler.take(8, available))
    assert (sampler.epoch, sampler.trained_in_epoch) == (0, 2)
    available.update(np.ones(3, dtype=np.bool_))
    assert sampler.take(8, available).tolist() == [2]
    assert len(sampler.take(8, available)) == 3
    assert sampler.epoch == 1


def test_a_sampler_of_nothing_deals_nothing() -> None:
    assert not len(sampler_of(0).take(8, here()))
    assert sampler_of(0).epoch == 0


@given(count=st.integers(1, 30), before=st.lists(sizes, max_size=8), after=st.lists(sizes, max_size=8), data=st.data())
def test_a_restored_sampler_deals_again_what_it_dealt(
    count: int, before: list[int], after: list[int], data: st.DataObject
) -> None:
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=np.bool_)
    sampler, available = sampler_of(count), Availability(mask)
    for size in before:
        sampler.take(size, available)
    available.update(np.ones(count, dtype=np.bool_))
    snapshot = sampler.snapshot()
    once = [sampler.take(size, available).tolist() for size in after]
    for restored in (sampler, sampler_of(count)):
        restored.restore(snapshot)
        assert [restored.take(size, available).tolist() for size in after] == once


# --- own and borrowed samples -----------------------------------------------------------------------------------------


def pool_with_two_borrowed() -> tuple[LentSamples, TrainingPool]:
    store = store_of(numbered(0, 1, 1), A)
    lent = LentSamples(store)
    return lent, TrainingPool(store, lent, (span(1, 0, 2),), {FROM_B: (span(0, 3, 5),)})


def test_a_pool_has_own_samples_first_and_waits_for_the_borrowed_ones() -> None:
    lent, pool = pool_with_two_borrowed()
    assert (len(pool), pool.waiting) == (4, 2)
    assert pool.available.mask.tolist() == [True, True, False, False]
    lent.add(header((span(0, 4, 5),)), LENDER.to_bytes((span(0, 4, 5),)))
    assert pool.waiting == 2  # until it is refreshed
    pool.refresh()
    assert pool.available.mask.tolist() == [True, True, False, True]
    inputs, labels = pool.batch(np.array([3, 0]))
    assert inputs[0].tolist() == LENDER.take((span(0, 4, 5),))[0][0].tolist()
    assert inputs[1].tolist() in ([1.0], [2.0])
    assert labels.tolist() == [0, 1]


def test_a_pool_stays_valid_while_samples_are_dropped_and_forgets_them_when_refreshed() -> None:
    lent, pool = pool_with_two_borrowed()
    lent.add(header((span(0, 3, 5),)), LENDER.to_bytes((span(0, 3, 5),)))
    pool.refresh()
    before = pool.batch(np.arange(4))[0].clone()
    lent.drop(FROM_B.device)
    lent.add(header((span(1, 0, 9),)), LENDER.to_bytes((span(1, 0, 9),)))
    assert torch.equal(pool.batch(np.arange(4))[0], before)
    pool.refresh()
    assert pool.available.mask.tolist() == [True, True, False, False]


def test_a_sample_is_trained_once_per_epoch_even_if_it_arrives_late() -> None:
    lent, pool = pool_with_two_borrowed()
    sampler = sampler_of(len(pool))
    trained = pool.batch(sampler.take(8, pool.available))[0].view(-1).tolist()
    lent.add(header((span(0, 0, 10),)), LENDER.to_bytes((span(0, 0, 10),)))
    pool.refresh()
    trained += pool.batch(sampler.take(8, pool.available))[0].view(-1).tolist()
    expected = {1.0, 2.0, *LENDER.take((span(0, 3, 5),))[0].view(-1).tolist()}
    assert len(trained) == 4
    assert set(trained) == expected
