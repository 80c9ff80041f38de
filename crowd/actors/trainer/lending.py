"""The samples that a lender may send to a borrower, or their names, and the pieces in which it does."""

from collections.abc import Iterator

from crowd.learning.keys import KEY_BYTES
from crowd.learning.samples import SampleFormat
from crowd.learning.shards import Ranges
from crowd.planning.plan import Plan, Range
from crowd.protocol.messages import AskSamples, SampleNames, Samples
from crowd.units import DeviceId

LEND_BYTES = 256 * 1024
"""Bytes of a piece of lent samples or names, so that no message is large and others have their turn."""


def is_named(plan: Plan, lender: DeviceId, borrower: DeviceId, ask: AskSamples) -> bool:
    """Whether the plan lends all that is asked for to this borrower."""
    named = [
        span
        for assignment, ranges in plan.ranges()
        if (assignment.lender, assignment.trainer) == (lender, borrower)
        for span in ranges
    ]
    return all(any(_contains(span, asked) for span in named) for asked in ask.ranges)


def loans(plan: Plan, lender: DeviceId, ask: AskSamples, form: SampleFormat) -> Iterator[Samples | SampleNames]:
    """The headers of the samples, or names, to be sent, piece by piece; none if the lender is no member."""
    life = plan.life_of(lender)
    if life is None:
        return
    if ask.names:
        for piece in pieces(ask.ranges, LEND_BYTES // KEY_BYTES):
            yield SampleNames(lender=lender, life=life, data_epoch=ask.data_epoch, ranges=piece)
        return
    for piece in pieces(ask.ranges, max(1, LEND_BYTES // form.sample_bytes)):
        yield Samples(
            lender=lender,
            life=life,
            data_epoch=ask.data_epoch,
            ranges=piece,
            input_dtype=form.input_dtype,
            input_shape=form.input_shape,
            label_dtype=form.label_dtype,
            label_shape=form.label_shape,
        )


def pieces(ranges: Ranges, samples_max: int) -> list[Ranges]:
    """`ranges` in order, cut into pieces of at most `samples_max` samples."""
    cut: list[Ranges] = []
    piece: Ranges = ()
    room = samples_max
    for span in ranges:
        start = span.start
        while start < span.stop:
            stop = min(span.stop, start + room)
            piece += (Range(label=span.label, start=start, stop=stop),)
            room -= stop - start
            start = stop
            if not room:
                cut.append(piece)
                piece, room = (), samples_max
    return [*cut, piece] if piece else cut


def _contains(span: Range, asked: Range) -> bool:
    return span.label == asked.label and span.start <= asked.start < asked.stop <= span.stop
