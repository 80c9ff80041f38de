"""The process of one device, as its lab has it: `start_worker`, and `expect` for its answers."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

from crowd.experiment.subprocesses import Subprocess, started
from devices.lab.messages import REPORTS

WORKER = "devices.lab.worker"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

T = TypeVar("T")


def worker_command(file: Path, *, memory_bytes: int, slower: float, target: float | None) -> list[str]:
    """The command that starts the device of that `node.toml`, on a clock that goes `slower` times slower."""
    asked = [] if target is None else [str(target)]
    return [sys.executable, "-P", "-m", WORKER, str(file), str(memory_bytes), str(slower), *asked]


def start_worker(command: Sequence[str], *, name: str) -> AbstractAsyncContextManager[Subprocess]:
    """Start a device that takes orders, and has ended at once when the context is left."""
    return started(command, name=name, listens=True, environment=ENVIRONMENT, grace_s=0)


async def expect(kind: type[T], process: Subprocess, news: AsyncIterator[str]) -> T:
    """The next of the `news` of `process`, which is of that kind. Raises what the process failed with."""
    async for line in news:
        said = REPORTS.from_line(line)
        if not isinstance(said, kind):
            raise RuntimeError(f"expected {kind.__name__}, heard {said}")
        return said
    await process.expect_success()
    raise RuntimeError(f"expected {kind.__name__}, but the process has ended")
