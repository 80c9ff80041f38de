"""SIGINT and SIGTERM as an end: `unless_stopped` is a clean one, for work that opens something, `ended_at_once` one
without delay, for work that does not."""

import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ended_at_once() -> Iterator[None]:
    """Let these signals end the process within the block by themselves (a shell shows that as 130 and 143), whatever it
    is doing: a library that keeps the interpreter to itself would let no handler in. Call it from the main thread."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def unless_stopped(work: Callable[[], Awaitable[int]]) -> int:
    """Run `work` and return its exit code. When the process is told to stop, `work` is cancelled and this returns 130
    (SIGINT) or 143 (SIGTERM); told so again, the process ends at once, by the signal itself. Call it from the main
    thread."""
    code = 0

    async def listen() -> None:
        nonlocal code
        with anyio.open_signal_receiver(*SIGNALS) as signals:
            listening.set()
            async for number in signals:
                code = 128 + number
                tasks.cancel_scope.cancel()
                break
        if code:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)

    listening = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await listening.wait()
        code = await work()
        tasks.cancel_scope.cancel()
    return code
