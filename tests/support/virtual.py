"""Tests under virtual time: hours pass at once, and a test that waits for nothing fails with `Deadlock`."""

import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from devices.simulation.virtual_time import run_virtually as run_virtually

P = ParamSpec("P")
T = TypeVar("T")


def virtual_time(async_test: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Makes a coroutine function an ordinary test; its parameters stay fixtures."""

    @functools.wraps(async_test)
    def test(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtually(async_test, *args, **kwargs)

    return test
