"""Compute on this very machine, in threads: on its CPU (`cpu`), or on an accelerator that torch knows (`cuda`, `mps`,
`auto`)."""

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from crowd.errors import BadConfig
from crowd.ports import Compute, Device
from devices.sensors import MachineSensor

T = TypeVar("T")

ACCELERATORS = ("cuda", "mps")
"""Kinds of torch devices beside the CPU, the faster ones first."""


class TorchCompute(Compute):
    """A compute that runs training (work with `flops`) one piece at a time in a worker thread, first come, first
    served, and all other work likewise in a second one, so that a piece of training holds up no encoding, and what
    waits for a disk in further ones; torch uses its own threads within.

    Args:
        kind: The kind of torch device on which networks train: `cpu`, `cuda`, `mps`, or `auto` for the first
            accelerator that there is, else the CPU.
    """

    def __init__(self, kind: str = "cpu") -> None:
        self._kind = kind
        self._training = anyio.CapacityLimiter(1)
        self._other = anyio.CapacityLimiter(1)
        self._aside: dict[str, anyio.CapacityLimiter] = {}

    @property
    def torch_device(self) -> str:
        if self._kind == "cpu":
            return self._kind
        found = _accelerator()
        if self._kind == "auto":
            return found or "cpu"
        if found != self._kind:
            raise BadConfig(
                f"device = {self._kind!r}: this PyTorch has {found or 'no accelerator'} here; install the build for "
                "your processor (https://pytorch.org), or set device = 'cpu' in [train]"
            )
        return self._kind

    async def run(self, work: Callable[[], T], *, flops: int = 0) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._training if flops else self._other)

    async def run_aside(self, work: Callable[[], T], *, queue: str = "disk") -> T:
        limiter = self._aside.setdefault(queue, anyio.CapacityLimiter(1))
        return await anyio.to_thread.run_sync(work, limiter=limiter)


def _accelerator() -> str | None:
    """The accelerator that torch finds, of those that are known to work."""
    import torch  # takes long: only where it is needed

    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found is not None and found.type in ACCELERATORS else None


def cpu() -> Device:
    """This machine, with its CPU."""
    return Device(compute=TorchCompute(), sensor=MachineSensor())


def cuda() -> Device:
    """This machine, with an accelerator of Nvidia's, or of AMD's where torch is built for it."""
    return Device(compute=TorchCompute("cuda"), sensor=MachineSensor())


def mps() -> Device:
    """This machine, with the accelerator of Apple's processors."""
    return Device(compute=TorchCompute("mps"), sensor=MachineSensor())


def auto() -> Device:
    """This machine, with the accelerator that it has, or else with its CPU."""
    return Device(compute=TorchCompute("auto"), sensor=MachineSensor())
