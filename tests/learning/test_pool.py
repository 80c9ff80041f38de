import itertools
from unittest import mock

import torch
from hypothesis import given
from hypothesis import strategies as st

from crowd.learning.lent_samples import LentSamples
from crowd.learning.pool import EpochSampler, TrainingPool
from crowd.learning.shards import SampleStore
from crowd.units import ceil_div
from tests.learning.test_shards import FROM_B, LENDER, header, numbered, span

sizes = st.integers(1, 9)


def sampler_of(count: int, generation: int = 1) -> EpochSampler:
    return EpochSampler(count, seed=0, generation=generation)


# --- the order of an epoch --------------------------------------------------------------------------------------------


@given(count=st.integers(1, 50), size=sizes, epochs=st.integers(1, 3))
def test_every_row_is_dealt_once_per_epoch_and_no_batch_spans_two(count: int, size: int, epochs: int) -> None:
    sampler = sampler_of(count)
    for epoch in range(epochs):
        dealt: list[int] = []
        while len(dealt) < count:
            rows = sampler.take(size)
            assert len(rows) == min(size, count - len(dealt))
            dealt.extend(rows.tolist())
            assert (sampler.epoch, sampler.trained_in_epoch) == (epoch, len(dealt))
        assert sorted(dealt) == list(range(count))


def test_each_epoch_and_each_generation_has_another_order_and_a_restart_has_the_same() -> None:
    first, restarted, later = sampler_of(50), sampler_of(50), sampler_of(50, generation=2)
    orders = [sampler.take(50).tolist() for sampler in (first, first, later)]
    assert len({tuple(order) for order in orders}) == 3
    assert restarted.take(50).tolist() == orders[0]


@given(
    count=st.integers(1, 60),
    batch_size=st.integers(1, 16),
    samples=st.integers(1, 90),
    group=st.integers(1, 2),
    rounds=st.integers(1, 9),
)
def test_batches_are_even_so_that_no_step_is_made_on_a_few_samples(
    count: int, batch_size: int, samples: int, group: int, rounds: int
) -> None:
    sampler, whole = sampler_of(count), min(samples, batch_size, ceil_div(count, group))
    for _ in range(rounds):
        sizes = sampler.batches(samples, batch_size, group=group)
        assert abs(sum(sizes) - samples) <= whole // 2
        assert whole / 2 <= min(sizes) <= max(sizes) <= batch_size
        for size in sizes:
            assert ceil_div(len(sampler.take(group * size)), group) == size, "no batch spans two epochs"


def test_what_is_left_of_an_epoch_or_of_a_round_joins_a_batch_or_is_left_out() -> None:
    sampler = sampler_of(41)
    assert sampler.batches(40, 8) == 5 * [7] + [6]  # one sample more, in the same number of steps
    assert sampler.batches(45, 8) == sampler.batches(41, 8)
    assert sampler.batches(46, 8) == [*sampler.batches(41, 8), 5]
    assert sampler.batches(17, 8) == [6, 6, 5]
    sampler.take(17)
    assert sampler.batches(21, 8) == sampler.batches(24, 8) == [8, 8, 8]
    assert sampler.batches(19, 8) == [7, 6, 6]
    assert sampler.batches(0, 8) == sampler_of(0).batches(8, 8) == []


@given(count=st.integers(1, 30), wanted=st.lists(sizes, max_size=12), asked=st.integers(0, 12), at_once=sizes)
def test_a_batch_counts_as_dealt_when_it_is_asked_for_however_many_are_gathered(
    count: int, wanted: list[int], asked: int, at_once: int
) -> None:
    store = SampleStore(numbered(*([0] * count)))
    pool = TrainingPool(store, LentSamples(store), (span(0, 0, count),), {})
    sampler, expected = sampler_of(count), sampler_of(count)
    with mock.patch("crowd.learning.pool.GATHERED_BYTES", at_once * store.format.sample_bytes):
        batches = list(itertools.islice(pool.deal(sampler, wanted), asked))
    rows = store.rows((span(0, 0, count),))
    for (inputs, labels), size in itertools.zip_longest(batches, wanted[:asked]):
        assert torch.equal(inputs, store.samples.inputs[rows[expected.take(size)]])
        assert len(inputs) == len(labels)
    assert (sampler.epoch, sampler.trained_in_epoch) == (expected.epoch, expected.trained_in_epoch)


# --- own and borrowed samples -----------------------------------------------------------------------------------------


def pool_with_two_borrowed() -> tuple[LentSamples, TrainingPool]:
    store = SampleStore(numbered(0, 1, 1))
    lent = LentSamples(store)
    return lent, TrainingPool(store, lent, (span(1, 0, 2),), {FROM_B: (span(0, 3, 5),)})


def inputs_of(pool: TrainingPool) -> torch.Tensor:
    """Of an epoch in one batch."""
    ((inputs, _),) = pool.deal(sampler_of(len(pool)), [len(pool)])
    return inputs


def test_a_pool_has_own_samples_first_and_is_ready_when_the_last_borrowed_one_has_come() -> None:
    lent, pool = pool_with_two_borrowed()
    assert (len(pool), pool.ready) == (4, False)
    lent.add(header((span(0, 4, 5),)), LENDER.to_bytes((span(0, 4, 5),)))
    pool.refresh()
    assert (len(pool), pool.ready) == (4, False)
    lent.add(header((span(0, 3, 4),)), LENDER.to_bytes((span(0, 3, 4),)))
    assert not pool.ready  # until it is refreshed
    pool.refresh()
    assert pool.ready
    rows = sampler_of(4).take(4)
    ((inputs, labels),) = pool.deal(sampler_of(4), [4])
    by_row = dict(zip(rows.tolist(), zip(inputs.tolist(), labels.tolist(), strict=True), strict=True))
    assert by_row[2] == (LENDER.take((span(0, 3, 4),))[0][0].tolist(), 0)
    assert by_row[3] == (LENDER.take((span(0, 4, 5),))[0][0].tolist(), 0)
    assert sorted([by_row[0], by_row[1]]) == [([1.0], 1), ([2.0], 1)]


def test_a_pool_of_nothing_is_never_ready() -> None:
    store = SampleStore(numbered(0, 1))
    assert not TrainingPool(store, LentSamples(store), (), {}).ready


def test_a_pool_stays_valid_while_samples_are_dropped_and_forgets_them_when_refreshed() -> None:
    lent, pool = pool_with_two_borrowed()
    lent.add(header((span(0, 3, 5),)), LENDER.to_bytes((span(0, 3, 5),)))
    pool.refresh()
    before = inputs_of(pool)
    lent.drop(FROM_B.device, FROM_B.life)
    lent.add(header((span(1, 0, 9),)), LENDER.to_bytes((span(1, 0, 9),)))
    assert torch.equal(inputs_of(pool), before)
    pool.refresh()
    assert not pool.ready
