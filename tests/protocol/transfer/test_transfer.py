"""The rules of a transfer, one by one, at their real sizes."""

import tracemalloc
from typing import Any

import attrs
import pytest

from crowd.agreement.ack import StateProgress
from crowd.protocol.codec import Sealer
from crowd.protocol.identity import ephemeral_signers
from crowd.protocol.messages import Done, Offer, Want, WholeState
from crowd.protocol.transfer.manifest import message_bytes_needed
from crowd.protocol.transfer.transfers import (
    CHUNK_BYTES,
    INLINE_BYTES_MAX,
    Effect,
    Failed,
    Received,
    SendChunk,
    SendDone,
    SendOffer,
    SendWant,
    Sent,
    Transfers,
)
from crowd.units import SECOND_US, Address, Channel, DeviceId, Life, device_id, is_identifier

OWNER, CAMERA, SHELF = device_id("owner"), device_id("camera"), device_id("shelf")
CARGO = WholeState(progress=StateProgress(run=1))
MIB = 1 << 20


def make_transfers(prefix: str = "b00", **limits: int) -> Transfers:
    bounds = {"give_up_us": 100 * SECOND_US, "size_bytes_max": 64 * MIB, "receive_bytes_max": 64 * MIB}
    return Transfers(prefix=prefix, **(bounds | limits))


def pattern(chunks: int) -> bytes:
    return b"".join(bytes([n]) * CHUNK_BYTES for n in range(chunks))


def send(data: bytes, destination: DeviceId | None = CAMERA) -> tuple[Transfers, str, Offer, list[SendChunk]]:
    """A sender that began at time 0, and what it said."""
    sender = make_transfers()
    name, (first, *rest) = sender.send(0, destination, CARGO, data, rate_bytes_s=CHUNK_BYTES)
    assert isinstance(first, SendOffer)
    return sender, name, first.offer, [effect for effect in rest if isinstance(effect, SendChunk)]


def feed(receiver: Transfers, now_us: int, chunks: list[SendChunk]) -> list[Effect]:
    effects: list[Effect] = []
    for chunk in chunks:
        effects += receiver.on_chunk(now_us, OWNER, chunk.transfer, chunk.index, bytes(chunk.data))
    return effects


def indices(effects: tuple[Effect, ...] | list[SendChunk]) -> list[int]:
    return [effect.index for effect in effects if isinstance(effect, SendChunk)]


def wants(effects: tuple[Effect, ...] | list[Effect]) -> list[tuple[tuple[int, int], ...]]:
    return [effect.want.chunks for effect in effects if isinstance(effect, SendWant)]


# --- sending ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "inline"), [(0, True), (INLINE_BYTES_MAX, True), (INLINE_BYTES_MAX + 1, False)])
def test_what_fits_travels_inside_the_offer(size: int, inline: bool) -> None:
    _, _, offer, chunks = send(bytes(size))
    assert (offer.inline == bytes(size)) is inline
    assert len(offer.digests) == 1
    assert len(chunks) == (0 if inline else 1)


@pytest.mark.parametrize(
    ("rate_kib_s", "chunk_kib"), [(0, 32), (1, 32), (32, 32), (63, 32), (64, 64), (200, 128), (256, 256), (9999, 256)]
)
def test_the_slower_a_link_the_smaller_the_chunks(rate_kib_s: int, chunk_kib: int) -> None:
    data = pattern(3)[:-1]
    name, (first, *rest) = make_transfers().send(0, CAMERA, CARGO, data, rate_bytes_s=rate_kib_s << 10)
    assert isinstance(first, SendOffer)
    assert first.offer.chunk_bytes == chunk_kib << 10
    assert len(first.offer.digests) == 768 // chunk_kib
    receiver = make_transfers()
    receiver.on_offer(0, OWNER, first.offer, to_all=False)
    feed(receiver, 0, [chunk for chunk in rest if isinstance(chunk, SendChunk)])
    assert receiver.receives(OWNER, name) == (chunk_kib < 96)


def test_what_travels_inside_the_offer_is_one_chunk_on_the_slowest_link_too() -> None:
    data = bytes(INLINE_BYTES_MAX)
    _, (offer,) = make_transfers().send(0, CAMERA, CARGO, data, rate_bytes_s=0)
    assert isinstance(offer, SendOffer)
    received, _ = make_transfers().on_offer(0, OWNER, offer.offer, to_all=False)
    assert isinstance(received, Received)
    assert received.data == data


@pytest.mark.parametrize("size_bytes", [0, 1, 10_000, 1 << 20, 50 << 20])
@pytest.mark.parametrize("more_bytes", [0, 1, 3000])
def test_offer_and_chunks_fit_what_the_broker_takes(size_bytes: int, more_bytes: int) -> None:
    sender = make_transfers()
    sender.message_bytes_max = limit = message_bytes_needed(size_bytes) + more_bytes
    _, (offer, *chunks) = sender.send(0, None, CARGO, bytes(size_bytes), rate_bytes_s=CHUNK_BYTES)
    assert isinstance(offer, SendOffer)
    sealer = Sealer("home", OWNER, Life(incarnation=1, boot=bytes(16)), ephemeral_signers([OWNER])[OWNER])
    assert len(sealer.seal(Address(channel=Channel.ALL, source=OWNER), offer.offer)) <= limit
    assert all(len(chunk.data) <= limit for chunk in chunks if isinstance(chunk, SendChunk))
    receiver = make_transfers()
    effects = list(receiver.on_offer(0, OWNER, offer.offer, to_all=True))
    effects += feed(receiver, 0, [chunk for chunk in chunks if isinstance(chunk, SendChunk)])
    (received,) = [effect for effect in effects if isinstance(effect, Received)]
    assert received.data == bytes(size_bytes)


def test_eight_chunks_are_sent_unasked_and_then_exactly_the_wanted_ones() -> None:
    sender, name, _, chunks = send(pattern(30))
    assert indices(chunks) == list(range(8))
    assert all(chunk.destination == CAMERA for chunk in chunks)
    effects = sender.on_want(0, CAMERA, Want(transfer=name, chunks=((11, 13), (29, 30))))
    assert indices(effects) == [11, 12, 29]


def test_chunks_are_views_of_the_senders_bytes_and_not_copies() -> None:
    data = pattern(8)
    _, _, _, chunks = send(data)
    assert all(chunk.data.obj is data for chunk in chunks)
    assert b"".join(chunk.data for chunk in chunks) == data


def test_names_of_transfers_are_identifiers_and_differ() -> None:
    sender = make_transfers("a" * 36)
    names = [sender.send(0, CAMERA, CARGO, b"", rate_bytes_s=CHUNK_BYTES)[0] for _ in range(100)]
    assert len(set(names)) == 100
    assert all(is_identifier(name) for name in names)


@pytest.mark.parametrize("prefix", ["", "A", "a/b", "a-", "a" * 37])
def test_a_prefix_that_cannot_begin_a_name_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="cannot begin the name of a transfer"):
        make_transfers(prefix)


def test_the_offer_is_repeated_ever_more_rarely_until_the_sender_gives_up() -> None:
    sender, name, offer, _ = send(pattern(9))
    repeats: list[int] = []
    effects: tuple[Effect, ...] = ()
    for _ in range(7):
        deadline_us = sender.next_deadline()
        assert deadline_us is not None
        assert sender.on_tick(deadline_us - 1) == ()
        effects = sender.on_tick(deadline_us)
        if effects == (SendOffer(destination=CAMERA, offer=offer),):
            repeats.append(deadline_us // SECOND_US)
    assert repeats == [2, 6, 14, 30, 60, 90]
    assert effects == (Failed(transfer=name, destination=CAMERA),)
    assert sender.next_deadline() is None


def test_a_receiver_that_asks_keeps_the_sender_from_repeating_and_giving_up() -> None:
    sender, name, _, _ = send(pattern(30))
    for second in range(5, 200, 5):
        sender.on_want(second * SECOND_US, CAMERA, Want(transfer=name, chunks=()))
        assert sender.on_tick((second + 5) * SECOND_US - 1) == ()
    assert sender.next_deadline() == 203 * SECOND_US


def test_done_ends_a_transfer_and_a_refusal_fails_it() -> None:
    for refused, end in ((False, Sent(transfer="b00-0")), (True, Failed(transfer="b00-0", destination=CAMERA))):
        sender, name, _, _ = send(pattern(9))
        done = Done(transfer=name, refused=refused)
        assert sender.on_done(0, CAMERA, done) == (end,)
        assert sender.on_done(0, CAMERA, done) == ()
        assert sender.next_deadline() is None
        assert sender.on_want(0, CAMERA, Want(transfer=name, chunks=((0, 1),))) == ()


def test_only_the_receiver_may_ask_and_answer() -> None:
    sender, name, _, _ = send(pattern(9))
    assert sender.on_want(0, SHELF, Want(transfer=name, chunks=((0, 1),))) == ()
    assert sender.on_done(0, SHELF, Done(transfer=name)) == ()


def test_an_absurd_want_is_served_within_bounds() -> None:
    sender, name, _, _ = send(pattern(30))
    excessive: list[tuple[tuple[int, int], ...]] = [((0, 1 << 60),), ((0, 30),) * 1000]
    for chunks in excessive:
        assert len(indices(sender.on_want(0, CAMERA, Want(transfer=name, chunks=chunks)))) == 16
    empty: list[tuple[tuple[int, int], ...]] = [((30, 40),), ((5, 5),), ((9, 3),), ()]
    for chunks in empty:
        assert sender.on_want(0, CAMERA, Want(transfer=name, chunks=chunks)) == ()
    assert indices(sender.on_want(0, CAMERA, Want(transfer=name, chunks=((-4, 2),)))) == [0, 1]


# --- to all -----------------------------------------------------------------------------------------------------------


def test_a_transfer_to_all_is_published_whole_and_then_serves_each_that_asks() -> None:
    sender, name, _, chunks = send(pattern(20), None)
    assert indices(chunks) == list(range(20))
    assert all(chunk.destination is None for chunk in chunks)
    assert sender.next_deadline() is None
    (again,) = sender.on_want(0, SHELF, Want(transfer=name, chunks=((17, 18),)))
    assert isinstance(again, SendChunk)
    assert (again.destination, again.index) == (SHELF, 17)
    assert sender.on_done(0, SHELF, Done(transfer=name)) == ()
    sender.drop(name)
    assert sender.on_want(0, SHELF, Want(transfer=name, chunks=((17, 18),))) == ()
    assert sender.offer_to(name, SHELF) == ()


def test_one_device_can_be_offered_what_went_to_all() -> None:
    sender, name, offer, _ = send(pattern(20), None)
    first, *rest = sender.offer_to(name, SHELF)
    assert first == SendOffer(destination=SHELF, offer=offer)
    assert [(chunk.destination, chunk.index) for chunk in rest if isinstance(chunk, SendChunk)] == [
        (SHELF, index) for index in range(8)
    ]


def test_who_lacks_much_of_what_went_to_all_pulls_it_window_by_window() -> None:
    _, _, offer, chunks = send(pattern(40), None)
    receiver = make_transfers()
    receiver.on_offer(0, OWNER, offer, to_all=True)
    assert feed(receiver, 0, chunks[:10]) == []
    assert wants(receiver.reconnected(0)) == [((10, 18),)]
    assert wants(feed(receiver, 0, chunks[10:18])) == [((18, 22),), ((22, 26),)]


# --- receiving --------------------------------------------------------------------------------------------------------


def test_bytes_are_received_once_and_a_late_offer_is_answered_again() -> None:
    _, name, offer, chunks = send(pattern(3))
    receiver = make_transfers()
    assert receiver.on_offer(0, OWNER, offer, to_all=False) == ()
    assert feed(receiver, 0, chunks) == [
        Received(sender=OWNER, offer=offer, data=pattern(3)),
        SendDone(destination=OWNER, done=Done(transfer=name)),
    ]
    assert feed(receiver, 0, chunks) == []
    assert receiver.on_offer(0, OWNER, offer, to_all=False) == (SendDone(destination=OWNER, done=Done(transfer=name)),)
    assert receiver.next_deadline() is None


def test_inline_bytes_are_received_with_the_offer() -> None:
    _, name, offer, _ = send(b"few")
    done = SendDone(destination=OWNER, done=Done(transfer=name))
    receiver = make_transfers()
    received = Received(sender=OWNER, offer=offer, data=b"few")
    assert receiver.on_offer(0, OWNER, offer, to_all=False) == (received, done)
    assert receiver.on_offer(0, OWNER, offer, to_all=False) == (done,)
    assert make_transfers().on_offer(0, OWNER, offer, to_all=True) == (received,)


def test_chunks_that_overtook_their_offer_are_kept() -> None:
    _, _, offer, chunks = send(pattern(3))
    receiver = make_transfers()
    assert feed(receiver, 0, chunks[::-1]) == []
    assert isinstance(receiver.on_offer(0, OWNER, offer, to_all=True)[0], Received)


def test_no_more_than_sixteen_chunks_wait_for_an_offer() -> None:
    _, _, offer, chunks = send(pattern(17), None)
    receiver = make_transfers()
    feed(receiver, 0, chunks)
    receiver.on_offer(0, OWNER, offer, to_all=True)
    assert wants(receiver.reconnected(0)) == [((0, 1),)]


def test_more_is_wanted_when_half_of_the_window_has_come() -> None:
    _, _, offer, chunks = send(pattern(30))
    receiver = make_transfers()
    receiver.on_offer(0, OWNER, offer, to_all=False)
    assert [wants(feed(receiver, 0, [chunk])) for chunk in chunks] == [
        [],
        [],
        [],
        [((8, 12),)],
        [],
        [],
        [],
        [((12, 16),)],
    ]


def test_a_corrupted_chunk_is_dropped_and_wanted_again() -> None:
    _, name, offer, chunks = send(pattern(3))
    receiver = make_transfers()
    receiver.on_offer(0, OWNER, offer, to_all=False)
    for bad in (b"\xff" * CHUNK_BYTES, b"", bytes(CHUNK_BYTES + 1)):
        assert receiver.on_chunk(0, OWNER, name, 1, bad) == ()
    assert feed(receiver, 0, [chunks[0], chunks[2]]) == []
    assert wants(receiver.on_tick(SECOND_US)) == [((1, 2),)]
    assert isinstance(feed(receiver, SECOND_US, [chunks[1]])[0], Received)


@pytest.mark.parametrize("index", [-1, 3, 1 << 60])
def test_a_chunk_that_was_not_offered_is_ignored(index: int) -> None:
    _, name, offer, _ = send(pattern(3))
    receiver = make_transfers()
    assert receiver.on_chunk(0, OWNER, name, index, bytes(CHUNK_BYTES)) == ()
    receiver.on_offer(0, OWNER, offer, to_all=False)
    assert receiver.on_chunk(0, OWNER, name, index, bytes(CHUNK_BYTES)) == ()


def test_another_devices_chunk_is_not_taken_for_the_senders() -> None:
    _, name, offer, chunks = send(pattern(1))
    receiver = make_transfers()
    receiver.on_offer(0, OWNER, offer, to_all=False)
    assert receiver.on_chunk(0, SHELF, name, 0, bytes(chunks[0].data)) == ()


def test_silence_costs_one_chunk_at_first_and_waits_ever_longer() -> None:
    _, _, offer, _ = send(pattern(30))
    receiver = make_transfers()
    receiver.on_offer(0, OWNER, offer, to_all=False)
    asked = []
    for second in range(1, 32):
        asked += [(second, chunks) for chunks in wants(receiver.on_tick(second * SECOND_US))]
    assert asked == [(second, ((0, 1),)) for second in (1, 3, 7, 15, 31)]


@pytest.mark.parametrize(("coming", "waits_s"), [(0, 4), (1, 8), (9, 16)])
def test_the_first_chunk_of_what_goes_to_all_is_awaited_longer_where_more_is_coming(coming: int, waits_s: int) -> None:
    _, _, offer, _ = send(pattern(2), None)
    receiver = make_transfers()
    for number in range(coming):
        receiver.on_offer(0, SHELF, attrs.evolve(offer, transfer=f"s-{number}"), to_all=True)
    receiver.on_offer(0, OWNER, offer, to_all=True)
    asked = [effect.destination for effect in receiver.on_tick(waits_s * SECOND_US) if isinstance(effect, SendWant)]
    assert OWNER in asked
    earlier = make_transfers()
    for number in range(coming):
        earlier.on_offer(0, SHELF, attrs.evolve(offer, transfer=f"s-{number}"), to_all=True)
    earlier.on_offer(0, OWNER, offer, to_all=True)
    asked = [effect.destination for effect in earlier.on_tick(waits_s * SECOND_US - 1) if isinstance(effect, SendWant)]
    assert OWNER not in asked


def test_once_the_sender_answers_the_rest_of_the_window_is_wanted() -> None:
    _, _, offer, chunks = send(pattern(30))
    receiver = make_transfers()
    receiver.on_offer(0, OWNER, offer, to_all=False)
    assert wants(receiver.on_tick(SECOND_US)) == [((0, 1),)]
    feed(receiver, SECOND_US, chunks[:1])
    assert wants(receiver.on_tick(receiver.next_deadline() or 0)) == [((1, 8),)]


def test_chunks_that_were_overtaken_are_wanted_at_once() -> None:
    _, _, offer, chunks = send(pattern(8))
    receiver = make_transfers()
    receiver.on_offer(0, OWNER, offer, to_all=False)
    feed(receiver, 0, [chunks[n] for n in (0, 2, 5)])
    assert wants(receiver.on_tick(SECOND_US)) == [((1, 2), (3, 5), (6, 7))]


def test_a_slow_link_is_waited_for_and_its_chunks_are_not_asked_for_twice() -> None:
    """One chunk every 3 s: the first is missed before the pace is known, no other."""
    _, _, offer, chunks = send(pattern(8))
    receiver = make_transfers()
    receiver.on_offer(0, OWNER, offer, to_all=False)
    asked = 0
    for second in range(1, 25):
        if second % 3 == 0:
            feed(receiver, second * SECOND_US, [chunks[second // 3 - 1]])
        asked += len(wants(receiver.on_tick(second * SECOND_US)))
    assert asked == 1
    assert receiver.next_deadline() is None


def test_what_comes_flows_until_a_chunk_is_missed() -> None:
    _, name, offer, chunks = send(pattern(3), None)
    receiver = make_transfers()
    assert receiver.flowing(OWNER) == ()
    receiver.on_offer(0, OWNER, offer, to_all=True)
    feed(receiver, 0, chunks[:1])
    assert receiver.flowing(OWNER) == (CARGO,)
    assert receiver.flowing(CAMERA) == ()
    assert wants(receiver.on_tick(9 * SECOND_US))
    assert receiver.flowing(OWNER) == ()
    feed(receiver, 10 * SECOND_US, chunks[1:])
    assert not receiver.receives(OWNER, name)
    assert receiver.flowing(OWNER) == ()


def test_nothing_received_is_lost_with_the_connection() -> None:
    sender, name, offer, chunks = send(pattern(12))
    receiver = make_transfers()
    receiver.on_offer(0, OWNER, offer, to_all=False)
    feed(receiver, 0, [chunks[n] for n in (0, 1, 4)])
    (want,) = wants(receiver.reconnected(50 * SECOND_US))
    assert want == ((2, 4), (5, 8))
    rest = sender.on_want(50 * SECOND_US, CAMERA, Want(transfer=name, chunks=want))
    (next_want,) = wants(feed(receiver, 50 * SECOND_US, [chunk for chunk in rest if isinstance(chunk, SendChunk)]))
    assert next_want == ((8, 12),)
    last = sender.on_want(50 * SECOND_US, CAMERA, Want(transfer=name, chunks=next_want))
    received = feed(receiver, 50 * SECOND_US, [chunk for chunk in last if isinstance(chunk, SendChunk)])[0]
    assert isinstance(received, Received)
    assert received.data == pattern(12)


def test_a_sender_that_reconnects_offers_again_at_once() -> None:
    sender, _, offer, _ = send(pattern(12))
    assert sender.reconnected(99 * SECOND_US) == (SendOffer(destination=CAMERA, offer=offer),)
    assert sender.next_deadline() == 101 * SECOND_US


def test_an_offer_of_what_is_coming_in_is_answered_by_wanting_nothing() -> None:
    _, name, offer, _ = send(pattern(12))
    receiver = make_transfers()
    receiver.on_offer(0, OWNER, offer, to_all=False)
    assert receiver.on_offer(0, OWNER, offer, to_all=False) == (
        SendWant(destination=OWNER, want=Want(transfer=name, chunks=())),
    )


def test_a_sender_that_falls_silent_is_given_up_and_its_memory_freed() -> None:
    _, _, offer, _ = send(pattern(12))
    receiver = make_transfers(receive_bytes_max=4 * MIB)
    receiver.on_offer(0, OWNER, offer, to_all=False)
    receiver.on_tick(100 * SECOND_US)
    assert receiver.next_deadline() is None
    other = attrs.evolve(offer, transfer="b01-0")
    receiver.on_offer(100 * SECOND_US, SHELF, other, to_all=False)
    assert receiver.next_deadline() == 101 * SECOND_US


_DIGEST = b"d" * 16


@pytest.mark.parametrize(
    "change",
    [
        {"size_bytes": 64 * MIB + 1},
        {"size_bytes": -1},
        {"chunk_bytes": CHUNK_BYTES + 1},
        {"chunk_bytes": 0},
        {"chunk_bytes": CHUNK_BYTES // 2},
        {"digests": (_DIGEST,) * 8},
        {"digests": (_DIGEST,) * 10},
        {"digests": (b"short",) * 9},
        {"inline": b"surprise"},
        {"size_bytes": 3, "digests": (_DIGEST,), "inline": b"abc"},
    ],
    ids=str,
)
def test_an_offer_that_is_too_large_or_not_at_one_with_itself_is_refused(change: dict[str, Any]) -> None:
    _, name, offer, _ = send(pattern(9))
    refusal = (SendDone(destination=OWNER, done=Done(transfer=name, refused=True)),)
    receiver = make_transfers()
    assert receiver.on_offer(0, OWNER, attrs.evolve(offer, **change), to_all=False) == refusal
    assert receiver.on_offer(0, OWNER, offer, to_all=False) == refusal
    assert make_transfers().on_offer(0, OWNER, attrs.evolve(offer, **change), to_all=True) == ()


def test_what_can_never_fit_into_memory_is_refused() -> None:
    _, name, offer, _ = send(pattern(9))
    receiver = make_transfers(receive_bytes_max=8 * CHUNK_BYTES)
    assert receiver.on_offer(0, OWNER, offer, to_all=False) == (
        SendDone(destination=OWNER, done=Done(transfer=name, refused=True)),
    )


def test_an_offer_without_room_is_taken_when_it_is_repeated_and_there_is_room() -> None:
    _, _, first, chunks = send(pattern(5))
    second = attrs.evolve(first, transfer="b00-1")
    receiver = make_transfers(receive_bytes_max=9 * CHUNK_BYTES)
    receiver.on_offer(0, OWNER, first, to_all=False)
    assert wants(receiver.on_offer(0, OWNER, second, to_all=False)) == [()]
    feed(receiver, 0, chunks)
    assert receiver.next_deadline() is None
    receiver.on_offer(0, OWNER, second, to_all=False)
    assert receiver.next_deadline() is not None


def test_early_chunks_give_way_to_what_was_offered() -> None:
    _, _, offer, chunks = send(pattern(8))
    receiver = make_transfers(receive_bytes_max=9 * CHUNK_BYTES)
    tracemalloc.start()
    for number in range(4):
        receiver.on_chunk(0, SHELF, "x-1", number, bytes(CHUNK_BYTES))
    receiver.on_offer(0, OWNER, offer, to_all=False)
    feed(receiver, 0, chunks[:7])
    current, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert current < 9.5 * CHUNK_BYTES


def test_receiving_never_holds_the_bytes_twice() -> None:
    _, _, offer, chunks = send(pattern(32), None)
    blocks = [bytes(chunk.data) for chunk in chunks]
    receiver = make_transfers()
    tracemalloc.start()
    receiver.on_offer(0, OWNER, offer, to_all=True)
    for index, block in enumerate(blocks):
        effects = receiver.on_chunk(0, OWNER, offer.transfer, index, block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(effects[0], Received)
    assert effects[0].data == pattern(32)
    assert peak < 1.1 * 32 * CHUNK_BYTES


def test_a_transfer_that_is_no_longer_wanted_is_refused_and_stays_refused() -> None:
    _, name, offer, chunks = send(pattern(9))
    receiver = make_transfers()
    receiver.on_offer(0, OWNER, offer, to_all=False)
    refusal = (SendDone(destination=OWNER, done=Done(transfer=name, refused=True)),)
    assert receiver.drop(name) == refusal
    assert feed(receiver, 0, chunks) == []
    assert receiver.on_offer(0, OWNER, offer, to_all=False) == refusal
