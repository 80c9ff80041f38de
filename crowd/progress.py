"""What a node tells of its runs: `Progress`, and `News`, by which it reaches those who listen."""

from collections.abc import AsyncGenerator, Mapping

import anyio
import attrs
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from crowd.planning.plan import Plan

BUFFERED = 256
"""Reports that wait for a listener."""


@attrs.frozen(kw_only=True)
class Progress:
    """The report of a node after each round, and when a plan begins or the run ends.

    Args:
        round: Number of the last complete round; 0 before the first.
        value: Value of the task's metric of the state before this round, over all devices that evaluated; `None` while
            nothing was evaluated. With a target the last one is that of the model that is kept; without one that has
            the best.
        loss: Mean training loss in this round, over all devices that trained; `None` where nobody has.
        bytes_up: Bytes that this device has sent in this run, headers included.
        bytes_down: Bytes that this device has received in this run, headers included.
        elapsed_s: Seconds since this device's first plan with work.
        plan: The plan in force: who trains, lends and merges what. `None` before the first.
        finished: Whether the run has ended with this round.
        digest: Digest of the state after this round, in hexadecimal; the same on every device. `None` before the first.
        samples_trained: Samples that this device has trained in this run, each as often as it did.
        generations: Plans that this device has followed by the end of this round.
        hardly_trained: By device, how many of its samples are planned to be trained and hardly were until now, less
            than a tenth of it, and why; `None`: not known, as this device has not seen enough of the run.
    """

    round: int
    value: float | None
    loss: float | None = None
    bytes_up: int
    bytes_down: int
    elapsed_s: float
    plan: Plan | None
    finished: bool = False
    digest: str | None = None
    samples_trained: int = 0
    generations: int = 0
    hardly_trained: Mapping[str, tuple[int, str]] | None = None


class News:
    """Whether a run is on, and how it goes."""

    def __init__(self) -> None:
        self.run = 0
        """The run that is on, or the last one that was; 0 before the first."""
        self.last = _nothing(None)
        self._listeners: dict[MemoryObjectSendStream[Progress], MemoryObjectReceiveStream[Progress]] = {}
        self._begun = anyio.Event()
        self._over = anyio.Event()

    @property
    def is_over(self) -> bool:
        """Whether no run is on any more."""
        return self._over.is_set()

    def begin(self, run: int) -> None:
        """That run begins."""
        self.run = run
        self.last = _nothing(self.last.plan)
        self._begun.set()
        if self._over.is_set():
            self._over = anyio.Event()

    def tell(self, progress: Progress) -> None:
        self.last = progress
        for listener, other_end in self._listeners.items():
            try:
                listener.send_nowait(progress)
            except anyio.WouldBlock:
                other_end.receive_nowait()  # a slow listener misses the oldest
                listener.send_nowait(progress)

    def end(self) -> None:
        """The run is over."""
        self._over.set()
        self._begun = anyio.Event()
        self.close()

    def close(self) -> None:
        """Nothing more will be told of this run."""
        for listener in list(self._listeners):
            listener.close()

    async def wait_begun(self) -> int:
        """Wait until a run is on; returns its number."""
        await self._begun.wait()
        return self.run

    async def wait_over(self) -> None:
        """Wait until no run is on any more."""
        await self._over.wait()

    async def listen(self) -> AsyncGenerator[Progress, None]:
        """All that is told from now on until the run is over; the latest, where the listener is slow."""
        send: MemoryObjectSendStream[Progress]
        receive: MemoryObjectReceiveStream[Progress]
        send, receive = anyio.create_memory_object_stream(BUFFERED)
        if self._over.is_set():
            send.close()
        else:
            self._listeners[send] = receive
        try:
            async with receive:
                async for news in receive:
                    yield news
        finally:
            self._listeners.pop(send, None)
            send.close()


def _nothing(plan: Plan | None) -> Progress:
    """The report of a run in which nothing has been done, while this plan is in force."""
    return Progress(round=0, value=None, bytes_up=0, bytes_down=0, elapsed_s=0.0, plan=plan)
