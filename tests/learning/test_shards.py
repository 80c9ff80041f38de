import hashlib
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crowd.errors import MalformedMessage
from crowd.learning.keys import keys_of
from crowd.learning.lent_samples import LentSamples
from crowd.learning.samples import SampleSet, empty
from crowd.learning.shards import Ranges, SampleStore, Source, share_of
from crowd.planning.plan import Assignment, Member, Plan, Range
from crowd.protocol.messages import Samples
from crowd.units import Life
from tests.learning.nets import LIFE, A, B, C

FROM_B = Source(device=B, life=LIFE, data_epoch=0)


def span(label: int, start: int, stop: int) -> Range:
    return Range(label=label, start=start, stop=stop)


def numbered(*labels: int) -> SampleSet:
    """The input of each sample is its number."""
    return SampleSet(torch.arange(len(labels)).float().view(-1, 1), torch.tensor(labels, dtype=torch.int64))


def borrower() -> LentSamples:
    return LentSamples(SampleStore(numbered(0, 1, 1)))


def header(ranges: Ranges, /, **changes: Any) -> Samples:
    form = numbered(0).format
    plain = Samples(
        lender=B,
        life=LIFE,
        data_epoch=0,
        ranges=ranges,
        input_dtype=form.input_dtype,
        input_shape=form.input_shape,
        label_dtype=form.label_dtype,
        label_shape=form.label_shape,
    )
    return attrs.evolve(plain, **changes)


LENDER = SampleStore(numbered(*[0, 1] * 10))


def held(lent: LentSamples, source: Source, ranges: Ranges) -> list[float]:
    return lent.samples.inputs[torch.from_numpy(lent.rows(source, ranges))].view(-1).tolist()


# --- a device's own samples -------------------------------------------------------------------------------------------


def test_samples_are_counted_by_label_up_to_the_largest_held() -> None:
    assert SampleStore(numbered(3, 1, 1)).label_counts == (0, 2, 0, 1)
    assert SampleStore(empty(numbered(0).format)).label_counts == ()


def test_samples_without_class_numbers_count_as_one_label() -> None:
    assert SampleStore(SampleSet(torch.zeros(5, 2), torch.zeros(5))).label_counts == (5,)


@given(labels=st.lists(st.integers(0, 4), max_size=40))
def test_the_positions_of_all_labels_name_every_sample_once(labels: list[int]) -> None:
    store = SampleStore(numbered(*labels))
    ranges = [span(label, 0, count) for label, count in enumerate(store.label_counts) if count]
    inputs, taken = store.take(ranges)
    assert sorted(inputs.view(-1).tolist()) == list(range(len(labels)))
    assert taken.tolist() == sorted(labels)
    assert [labels[int(number)] for number in inputs] == taken.tolist()


def key(samples: SampleSet, index: int) -> int:
    """Worked out anew: BLAKE2b of the bytes of input and label, the first byte the least."""
    content = samples.inputs[index].numpy().tobytes() + samples.labels[index].numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


@given(labels=st.lists(st.integers(0, 2), max_size=40))
def test_samples_of_a_label_are_in_the_order_of_their_keys(labels: list[int]) -> None:
    samples = numbered(*labels)
    keys = [key(samples, index) for index in range(len(labels))]
    assert keys_of(samples).tolist() == keys
    store = SampleStore(samples)
    for label, count in enumerate(store.label_counts):
        expected = sorted((index for index in range(len(labels)) if labels[index] == label), key=lambda at: keys[at])
        assert store.rows([span(label, 0, count)] if count else []).tolist() == expected


@given(order=st.permutations(range(30)), copies=st.lists(st.integers(0, 29), max_size=5))
def test_the_order_of_samples_follows_from_the_samples_alone(order: list[int], copies: list[int]) -> None:
    rows = torch.tensor([*range(30), *copies])
    shuffled = torch.tensor([*copies, *order])
    samples = numbered(*[0, 1, 1] * 10)
    one, other = (SampleStore(SampleSet(samples.inputs[index], samples.labels[index])) for index in (rows, shuffled))
    everything = [span(label, 0, count) for label, count in enumerate(one.label_counts)]
    assert one.label_counts == other.label_counts
    assert all(map(torch.equal, one.take(everything), other.take(everything)))


def test_equal_parts_of_data_that_have_grown_are_nearly_the_same_samples() -> None:
    halves = []
    for count in (1000, 1100):
        samples = numbered(*[0] * count)
        halves.append(set(SampleStore(samples).take([span(0, count // 2, count)])[0].view(-1).tolist()))
    before, after = halves
    assert len(after - before) <= 80, "50 are new, and some come from over the middle"


@pytest.mark.parametrize("ranges", [span(0, 5, 11), span(2, 0, 1), span(-1, 0, 1), span(0, -1, 1), span(0, 3, 3)])
def test_positions_that_do_not_exist_are_refused(ranges: Range) -> None:
    with pytest.raises(MalformedMessage, match="not here"):
        LENDER.take((ranges,))


# --- lending ----------------------------------------------------------------------------------------------------------


def test_lent_samples_arrive_as_they_were_sent() -> None:
    lent, ranges = borrower(), (span(1, 2, 5), span(0, 0, 4))
    lent.add(header(ranges), LENDER.to_bytes(ranges))
    assert held(lent, FROM_B, ranges) == LENDER.take(ranges)[0].view(-1).tolist()
    rows = torch.from_numpy(lent.rows(FROM_B, ranges))
    assert lent.samples.labels[rows].tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert lent.size_bytes == 7 * 12


def test_borrowing_does_not_hold_the_devices_own_samples_twice() -> None:
    store = SampleStore(numbered(0, 1, 1))
    lent = LentSamples(store)
    lent.add(header((span(0, 0, 4),)), LENDER.to_bytes((span(0, 0, 4),)))
    assert store.samples.inputs.view(-1).tolist() == [0, 1, 2]
    assert store.samples.inputs.data_ptr() == lent.samples.inputs.data_ptr()


def test_a_device_without_samples_of_its_own_can_borrow() -> None:
    lent = LentSamples(SampleStore(empty(numbered(0).format)))
    lent.add(header((span(0, 0, 2),)), LENDER.to_bytes((span(0, 0, 2),)))
    assert held(lent, FROM_B, (span(0, 0, 2),)) == LENDER.take((span(0, 0, 2),))[0].view(-1).tolist()


@pytest.mark.parametrize(
    "samples",
    [
        SampleSet(torch.arange(12, dtype=torch.uint8).view(3, 2, 2), torch.zeros(3, dtype=torch.int64)),
        SampleSet(torch.randn(3, 2).bfloat16(), torch.randn(3, 4)),
        SampleSet(torch.arange(6).view(3, 2), torch.arange(3.0).double()),
    ],
)
def test_samples_of_any_dtype_travel_unchanged(samples: SampleSet) -> None:
    lender, lent, ranges = SampleStore(samples), LentSamples(SampleStore(empty(samples.format))), (span(0, 0, 3),)
    form = samples.format
    lent.add(header(ranges, **attrs.asdict(form)), lender.to_bytes(ranges))
    inputs, labels = lender.take(ranges)
    assert torch.equal(lent.samples.inputs[:3], inputs)
    assert torch.equal(lent.samples.labels[:3], labels)


GOOD = (span(0, 0, 2),)


@pytest.mark.parametrize(
    ("changes", "data"),
    [
        ({}, LENDER.to_bytes(GOOD)[:-1]),
        ({}, LENDER.to_bytes(GOOD) + b"\0"),
        ({}, b""),
        ({"ranges": ()}, b""),
        ({"ranges": (span(0, 2**70, 2**70 + 2),)}, LENDER.to_bytes(GOOD)),
        ({"ranges": (span(0, 0, 10**15),)}, LENDER.to_bytes(GOOD)),
        ({"ranges": (span(0, 0, 1), span(0, 0, 1))}, LENDER.to_bytes(GOOD)),
        ({"ranges": (span(0, -1, 1),)}, LENDER.to_bytes(GOOD)),
        ({"ranges": (span(0, 2, 0),)}, LENDER.to_bytes(GOOD)),
        ({"ranges": (span(1, 0, 2),)}, LENDER.to_bytes(GOOD)),
        ({"input_dtype": "float64"}, LENDER.to_bytes(GOOD)),
        ({"input_dtype": "object"}, LENDER.to_bytes(GOOD)),
        ({"input_shape": (2,)}, LENDER.to_bytes(GOOD)),
        ({"label_dtype": "int32"}, LENDER.to_bytes(GOOD)),
        ({"label_shape": (1,)}, LENDER.to_bytes(GOOD)),
        ({}, b"\xff\xff\xff\xff" + LENDER.to_bytes(GOOD)[4:]),
    ],
)
def test_lent_samples_that_do_not_fit_are_refused_and_leave_nothing(changes: dict[str, object], data: bytes) -> None:
    lent = borrower()
    with pytest.raises(MalformedMessage):
        lent.add(header(GOOD, **changes), data)
    assert lent.size_bytes == 0
    assert lent.missing(FROM_B, GOOD) == GOOD


def test_what_is_missing_is_merged_and_sorted() -> None:
    lent, here = borrower(), (span(0, 2, 4), span(0, 6, 7), span(1, 0, 3))
    lent.add(header(here), LENDER.to_bytes(here))
    wanted = (span(1, 0, 3), span(0, 5, 10), span(0, 0, 5), span(2, 0, 1))
    assert lent.missing(FROM_B, wanted) == (span(0, 0, 2), span(0, 4, 6), span(0, 7, 10), span(2, 0, 1))


def test_samples_of_another_life_or_data_epoch_are_other_samples() -> None:
    lent = borrower()
    lent.add(header(GOOD), LENDER.to_bytes(GOOD))
    later_life = attrs.evolve(FROM_B, life=Life(incarnation=2, boot=b"boot"))
    for source in (later_life, attrs.evolve(FROM_B, data_epoch=1)):
        assert lent.missing(source, GOOD) == GOOD


def test_samples_that_come_again_are_not_kept_twice() -> None:
    lent, wider = borrower(), (span(0, 0, 5),)
    lent.add(header(GOOD), LENDER.to_bytes(GOOD))
    lent.add(header(wider), LENDER.to_bytes(wider))
    assert lent.size_bytes == 5 * 12
    assert held(lent, FROM_B, wider) == LENDER.take(wider)[0].view(-1).tolist()


def test_only_what_the_active_plan_names_is_kept() -> None:
    lent, both = borrower(), (span(0, 0, 6), span(1, 0, 6))
    lent.add(header(both), LENDER.to_bytes(both))
    lent.add(header(both, lender=C), LENDER.to_bytes(both))
    kept = (span(0, 4, 6), span(1, 5, 8))
    lent.keep_only({FROM_B: kept})
    assert lent.size_bytes == 3 * 12
    assert lent.missing(FROM_B, both) == (span(0, 0, 4), span(1, 0, 5))
    assert held(lent, FROM_B, (span(0, 4, 6), span(1, 5, 6))) == (
        LENDER.take((span(0, 4, 6), span(1, 5, 6)))[0].view(-1).tolist()
    )
    assert lent.missing(attrs.evolve(FROM_B, device=C), both) == both


def test_a_dropped_lender_leaves_nothing_behind() -> None:
    lent = borrower()
    lent.add(header(GOOD), LENDER.to_bytes(GOOD))
    lent.add(header(GOOD, lender=C), LENDER.to_bytes(GOOD))
    lent.drop(B, FROM_B.life)
    assert lent.missing(FROM_B, GOOD) == GOOD
    assert lent.size_bytes == 2 * 12
    assert held(lent, attrs.evolve(FROM_B, device=C), GOOD) == LENDER.take(GOOD)[0].view(-1).tolist()
    lent.drop(C, FROM_B.life)
    assert lent.size_bytes == 0
    assert len(lent.samples) == 3


def test_what_is_revoked_in_one_life_leaves_what_a_later_one_has_lent() -> None:
    lent, later = borrower(), Life(incarnation=2, boot=b"boot")
    lent.add(header(GOOD), LENDER.to_bytes(GOOD))
    lent.add(attrs.evolve(header(GOOD), life=later), LENDER.to_bytes(GOOD))
    lent.drop(B, FROM_B.life)
    assert lent.missing(FROM_B, GOOD) == GOOD
    assert lent.missing(attrs.evolve(FROM_B, life=later), GOOD) == ()


operations = st.lists(
    st.tuples(st.sampled_from(["add", "keep", "drop"]), st.integers(0, 1), st.integers(0, 9), st.integers(1, 10)),
    max_size=12,
)


@given(operations=operations)
def test_any_history_holds_exactly_what_a_set_of_names_would(operations: list[tuple[str, int, int, int]]) -> None:
    lent, names = borrower(), set()
    for kind, label, start, length in operations:
        ranges = (span(label, start, min(10, start + length)),)
        named = {(label, position) for position in range(ranges[0].start, ranges[0].stop)}
        match kind:
            case "add":
                lent.add(header(ranges), LENDER.to_bytes(ranges))
                names |= named
            case "keep":
                lent.keep_only({FROM_B: ranges})
                names &= named
            case _:
                lent.drop(B, FROM_B.life)
                names = set()
    absent = lent.missing(FROM_B, (span(0, 0, 10), span(1, 0, 10)))
    missing = {(gap.label, position) for gap in absent for position in range(gap.start, gap.stop)}
    assert missing == {(label, position) for label in (0, 1) for position in range(10)} - names
    assert lent.size_bytes == 12 * len(names)
    for label, position in names:
        one = (span(label, position, position + 1),)
        assert held(lent, FROM_B, one) == LENDER.take(one)[0].view(-1).tolist()
    assert lent.samples.inputs[:3].view(-1).tolist() == [0, 1, 2]


def test_a_plan_names_own_and_borrowed_samples_of_a_trainer() -> None:
    plan = Plan(
        members=tuple(Member(device=device, life=LIFE) for device in (A, B)),
        assignments=(
            Assignment(lender=A, trainer=A, counts=(5, 0, 2)),
            Assignment(lender=B, trainer=A, counts=(1, 2)),
            Assignment(lender=B, trainer=B, counts=(4, 0)),
        ),
    )
    own, borrowed = share_of(plan, A, {A: 7, B: 3})
    assert own == (span(0, 0, 5), span(2, 0, 2))
    assert borrowed == {attrs.evolve(FROM_B, data_epoch=3): (span(0, 4, 5), span(1, 0, 2))}
    assert share_of(plan, B, {A: 7, B: 3}) == ((span(0, 0, 4),), {})
