"""The loop that leaps: exact, ordered, and honest when nothing can happen any more."""

import asyncio
import inspect
import re
import threading
from functools import partial

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import devices.simulation.virtual_time as virtual_time_module
from devices.simulation.virtual_time import PROCESS, Deadlock, Livelock, ThreadAwaited, VirtualTimeLoop
from tests.support.virtual import run_virtually, virtual_time


@virtual_time
async def test_the_clock_starts_at_zero_and_shows_exactly_the_time_of_each_timer() -> None:
    seen = [anyio.current_time()]
    for deadline in (0.1, 0.3, 1e6 + 0.7):
        await anyio.sleep_until(deadline)
        seen.append(anyio.current_time())
    assert seen == [0.0, 0.1, 0.3, 1e6 + 0.7]


def test_a_year_passes_at_once() -> None:
    async def sleep_a_year() -> float:
        await anyio.sleep(365 * 86_400)
        return anyio.current_time()

    assert run_virtually(sleep_a_year) == 365 * 86_400


@virtual_time
async def test_time_stands_still_while_a_task_can_run() -> None:
    woken: list[float] = []

    async def wake() -> None:
        await anyio.sleep(1e-10)  # less than the resolution of a real clock
        woken.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wake)
        for _ in range(1000):
            await anyio.lowlevel.checkpoint()
        assert (anyio.current_time(), woken) == (0.0, [])
    assert woken == [1e-10]


@virtual_time
async def test_a_timeout_strikes_at_its_very_time() -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(2.5):
        await anyio.sleep(3)
    assert anyio.current_time() == 2.5


@virtual_time
async def test_a_shielded_task_of_a_cancelled_group_still_sees_time_pass() -> None:
    async def tidy_up() -> None:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tidy_up)
        await anyio.sleep(2)
        tasks.cancel_scope.cancel()
    assert anyio.current_time() == 3.0


def test_when_no_timer_is_left_the_deadlock_names_the_waiting_tasks() -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.Event().wait, name="left fork")
            tasks.start_soon(anyio.Event().wait, name="right fork")
            await anyio.sleep(4)

    with pytest.raises(Deadlock, match=r"(?s)no timer left at 4\.0 s.*\n  left fork.*\n  right fork"):
        run_virtually(main)


async def hold(process: str, *names: str) -> None:
    """Tasks of `process` that wait for ever, each one task further in."""
    PROCESS.set(process)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(nap, name=names[0])
        tasks.start_soon(wait_in_vain, name=names[1])


async def nap() -> None:
    await anyio.sleep_forever()


async def wait_in_vain() -> None:
    with anyio.CancelScope():
        await anyio.Event().wait()


def test_a_deadlock_says_of_each_task_whose_it_is_and_where_it_waits() -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold, "ada", "reader", "writer", name="ada's node")
            tasks.start_soon(hold, "ben", "reader", "writer", name="ben's node")
            await anyio.sleep(1)
            loop().freeze("ben")

    texts = []
    for _ in range(3):
        with pytest.raises(Deadlock) as deadlock:
            run_virtually(main)
        texts.append([re.sub(r":\d+", "", line.strip()) for line in str(deadlock.value).splitlines()])
    file = "(simulation/test_virtual_time.py)"
    assert texts[0][0] == "no timer left at 1.0 s, and these tasks wait:"
    assert texts[0][1].endswith(f".main {file}")
    assert texts[0][2:] == [
        f"ada: ada's node in hold {file}",
        f"ben: ben's node in hold {file} (frozen)",
        f"ada: reader in nap {file}",
        f"ada: writer in wait_in_vain {file}",
        f"ben: reader in nap {file} (frozen)",
        f"ben: writer in wait_in_vain {file} (frozen)",
    ]
    assert texts[1:] == [texts[0]] * 2
    assert str(deadlock.value).count(f":{inspect.getsourcelines(nap)[1] + 1})") == 2


def test_tasks_that_let_no_time_pass_are_told_from_those_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time_module, "TURNS_MAX", 1000)

    async def spin(turns: int) -> None:
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()

    async def work() -> None:
        for _ in range(3):
            await spin(900)
            await anyio.sleep(0.001)

    run_virtually(work)
    with pytest.raises(Livelock, match=r"(?s)still 0\.0 s after 1,000 turns of these tasks:.*in .*spin"):
        run_virtually(spin, 1001)


# --- frozen processes -------------------------------------------------------------------------------------------------


def loop() -> VirtualTimeLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualTimeLoop)
    return running


class Diary:
    """What `ticks` of a process wrote, each with its time."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, str]] = []

    def write(self, text: str) -> None:
        self.entries.append((anyio.current_time(), text))

    async def tick(self, process: str, *, times: int, every_s: float = 1.0) -> None:
        PROCESS.set(process)
        for number in range(1, times + 1):
            await anyio.sleep(every_s)
            self.write(f"{process} {number}")

    async def closed(self, process: str, *, from_s: float, until_s: float) -> None:
        await anyio.sleep_until(from_s)
        loop().freeze(process)
        await anyio.sleep_until(until_s)
        loop().thaw(process)


@virtual_time
async def test_nothing_of_a_frozen_process_runs_while_the_others_and_the_clock_go_on() -> None:
    diary = Diary()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(diary.tick, "ada", times=4))
        tasks.start_soon(partial(diary.tick, "ben", times=4))
        tasks.start_soon(partial(diary.closed, "ada", from_s=1.5, until_s=3.25))
    assert diary.entries == [
        *[(1.0, "ada 1"), (1.0, "ben 1"), (2.0, "ben 2"), (3.0, "ben 3"), (3.25, "ada 2")],
        *[(4.0, "ben 4"), (4.25, "ada 3"), (5.25, "ada 4")],
    ]


@virtual_time
async def test_what_became_due_in_a_frozen_process_runs_in_order_when_it_is_thawed() -> None:
    diary = Diary()
    letters = {name: anyio.Event() for name in ("late", "early")}

    async def read(name: str) -> None:
        await letters[name].wait()
        diary.write(f"{name} letter")

    async def node() -> None:
        PROCESS.set("ada")
        for at_s in (4, 3, 2):
            loop().call_at(at_s, diary.write, f"alarm of {at_s} s")
        async with anyio.create_task_group() as tasks:
            for name in letters:
                tasks.start_soon(read, name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node)
        await anyio.sleep(1)
        loop().freeze("ada")
        letters["early"].set()
        await anyio.sleep(5)
        letters["late"].set()
        await anyio.sleep(3)
        assert diary.entries == []
        loop().thaw("ada")
    events = ["early letter", "alarm of 2 s", "alarm of 3 s", "alarm of 4 s", "late letter"]
    assert diary.entries == [(9.0, event) for event in events]


@virtual_time
async def test_a_timeout_that_struck_in_a_frozen_process_strikes_when_it_is_thawed() -> None:
    outcome: list[tuple[float, bool]] = []

    async def node() -> None:
        PROCESS.set("ada")
        with anyio.move_on_after(2) as limit:
            await anyio.sleep(30)
        outcome.append((anyio.current_time(), limit.cancelled_caught))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node)
        tasks.start_soon(partial(Diary().closed, "ada", from_s=1.0, until_s=10.0))
    assert outcome == [(10.0, True)]


@virtual_time
async def test_a_process_that_freezes_itself_stops_at_its_next_wait() -> None:
    diary = Diary()

    async def node() -> None:
        PROCESS.set("ada")
        loop().freeze("ada")
        diary.write("last words")
        await anyio.lowlevel.checkpoint()
        diary.write("back")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node)
        await anyio.sleep(5)
        loop().thaw("ada")
    assert diary.entries == [(0.0, "last words"), (5.0, "back")]


@virtual_time
async def test_what_would_run_in_the_very_turn_of_the_freeze_does_not() -> None:
    diary = Diary()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(diary.closed, "ada", from_s=1.0, until_s=2.0))
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(partial(diary.tick, "ada", times=1))
    assert diary.entries == [(2.0, "ada 1")]


@virtual_time
async def test_freezing_and_thawing_twice_is_as_once() -> None:
    diary = Diary()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(diary.tick, "ada", times=1))
        await anyio.sleep(0.5)
        loop().freeze("ada")
        await anyio.sleep(1)
        loop().freeze("ada")
        loop().thaw("ada")
        loop().thaw("ada")
    assert diary.entries == [(1.5, "ada 1")]


@virtual_time
async def test_tasks_of_no_process_are_never_frozen() -> None:
    with pytest.raises(ValueError, match="set PROCESS"):
        loop().freeze("")


@virtual_time
async def test_a_frozen_process_that_is_cancelled_ends_when_it_is_thawed_and_holds_up_nobody_before() -> None:
    diary = Diary()
    scope = anyio.CancelScope()

    async def node() -> None:
        PROCESS.set("ada")
        with scope:
            await anyio.sleep(1)
            diary.write("never")
        diary.write("ada ends")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node)
        tasks.start_soon(partial(diary.tick, "ben", times=3))
        await anyio.sleep(0.5)
        loop().freeze("ada")
        scope.cancel()
        await anyio.sleep(2)
        loop().thaw("ada")
    assert diary.entries == [(1.0, "ben 1"), (2.0, "ben 2"), (2.5, "ada ends"), (3.0, "ben 3")]


@virtual_time
async def test_while_one_process_is_frozen_others_are_cancelled_at_once() -> None:
    loop().freeze("ada")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.sleep(5)
    assert anyio.current_time() == 0.0


@virtual_time
async def test_a_group_with_a_frozen_member_can_be_stopped_by_thawing_it_first() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(Diary().tick, "ada", times=10))
        await anyio.sleep(1.5)
        loop().freeze("ada")
        await anyio.sleep(4)
        loop().thaw("ada")
        tasks.cancel_scope.cancel()
    assert anyio.current_time() == 5.5


def test_what_fails_is_not_held_up_by_a_process_left_frozen() -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(Diary().tick, "ada", times=10))
            await anyio.sleep(1.5)
            loop().freeze("ada")
            raise ZeroDivisionError

    with pytest.raises(Deadlock, match=r"ada: .* \(frozen\)"):
        run_virtually(main)


# --- threads ----------------------------------------------------------------------------------------------------------


def test_a_thread_that_is_awaited_is_an_error_that_says_so() -> None:
    with pytest.raises(ThreadAwaited, match="virtual time knows none"):
        run_virtually(asyncio.to_thread, int)


def test_a_thread_of_anyio_is_an_error_whether_it_ends_soon_or_late() -> None:
    may_end = threading.Event()

    async def late() -> None:
        try:
            await anyio.to_thread.run_sync(may_end.wait)
        finally:
            may_end.set()

    with pytest.raises(Deadlock, match=r"in .*late \(simulation/test_virtual_time.py:\d+\), for a thread"):
        run_virtually(late)

    async def in_a_thread() -> None:
        await anyio.to_thread.run_sync(int)

    async def soon() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(in_a_thread)
            await Diary().tick("ada", times=10**9)

    with pytest.raises(ThreadAwaited, match="virtual time knows none"):
        run_virtually(soon)


def test_sleeping_forever_is_a_deadlock_too() -> None:
    with pytest.raises(Deadlock, match="no timer left"):
        run_virtually(anyio.sleep_forever)
