"""The queue itself: order, bounds, and what becomes of those who wait when it closes."""

import anyio
import pytest

from crowd.errors import ActorDied, MailboxFull
from crowd.runtime import Mailbox
from tests.support.virtual import virtual_time


@virtual_time
async def test_messages_come_out_in_the_order_in_which_they_went_in() -> None:
    mailbox = Mailbox[int]("reader", 8)
    for number in range(8):
        mailbox.put_nowait(number)
    assert [await mailbox.get() for _ in range(8)] == list(range(8))


@virtual_time
async def test_a_full_mailbox_makes_the_sender_wait_until_the_reader_takes_one() -> None:
    mailbox = Mailbox[str]("reader", 1)
    await mailbox.put("first")
    put_at: list[float] = []

    async def put_second() -> None:
        await mailbox.put("second")
        put_at.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put_second)
        await anyio.sleep(3)
        assert await mailbox.get() == "first"
    assert put_at == [3.0]
    assert await mailbox.get() == "second"


@virtual_time
async def test_nobody_overtakes_those_who_wait_for_room() -> None:
    mailbox = Mailbox[int]("reader", 1)
    await mailbox.put(0)
    async with anyio.create_task_group() as tasks:
        for number in (1, 2, 3):
            tasks.start_soon(mailbox.put, number)
        await anyio.wait_all_tasks_blocked()
        assert await mailbox.get() == 0
        with pytest.raises(MailboxFull):
            mailbox.put_nowait(99)
        assert [await mailbox.get() for _ in range(3)] == [1, 2, 3]


@virtual_time
async def test_putting_without_waiting_fails_when_the_mailbox_is_full() -> None:
    mailbox = Mailbox[int]("reader", 2)
    mailbox.put_nowait(1)
    mailbox.put_nowait(2)
    with pytest.raises(MailboxFull, match="reader holds 2 messages"):
        mailbox.put_nowait(3)
    assert [await mailbox.get(), await mailbox.get()] == [1, 2]


@virtual_time
async def test_a_cancelled_put_leaves_nothing_behind() -> None:
    mailbox = Mailbox[str]("reader", 1)
    mailbox.put_nowait("kept")
    with anyio.move_on_after(1):
        await mailbox.put("withdrawn")
    assert await mailbox.get() == "kept"
    with anyio.move_on_after(1) as limit:
        await mailbox.get()
    assert limit.cancelled_caught


@virtual_time
async def test_a_get_that_is_cancelled_as_a_message_comes_loses_nothing() -> None:
    mailbox = Mailbox[str]("reader", 1)
    taken: list[str] = []
    limit = anyio.CancelScope()

    async def take() -> None:
        with limit:
            taken.append(await mailbox.get())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        mailbox.put_nowait("there")
        limit.cancel()
    assert (taken or [await mailbox.get()]) == ["there"]


@virtual_time
async def test_closing_fails_the_puts_that_wait_and_all_that_come() -> None:
    mailbox = Mailbox[int]("reader", 1)
    mailbox.put_nowait(1)
    failures: list[str] = []

    async def put() -> None:
        try:
            await mailbox.put(2)
        except ActorDied as error:
            failures.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put)
        await anyio.wait_all_tasks_blocked()
        mailbox.close()
    assert failures == ["reader has stopped for good: send to it no more"]
    with pytest.raises(ActorDied):
        await mailbox.put(3)
    with pytest.raises(ActorDied):
        mailbox.put_nowait(4)
