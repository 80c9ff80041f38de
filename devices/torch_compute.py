"""Compute on this very machine, in threads."""

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from crowd.ports import Compute, Device
from devices.sensors import MachineSensor

T = TypeVar("T")


class TorchCompute(Compute):
    """A compute that runs training (work with `flops`) one piece at a time in a worker thread, first come, first
    served, and all other work likewise in a second one, so that a piece of training holds up no encoding; torch uses
    its own threads within."""

    def __init__(self) -> None:
        self._training = anyio.CapacityLimiter(1)
        self._other = anyio.CapacityLimiter(1)

    async def run(self, work: Callable[[], T], *, flops: int = 0) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._training if flops else self._other)


def local() -> Device:
    """The device that this machine is."""
    return Device(compute=TorchCompute(), sensor=MachineSensor())
