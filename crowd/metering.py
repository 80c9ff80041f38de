"""How busy a device's processor is: `Span` (one piece of training), `MeteredCompute` (any `Compute`, watched)."""

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
    """0 if it was cut short: it came to nothing."""


class MeteredCompute(Compute):
    """`inner`, and when it trained: one piece at a time, as one trainer does."""

    def __init__(self, inner: Compute) -> None:
        self._inner = inner
        self._spans: list[Span] = []
        self._busy_s = 0.0
        self._began_s: float | None = None

    @property
    def maths(self) -> bool:
        return self._inner.maths

    @property
    def busy_s(self) -> float:
        """Until now, a piece in hand included."""
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
