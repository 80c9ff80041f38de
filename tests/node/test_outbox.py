import anyio

from crowd.actors.data_mover.connection import OUTBOX_MAX, URGENT_IN_A_ROW, Outbox, OutboxItem
from crowd.units import Address, Channel
from tests.support.virtual import virtual_time

TO_ALL = Address(channel=Channel.ALL)


def outgoing(payload: bytes, says: object = None) -> OutboxItem:
    return OutboxItem(address=TO_ALL, payload=payload, says=says)


@virtual_time
async def test_what_is_urgent_goes_first_and_each_kind_in_order() -> None:
    outbox = Outbox()
    for payload, bulk in ((b"chunk 1", True), (b"word 1", False), (b"chunk 2", True), (b"word 2", False)):
        outbox.put(outgoing(payload), bulk=bulk)
    assert [(await outbox.get()).payload for _ in range(4)] == [b"word 1", b"word 2", b"chunk 1", b"chunk 2"]


@virtual_time
async def test_what_is_urgent_again_and_again_does_not_hold_up_bulk_for_ever() -> None:
    outbox = Outbox()
    outbox.put(outgoing(b"chunk 1"), bulk=True)
    outbox.put(outgoing(b"chunk 2"), bulk=True)
    left = []
    for _ in range(2 * (URGENT_IN_A_ROW + 1)):
        outbox.put(outgoing(b"word"), bulk=False)
        left.append((await outbox.get()).payload)
    words = [b"word"] * URGENT_IN_A_ROW
    assert left == [*words, b"chunk 1", *words, b"chunk 2"]


@virtual_time
async def test_what_is_said_again_before_it_has_left_is_said_once_in_its_first_place() -> None:
    outbox = Outbox()
    for payload, says in ((b"not yet", "a"), (b"other", "b"), (b"still not yet", "a"), (b"word", None)):
        outbox.put(outgoing(payload, says), bulk=False)
    assert [(await outbox.get()).payload for _ in range(3)] == [b"still not yet", b"other", b"word"]
    assert outbox.next_urgent() is None
    outbox.put(outgoing(b"and again", "a"), bulk=False)
    assert (await outbox.get()).payload == b"and again"
    for payload, says in ((b"offer", "offer"), (b"chunk", "chunk"), (b"the same offer", "offer")):
        outbox.put(outgoing(payload, says), bulk=True)
    assert [(await outbox.get()).payload for _ in range(2)] == [b"the same offer", b"chunk"]


@virtual_time
async def test_of_too_much_bulk_the_oldest_is_dropped() -> None:
    outbox = Outbox()
    for number in range(OUTBOX_MAX + 1):
        outbox.put(outgoing(b"%d" % number), bulk=True)
    assert outbox.dropped == 1
    assert (await outbox.get()).payload == b"1"


@virtual_time
async def test_whoever_waits_gets_what_comes() -> None:
    outbox = Outbox()
    taken: list[OutboxItem] = []

    async def take() -> None:
        taken.append(await outbox.get())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        await anyio.sleep(1)
        assert not taken
        outbox.put(outgoing(b"word"), bulk=False)
    assert [each.payload for each in taken] == [b"word"]
