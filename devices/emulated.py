"""The processors of other devices than this one. `EmulatedCompute`: a slower one, in real time: real work, then a pause
until it would be done. `VirtualCompute`: any device, under virtual time."""

import itertools
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import anyio
import anyio.to_thread
import structlog

from crowd.ports import Compute, Device
from devices.sensors import FixedSensor

T = TypeVar("T")

LAG_S_MAX = 1.0
"""Seconds that an emulated device may fall behind before it warns; less is the scheduler's jitter."""
WARNING_EVERY_S = 60.0

_log = structlog.get_logger(__name__)


class EmulatedCompute(Compute):
    """One processor of `speed_kflops`: calls with `flops` run one after the other, each for as long as they take there.
    Time that one call takes too long, or too short because it was cancelled, the next makes up for: over many calls the
    rate is exact. Work without `flops` takes the time that it takes here, beside them.

    Logs `emulation_too_slow`, at most once a minute, when this machine cannot keep up. `clock` and `sleep` are anyio's.
    """

    def __init__(
        self,
        speed_kflops: int,
        *,
        clock: Callable[[], float] = anyio.current_time,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._speed_kflops = _positive(speed_kflops)
        self._clock = clock
        self._sleep = sleep
        self._processor = anyio.Lock()
        self._limiter = anyio.CapacityLimiter(2)
        self._aside: dict[str, anyio.CapacityLimiter] = {}
        self._debt_s = 0.0
        """Emulated time not yet spent; negative: this machine has fallen behind."""
        self._warned_s = -math.inf

    async def run(self, work: Callable[[], T], *, flops: int = 0) -> T:
        if not flops:
            return await self._in_thread(work)
        async with self._processor:
            started_s = self._clock()
            self._debt_s += flops / (self._speed_kflops * 1000)
            try:
                result = await self._in_thread(work)
                rest_s = self._debt_s - (self._clock() - started_s)
                if rest_s > 0:
                    await self._sleep(rest_s)
            finally:
                self._debt_s -= self._clock() - started_s
                self._warn_if_behind()
            return result

    async def run_aside(self, work: Callable[[], T], *, queue: str = "disk") -> T:
        limiter = self._aside.setdefault(queue, anyio.CapacityLimiter(1))
        return await anyio.to_thread.run_sync(work, limiter=limiter)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # A limiter of its own: many emulated devices must not queue for one pool of threads.
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    def _warn_if_behind(self) -> None:
        now_s = self._clock()
        if self._debt_s < -LAG_S_MAX and now_s - self._warned_s >= WARNING_EVERY_S:
            self._warned_s = now_s
            _log.warning("emulation_too_slow", speed_kflops=self._speed_kflops, behind_s=round(-self._debt_s, 3))


class VirtualCompute(Compute):
    """One processor of `speed_kflops` under virtual time, with work that runs inline.

    Calls with `flops` run one after the other, each for as long as they take there, times the next of `unevenness`;
    work without is handled beside them as if it had `overhead_flops`. Without `executes` nothing is trained, only the
    time for it taken. Work that is handled beside training comes first: training rests meanwhile. A call that is
    cancelled ends at once, with its work done or not begun.
    """

    def __init__(
        self,
        speed_kflops: int,
        *,
        overhead_flops: int = 0,
        unevenness: Iterator[float] | None = None,
        executes: bool = True,
    ) -> None:
        self.speed_kflops = speed_kflops
        self._overhead_flops = overhead_flops
        self._unevenness = itertools.repeat(1.0) if unevenness is None else unevenness
        self._maths = executes
        self._processor = anyio.Lock()
        self._handled_s = 0.0
        """Seconds of all handled work, waiting work included."""
        self._free_at_s = 0.0
        """Time at which nothing is left to handle."""

    @property
    def speed_kflops(self) -> int:
        """The speed in kFLOP/s. May be set at any time: a piece in hand ends when it would have at the speed with which
        it began."""
        return self._speed_kflops

    @speed_kflops.setter
    def speed_kflops(self, speed_kflops: int) -> None:
        self._speed_kflops = _positive(speed_kflops)

    @property
    def executes(self) -> bool:
        return self._maths

    @property
    def is_virtual(self) -> bool:
        return True

    async def run(self, work: Callable[[], T], *, flops: int = 0) -> T:
        if not flops:
            await self.handle(self._overhead_flops)
            return work()
        async with self._processor:
            began_s, handled_s = anyio.current_time(), self._handled_s
            ends_s = max(began_s, self._free_at_s) + self._takes_s(flops) * next(self._unevenness)
            result = work()
            await anyio.sleep_until(ends_s)
            while self._handled_s > handled_s:
                ends_s, handled_s = ends_s + self._handled_s - handled_s, self._handled_s
                await anyio.sleep_until(ends_s)
            return result

    async def handle(self, flops: int) -> None:
        """Spend so much on something that cannot wait for training; one thing after the other."""
        takes_s = self._takes_s(flops)
        self._handled_s += takes_s
        self._free_at_s = ends_s = max(self._free_at_s, anyio.current_time()) + takes_s
        await anyio.sleep_until(ends_s)

    def _takes_s(self, flops: int) -> float:
        return flops / (self._speed_kflops * 1000)


def _positive(speed_kflops: int) -> int:
    if speed_kflops <= 0:
        raise ValueError(f"expected a speed above 0 kFLOP/s, found {speed_kflops}")
    return speed_kflops


def emulated(speed_kflops: int, memory_bytes: int) -> Device:
    """A device of that training speed and free memory, on this machine."""
    return Device(compute=EmulatedCompute(speed_kflops), sensor=FixedSensor(memory_free_bytes=memory_bytes))
