"""A device whose training stands still for a while, though it lives: `HangingCompute`."""

from collections.abc import Callable
from typing import Any, TypeVar

import anyio

from devices.emulated import VirtualCompute

T = TypeVar("T")


class HangingCompute(VirtualCompute):
    """While it hangs, no training that has begun ends, as in a thread that is stuck; all other work is done."""

    def __init__(self, speed_kflops: int, **settings: Any) -> None:
        super().__init__(speed_kflops, **settings)
        self._moves = anyio.Event()
        self._moves.set()

    def hang(self) -> None:
        if self._moves.is_set():
            self._moves = anyio.Event()

    def go_on(self) -> None:
        self._moves.set()

    async def run(self, work: Callable[[], T], *, flops: int = 0) -> T:
        result = await super().run(work, flops=flops)
        if flops and not self._moves.is_set():
            await self._moves.wait()
        return result
