"""Tests under virtual time: hours pass at once, and a test that waits for nothing fails with `Deadlock`."""

import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import anyio

from devices.simulation.virtual_time import VirtualTimeLoop

P = ParamSpec("P")
T = TypeVar("T")


def run_virtually(async_fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `async_fn(...)` returns, run to its end on a virtual clock that starts at 0 s."""
    call = functools.partial(async_fn, *args, **kwargs)
    return anyio.run(call, backend="asyncio", backend_options={"loop_factory": VirtualTimeLoop})


def virtual_time(async_test: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Makes a coroutine function an ordinary test; its parameters stay fixtures."""

    @functools.wraps(async_test)
    def test(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtually(async_test, *args, **kwargs)

    return test
