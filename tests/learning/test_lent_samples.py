"""What a borrower keeps of a lender's samples, and finds again by their names, when the lender's data are others."""

from typing import Any

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowd.errors import MalformedMessage
from crowd.learning.lent_samples import LentSamples
from crowd.learning.samples import SampleSet
from crowd.learning.shards import Ranges, SampleStore, Source, without
from crowd.protocol.messages import SampleNames
from crowd.units import Life
from tests.learning.nets import B, C
from tests.learning.test_shards import FROM_B, LENDER, borrower, header, held, span

GROWN = attrs.evolve(FROM_B, data_epoch=1)
BACK = attrs.evolve(FROM_B, life=Life(incarnation=2, boot=b"boot"))
SAMPLE_BYTES = 12
OWN = 3


def store_of(numbers: list[int]) -> SampleStore:
    """The label of each is its parity."""
    inputs = torch.tensor(numbers, dtype=torch.float32).view(-1, 1)
    return SampleStore(SampleSet(inputs, torch.tensor([number % 2 for number in numbers], dtype=torch.int64)))


def names(ranges: Ranges, source: Source) -> SampleNames:
    return SampleNames(lender=source.device, life=source.life, data_epoch=source.data_epoch, ranges=ranges)


def lend(lent: LentSamples, store: SampleStore, ranges: Ranges, source: Source) -> None:
    by = {"lender": source.device, "life": source.life, "data_epoch": source.data_epoch}
    lent.add(header(ranges, **by), store.to_bytes(ranges))


def everything(store: SampleStore) -> Ranges:
    return tuple(span(label, 0, count) for label, count in enumerate(store.label_counts) if count)


def part(draw: Any, store: SampleStore) -> Ranges:
    """Some positions of each label."""
    found: Ranges = ()
    for label, count in enumerate(store.label_counts):
        start, stop = sorted(draw(st.tuples(st.integers(0, count), st.integers(0, count))))
        found += (span(label, start, stop),) if start < stop else ()
    return found


@given(data=st.data(), before=st.lists(st.integers(0, 40), max_size=40), spare=st.integers(0, 5))
def test_what_is_the_same_in_the_lenders_other_data_need_not_come_again(
    data: Any, before: list[int], spare: int
) -> None:
    after = data.draw(st.lists(st.sampled_from([*before, 41, 42, 43]), max_size=50), label="after")
    old, new = store_of(before), store_of(after)
    source = data.draw(st.sampled_from([GROWN, BACK]), label="source")
    had, wanted = part(data.draw, old), part(data.draw, new)
    lent = borrower()
    lent.keep_only({FROM_B: had})
    if had:
        lend(lent, old, had, FROM_B)
    lent.keep_only({source: wanted}, spare=spare)
    planned = sum(each.stop - each.start for each in wanted)
    assert lent.size_bytes <= SAMPLE_BYTES * (planned + spare)

    for each in (*wanted, *wanted):  # what is told again changes nothing
        lent.recognise(names((each,), source), new.names((each,)))
    lent.forget_others(source)
    assert not lent.has_others(source)
    missing = lent.missing(source, wanted)
    found = without(wanted, missing)
    assert lent.size_bytes == SAMPLE_BYTES * sum(each.stop - each.start for each in found)
    assert held(lent, source, found) == new.take(found)[0].view(-1).tolist()
    if sum(each.stop - each.start for each in had) <= planned + spare:
        known = old.take(had)[0].view(-1).tolist()
        for number in new.take(wanted)[0].view(-1).tolist():
            if number in known:
                known.remove(number)
        left = old.take(had)[0].numel() - len(known)
        assert sum(each.stop - each.start for each in found) == left, "all that it had"

    room = len(lent.samples)
    if missing:
        lend(lent, new, missing, source)
    assert len(lent.samples) == room <= OWN + planned + spare
    assert held(lent, source, wanted) == new.take(wanted)[0].view(-1).tolist()
    assert lent.samples.inputs[:OWN].view(-1).tolist() == [0, 1, 2]


def test_samples_of_a_lender_that_has_gone_are_kept_as_far_as_there_is_room_until_it_is_back() -> None:
    lent, all_of_it = borrower(), everything(LENDER)
    for source in (FROM_B, attrs.evolve(FROM_B, device=C)):
        lend(lent, LENDER, all_of_it, source)
    of_c = {attrs.evolve(FROM_B, device=C): all_of_it}
    lent.keep_only(of_c, spare=15)
    assert lent.size_bytes == SAMPLE_BYTES * (20 + 15)
    lent.keep_only(of_c | {BACK: all_of_it})
    assert lent.has_others(BACK)
    lent.recognise(names(all_of_it, BACK), LENDER.names(all_of_it))
    assert sum(each.stop - each.start for each in lent.missing(BACK, all_of_it)) == 5
    lent.keep_only(of_c)
    assert lent.size_bytes == SAMPLE_BYTES * 20
    assert not lent.has_others(FROM_B)


def test_what_a_lender_keeps_lending_from_the_same_data_needs_no_names() -> None:
    lent, all_of_it = borrower(), everything(LENDER)
    lend(lent, LENDER, all_of_it, FROM_B)
    lent.keep_only({FROM_B: (span(0, 0, 5),)}, spare=30)
    assert not lent.has_others(FROM_B)
    lent.keep_only({FROM_B: all_of_it})
    assert lent.missing(FROM_B, all_of_it) == ()


def test_names_say_nothing_of_samples_with_another_label_or_of_another_lender() -> None:
    zeros = SampleStore(SampleSet(torch.zeros(2, 1), torch.tensor([0, 1])))
    lent, both = borrower(), (span(0, 0, 1), span(1, 0, 1))
    lend(lent, zeros, both[:1], FROM_B)
    lend(lent, zeros, both[1:], attrs.evolve(FROM_B, device=C))
    lent.keep_only({GROWN: both}, spare=5)
    lent.recognise(names((span(1, 0, 1),), GROWN), zeros.names(both[:1]))
    lent.recognise(names((span(0, 0, 1),), GROWN), zeros.names(both[1:]))
    assert lent.missing(GROWN, both) == both
    lent.recognise(names((span(0, 0, 1),), GROWN), zeros.names(both[:1]))
    assert lent.missing(GROWN, both) == both[1:]


@pytest.mark.parametrize(
    ("ranges", "size_bytes"),
    [
        ((span(0, 0, 2),), 15),
        ((span(0, 0, 2),), 24),
        ((), 0),
        ((span(0, 0, 2**40),), 16),
        ((span(0, 2**40, 2**40 + 2),), 16),
        ((span(0, 2, 0),), 16),
        ((span(0, 0, 1), span(0, 0, 1)), 16),
        ((span(-1, 0, 2),), 16),
    ],
)
def test_names_that_do_not_fit_are_refused(ranges: Ranges, size_bytes: int) -> None:
    lent = borrower()
    lend(lent, LENDER, everything(LENDER), FROM_B)
    with pytest.raises(MalformedMessage):
        lent.recognise(names(ranges, GROWN), bytes(size_bytes))
    assert lent.missing(FROM_B, everything(LENDER)) == ()


def test_what_is_dropped_under_any_name_is_wiped_and_its_rows_are_used_again() -> None:
    lent, all_of_it = borrower(), everything(LENDER)
    lend(lent, LENDER, all_of_it, FROM_B)
    lent.keep_only({}, spare=20)
    tensors = lent.samples
    lent.drop(B, FROM_B.life)
    assert not lent.holds(B, FROM_B.life)
    assert lent.samples is tensors, "as a pool may still show them, and there may be no room for others"
    assert not tensors.inputs[OWN:].any()
    assert lent.size_bytes == 0
    lend(lent, LENDER, all_of_it, BACK)
    assert lent.samples is tensors
    assert held(lent, BACK, all_of_it) == LENDER.take(all_of_it)[0].view(-1).tolist()
    assert tensors.inputs[:OWN].view(-1).tolist() == [0, 1, 2]


def test_a_revoked_life_takes_with_it_what_was_found_again_in_a_later_one() -> None:
    lent, all_of_it = borrower(), everything(LENDER)
    lend(lent, LENDER, all_of_it, FROM_B)
    lent.keep_only({BACK: all_of_it})
    lent.recognise(names(all_of_it, BACK), LENDER.names(all_of_it))
    assert lent.missing(BACK, all_of_it) == ()
    lent.drop(B, BACK.life)
    assert lent.missing(BACK, all_of_it) == all_of_it
    assert lent.size_bytes == 0


@given(
    own=st.lists(st.integers(100, 110), max_size=8),
    dropped=st.booleans(),
    spare=st.integers(0, 20),
)
def test_other_samples_of_its_own_leave_a_device_what_it_has_borrowed(
    own: list[int], dropped: bool, spare: int
) -> None:
    lent, ranges = borrower(), (span(0, 2, 5), span(1, 0, 4))
    lent.keep_only({FROM_B: ranges}, spare=spare)
    lend(lent, LENDER, ranges, FROM_B)
    wanted = {} if dropped else {FROM_B: ranges}
    lent.keep_only(wanted, spare=spare)
    if dropped:
        lent.drop(B, FROM_B.life)  # wiped rows move as the others do
    store = store_of(own)
    lent.replace_own(store)
    assert lent.samples.inputs[: len(own)].view(-1).tolist() == own
    assert store.samples.inputs.view(-1).tolist() == own
    assert lent.samples.inputs.data_ptr() == store.samples.inputs.data_ptr() or not own, "nothing is held twice"
    if not dropped:
        assert held(lent, FROM_B, ranges) == LENDER.take(ranges)[0].view(-1).tolist()
        assert lent.size_bytes == SAMPLE_BYTES * 7
    lend(lent, LENDER, everything(LENDER), BACK)
    assert held(lent, BACK, everything(LENDER)) == LENDER.take(everything(LENDER))[0].view(-1).tolist()
    assert lent.samples.inputs[: len(own)].view(-1).tolist() == own
