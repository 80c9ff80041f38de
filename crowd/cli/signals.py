"""SIGINT and SIGTERM as a clean end: the work is cancelled, what it opened is closed, and the exit code says which."""

import signal
from collections.abc import Awaitable, Callable

import anyio

SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def unless_stopped(work: Callable[[], Awaitable[int]]) -> int:
    """Run `work` and return its exit code. When the process is told to stop, `work` is cancelled and this returns 130
    (SIGINT) or 143 (SIGTERM). Call it from the main thread."""
    code = 0

    async def listen() -> None:
        nonlocal code
        with anyio.open_signal_receiver(*SIGNALS) as signals:
            listening.set()
            async for number in signals:
                code = 128 + number
                tasks.cancel_scope.cancel()
                return

    listening = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await listening.wait()
        code = await work()
        tasks.cancel_scope.cancel()
    return code
