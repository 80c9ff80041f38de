"""What a lender may send, and in which pieces."""

import pytest

from crowd.actors import inbox
from crowd.actors.data_mover.shipments import Shipments
from crowd.actors.probe import Probe
from crowd.actors.trainer.lending import LEND_BYTES, loans
from crowd.learning.samples import SampleFormat
from crowd.learning.shards import Ranges, without
from crowd.planning.plan import Member, Plan
from crowd.planning.profile import Share
from crowd.protocol.messages import AskSamples, SampleNames, Samples
from crowd.protocol.transfer.transfers import Transfers
from crowd.units import DeviceId
from tests.learning.nets import LIFE, A, B, C
from tests.learning.test_shards import header, span
from tests.support.virtual import virtual_time

FORM = SampleFormat(input_dtype="uint8", input_shape=(784,), label_dtype="int64", label_shape=())
PLAN = Plan(members=(Member(device=B, life=LIFE, data_epoch=2),))


def ask(ranges: Ranges, *, names: bool) -> AskSamples:
    return AskSamples(generation=1, plan_digest=b"plan", data_epoch=2, ranges=ranges, names=names)


def samples_in(ranges: Ranges) -> int:
    return sum(part.stop - part.start for part in ranges)


@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize("counts", [[(0, 1)], [(7, 1000), (0, 331), (5, 3)], [(3, 40_000)]])
def test_all_that_is_asked_for_goes_once_in_pieces_that_are_not_large(
    counts: list[tuple[int, int]], names: bool
) -> None:
    ranges = tuple(span(label, start, start + count) for label, (start, count) in enumerate(counts))
    told = list(loans(PLAN, B, ask(ranges, names=names), FORM))
    assert all(isinstance(piece, SampleNames if names else Samples) for piece in told)
    assert {(piece.lender, piece.life, piece.data_epoch) for piece in told} == {(B, LIFE, 2)}
    each_bytes = 8 if names else FORM.sample_bytes
    assert all(samples_in(piece.ranges) * each_bytes <= LEND_BYTES for piece in told)
    together = tuple(part for piece in told for part in piece.ranges)
    assert without(ranges, together) == ()
    assert samples_in(together) == samples_in(ranges)


@pytest.mark.parametrize("names", [False, True])
def test_who_is_no_member_lends_nothing(names: bool) -> None:
    assert list(loans(PLAN, DeviceId("c"), ask((span(0, 0, 1),), names=names), FORM)) == []


NAMES = SampleNames(lender=B, life=LIFE, data_epoch=0, ranges=(span(0, 0, 1),))


@pytest.mark.parametrize("cargo", [NAMES, header((span(0, 0, 1),))], ids=["names", "samples"])
@pytest.mark.parametrize("share", Share)
@virtual_time
async def test_neither_samples_nor_their_names_leave_a_device_that_does_not_share_them(
    share: Share, cargo: SampleNames | Samples
) -> None:
    transfers = Transfers(prefix="b", give_up_us=1, size_bytes_max=1 << 20, receive_bytes_max=1 << 20)
    shipments = Shipments(B, share, transfers, Probe())
    effects = shipments.send(inbox.SendCargo(destination=C, cargo=cargo, data=bytes(8)))
    assert bool(effects) is (share is Share.RAW)


@virtual_time
async def test_what_is_asked_for_again_while_it_waits_goes_once() -> None:
    transfers = Transfers(prefix="b", give_up_us=1, size_bytes_max=1 << 20, receive_bytes_max=1 << 20)
    shipments = Shipments(B, Share.RAW, transfers, Probe())
    for device in (A, C):
        assert shipments.send(inbox.SendCargo(destination=device, cargo=NAMES, data=bytes(8)))
        assert not shipments.send(inbox.SendCargo(destination=device, cargo=NAMES, data=bytes(8)))
