"""The activity of a device: `Span` (one piece of training), `MeteredCompute` (any `Compute`, watched), `Occupancy`
(when something, such as a link, was in use) and `LinkBusy` (a link's two directions)."""

from collections.abc import Callable
from typing import TypeVar

import anyio
import attrs

from crowd.ports import Compute

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Span:
    """One piece of training arithmetic, by anyio's clock."""

    began_s: float
    ended_s: float
    flops: int
    """Training arithmetic of the piece; 0 if it was cut short, as then it counts for nothing."""


@attrs.frozen(kw_only=True)
class LinkBusy:
    """The times at which a device sent and received: pairs `(began_s, ended_s)`, in order."""

    up: tuple[tuple[float, float], ...]
    down: tuple[tuple[float, float], ...]

    def since(self, moment_s: float) -> "LinkBusy":
        """These times on a clock that was at 0 at `moment_s`."""
        return LinkBusy(
            up=tuple((began_s - moment_s, ended_s - moment_s) for began_s, ended_s in self.up),
            down=tuple((began_s - moment_s, ended_s - moment_s) for began_s, ended_s in self.down),
        )


class Occupancy:
    """The times at which something was in use that takes one thing after the other. Uses without a gap of `GAP_S` are
    one."""

    GAP_S = 0.001

    def __init__(self) -> None:
        self._began_s: list[float] = []
        self._ended_s: list[float] = []

    def note(self, *, ended_s: float, took_s: float) -> None:
        """Note a use for `took_s` until `ended_s`; no later use is before that."""
        if self._ended_s and ended_s - took_s < self._ended_s[-1] + self.GAP_S:
            self._ended_s[-1] = ended_s
        else:
            self._began_s.append(ended_s - took_s)
            self._ended_s.append(ended_s)

    @property
    def spans(self) -> tuple[tuple[float, float], ...]:
        """The times of use: `(began_s, ended_s)`, in order."""
        return tuple(zip(self._began_s, self._ended_s, strict=True))


class MeteredCompute(Compute):
    """A `Compute` that lets `inner` work and records when it trained: one piece at a time, as one trainer does."""

    def __init__(self, inner: Compute) -> None:
        self._inner = inner
        self._spans: list[Span] = []
        self._busy_s = 0.0
        self._began_s: float | None = None

    @property
    def executes(self) -> bool:
        return self._inner.executes

    @property
    def is_virtual(self) -> bool:
        return self._inner.is_virtual

    @property
    def torch_device(self) -> str:
        return self._inner.torch_device

    @property
    def busy_s(self) -> float:
        """Seconds of training until now, a piece in hand included."""
        return self._busy_s + (0.0 if self._began_s is None else anyio.current_time() - self._began_s)

    @property
    def spans(self) -> tuple[Span, ...]:
        """All pieces that have ended, in order."""
        return tuple(self._spans)

    async def run(self, work: Callable[[], T], *, flops: int = 0) -> T:
        if not flops:
            return await self._inner.run(work)
        self._began_s = began_s = anyio.current_time()
        done = 0
        try:
            result = await self._inner.run(work, flops=flops)
            done = flops
            return result
        finally:
            self._busy_s, self._began_s = self.busy_s, None
            self._spans.append(Span(began_s=began_s, ended_s=anyio.current_time(), flops=done))
