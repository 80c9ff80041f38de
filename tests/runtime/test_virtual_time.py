"""The loop that leaps: exact, ordered, and honest when nothing can happen any more."""

import anyio
import pytest

from devices.virtual_time import Deadlock
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

    with pytest.raises(Deadlock, match=r"no timer left at 4\.0 s.*left fork, .*right fork"):
        run_virtually(main)


def test_sleeping_forever_is_a_deadlock_too() -> None:
    with pytest.raises(Deadlock, match="no timer left"):
        run_virtually(anyio.sleep_forever)
