"""Processes of this project that another one starts, listens to and ends: `Subprocess`, `started`, `ProcessFailed`."""

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from subprocess import DEVNULL, PIPE
from typing import IO

import anyio
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream

from crowd.errors import BAD_INPUT, BadConfig

LAST_WORDS = 20
LINE_BYTES_MAX = 1 << 16
GRACE_S = 5.0
"""Seconds that a process that is told to end has to do so by itself."""


class ProcessFailed(RuntimeError):
    """The failure of a process that ended before its work was done."""

    def __init__(self, name: str, code: int, words: Sequence[str]) -> None:
        """Make the error of a process. `words` are the last lines that it wrote to standard error."""
        how = f"ended with exit code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"
        super().__init__("\n".join([f"the process of {name} {how}{':' if words else ''}", *words]))
        self.cause = words[-1] if code > 0 and words else f"its process {how}"
        """The cause in one line: the last line of a process that failed by itself."""


class Subprocess:
    """A process that is running or has ended."""

    def __init__(self, name: str, process: Process, complaints: IO[bytes]) -> None:
        """Watch `process`. `name` is what errors call it; `complaints` holds its standard error."""
        self._name = name
        self._process = process
        self._complaints = complaints

    @property
    def pid(self) -> int:
        return self._process.pid

    async def lines(self) -> AsyncIterator[str]:
        """The lines that the process writes to standard output, until it closes it. Call it once."""
        assert self._process.stdout is not None
        async for line in _lines(self._process.stdout):
            yield line

    async def tell(self, line: str) -> None:
        """Write a line to the process's standard input, which `started` was asked to open. A process that has ended
        hears nothing."""
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send(f"{line}\n".encode())
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return

    async def expect_success(self) -> None:
        """Wait for the process's end. Raises `BadConfig` if it was given what cannot work, `ProcessFailed` if it
        failed, both with its last lines."""
        code = await self._process.wait()
        if code:
            self._complaints.seek(0)
            words = self._complaints.read().decode(errors="replace").splitlines()[-LAST_WORDS:]
            if code == BAD_INPUT:
                raise BadConfig(f"{self._name}: {words[-1] if words else 'it ended without a word'}")
            raise ProcessFailed(self._name, code, words)

    def kill(self) -> None:
        """End the process at once, as a power cut does."""
        if self._process.returncode is None:
            self._process.kill()

    async def end(self, *, grace_s: float) -> None:
        """End the process politely, and after `grace_s` at once."""
        with anyio.CancelScope(shield=True):
            if self._process.returncode is None and grace_s:
                self._process.terminate()
                with anyio.move_on_after(grace_s):
                    await self._process.wait()
            self.kill()
            await self._process.aclose()


@asynccontextmanager
async def started(
    command: Sequence[str],
    *,
    name: str,
    listens: bool = False,
    environment: Mapping[str, str] | None = None,
    grace_s: float = GRACE_S,
) -> AsyncIterator[Subprocess]:
    """Start a process that has ended when the context is left, however that comes about. `environment` is added to this
    process's own; with `listens` it can be told lines; without `grace_s` it is ended at once."""
    with tempfile.TemporaryFile() as complaints:
        # in a session of its own, so that Ctrl-C reaches this process alone, which then ends the others
        process = await anyio.open_process(
            command,
            stdin=PIPE if listens else DEVNULL,
            stdout=PIPE,
            stderr=complaints,
            start_new_session=True,
            env=os.environ | (environment or {}),
        )
        child = Subprocess(name, process, complaints)
        try:
            yield child
        finally:
            await child.end(grace_s=grace_s)


async def _lines(stream: ByteReceiveStream) -> AsyncIterator[str]:
    buffered = BufferedByteReceiveStream(stream)
    while True:
        try:
            yield (await buffered.receive_until(b"\n", LINE_BYTES_MAX)).decode()
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError):
            return
