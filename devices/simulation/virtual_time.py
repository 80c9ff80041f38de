"""An asyncio loop whose clock leaps to the next timer instead of waiting for it.

    run_virtually(main)

Time passes only while every task waits for a timer; the code itself takes none. So hours pass in seconds, and the same
code with the same seed runs the same way each time.

Layout: what can go wrong, the loop, its selector, and where a task waits.
"""

import asyncio
import contextvars
import functools
import gc
import heapq
import math
import selectors
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, ParamSpec, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary

import anyio

from crowd.errors import CrowdError

P = ParamSpec("P")
T = TypeVar("T")
Args = TypeVarTuple("Args")

COLLECTIONS = (50_000, 20, 100)
"""Thresholds of the garbage collector in a simulation: see `gc.set_threshold`."""
TURNS_MAX = 1_000_000
"""Turns of the loop that may pass at one moment of virtual time."""

PROCESS: contextvars.ContextVar[str] = contextvars.ContextVar("process", default="")
"""The simulated process, a device's name, that a task belongs to: set in the task that runs a node, inherited by the
tasks that it starts. Empty: none."""


class Deadlock(CrowdError):
    """Every task waits, and no timer is left that could wake one."""


class Livelock(CrowdError):
    """Tasks run and run, and none of them lets time pass."""


class ThreadAwaited(CrowdError):
    """The end of a thread was awaited, which takes real time: how much virtual time has passed by then is chance."""


def run_virtually(async_fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `async_fn(...)` returns, run to its end on a virtual clock that starts at 0 s."""
    call = functools.partial(async_fn, *args, **kwargs)
    return anyio.run(call, backend="asyncio", backend_options={"loop_factory": VirtualTimeLoop})


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop under virtual time. Starts at 0 s; a timer's callback sees exactly the time for which it was set.
    Knows no threads, and looks at signals and sockets only when all tasks wait.

    Raises out of the running call: `Deadlock`, which names the waiting tasks, when no timer is left; `Livelock` after
    `TURNS_MAX` turns at one moment; `ThreadAwaited` when something comes from a thread. It thaws every process before.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._turns = 0
        """Turns at this moment of virtual time."""
        self._thread = threading.get_ident()
        self._thread_used = False
        self._frozen: dict[str, list[asyncio.Handle]] = {}
        """Callbacks that each frozen process would have run since, in order."""
        self._only_cancelling = False
        self._contexts: WeakKeyDictionary[asyncio.Task[Any], contextvars.Context] = WeakKeyDictionary()
        """Contexts of all tasks, in the order of their creation (the set that asyncio has of them is in none)."""
        super().__init__(_LeapingSelector(self))
        self._clock_resolution = math.ulp(self._now_s)
        # asyncio has no public way to its queues: what is to run next, and the heap of timers.
        self._ready: deque[asyncio.Handle]
        self._scheduled: list[asyncio.TimerHandle]

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    def run_forever(self) -> None:
        """Run as `asyncio` does, but collect garbage more rarely: most objects of a simulation are freed without it,
        and looking for the rest among all that stays took a tenth of the time."""
        before = gc.get_threshold()
        gc.set_threshold(*COLLECTIONS)
        try:
            super().run_forever()
        finally:
            gc.set_threshold(*before)

    # --- frozen processes ---------------------------------------------------------------------------------------------

    def freeze(self, process: str) -> None:
        """Let nothing of `process` run from now on, while the clock goes on: a closed laptop lid.

        Its timers and what wakes its tasks wait for `thaw`, and so does the end of a task that is cancelled: to stop a
        simulation, thaw first. A callback that freezes its own process still comes to its end, a task to its next wait.
        Raises `ValueError` without a process.
        """
        if not process:
            raise ValueError("tasks of no process cannot be frozen: set PROCESS in the task that runs the node")
        if process in self._frozen:
            return
        self._frozen[process] = []
        # the loop has counted what it runs in this turn
        nothing = asyncio.Handle(_nothing, (), self)
        nothing.cancel()
        for place, handle in enumerate(self._ready):
            if self._set_aside(handle):
                self._ready[place] = nothing

    def thaw(self, process: str) -> None:
        """Run what became due in `process` since `freeze`, its callbacks in that order, and whatever comes from now on.
        Without effect where nothing is frozen."""
        self._ready.extend(self._frozen.pop(process, ()))

    def _set_aside(self, handle: asyncio.Handle) -> bool:
        """Keep `handle` for later if it belongs to a frozen process."""
        later = self._frozen.get(handle._context.get(PROCESS, ""))  # type: ignore[attr-defined]  # not in the stubs
        if later is None:
            return False
        later.append(handle)
        return True

    def _set_frozen_aside(self) -> None:
        """Leave in the queue only what may run in this turn."""
        # in the order in which asyncio itself would move the timers that are due
        while self._scheduled and self._scheduled[0].when() < self._now_s + self._clock_resolution:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]  # or its cancellation would be counted twice
            self._ready.append(timer)
        ready = [handle for handle in self._ready if not self._set_aside(handle)]
        self._ready.clear()
        self._ready.extend(ready)

    # --- turns --------------------------------------------------------------------------------------------------------

    def turn(self, idle: bool) -> None:
        """Begin a turn; called by the selector. `idle`: nothing is to run before the next timer."""
        if self._thread_used:
            self._thread_used = False
            self._fail(ThreadAwaited(_NO_THREADS))
        if idle:
            self._leap()
        else:
            self._turns += 1
            if self._turns > TURNS_MAX:
                self._fail(
                    Livelock(f"still {self._now_s} s after {TURNS_MAX:,} turns of these tasks:{self._all_tasks()}")
                )
        if self._frozen:
            self._set_frozen_aside()
            self._pass_time_while_cancelling()

    def _leap(self) -> None:
        """Move the clock to the next timer."""
        if not self._scheduled or self._scheduled[0].when() == math.inf:
            self._fail(Deadlock(f"no timer left at {self._now_s} s, and these tasks wait:{self._all_tasks()}"))
        # the sum now + timeout would miss it by rounding
        self._now_s = self._scheduled[0].when()
        # asyncio calls what is due before now + resolution: after months a nanosecond no longer changes that sum.
        self._clock_resolution = math.ulp(self._now_s)
        self._turns = 0

    def _pass_time_while_cancelling(self) -> None:
        """Leap to the next timer once nothing but repeated cancellations has filled a turn. anyio repeats a
        cancellation every turn until the task has ended, which a frozen one cannot: that must not hold up the clock."""
        before, self._only_cancelling = self._only_cancelling, bool(self._ready) and all(map(_cancels, self._ready))
        if before and self._only_cancelling:
            self._leap()
            self._set_frozen_aside()
            self._only_cancelling = False

    def _fail(self, error: CrowdError) -> NoReturn:
        # whoever runs this loop now cancels all tasks, which takes turns, and frozen ones could not end
        self._turns = 0
        for process in list(self._frozen):
            self.thaw(process)
        raise error

    # --- tasks and threads --------------------------------------------------------------------------------------------

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        context = contextvars.copy_context() if context is None else context
        task = super().create_task(coro, name=name, context=context)
        self._contexts[task] = context
        return task

    def _all_tasks(self) -> str:
        return "".join(f"\n  {self._described(task)}" for task in self._contexts if not task.done())

    def _described(self, task: asyncio.Task[Any]) -> str:
        process = self._contexts[task].get(PROCESS, "")
        owner = f"{process}: " if process else ""
        return f"{owner}{task.get_name()} in {place_of(task)}{' (frozen)' if process in self._frozen else ''}"

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> NoReturn:  # type: ignore[override]
        raise ThreadAwaited(_NO_THREADS)

    def call_soon_threadsafe(
        self, callback: Callable[[*Args], object], *args: *Args, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Do as `call_soon`; from another thread end the simulation with `ThreadAwaited`."""
        if threading.get_ident() != self._thread:
            self._thread_used = True
        return super().call_soon_threadsafe(callback, *args, context=context)


_NO_THREADS = "a thread was awaited, and virtual time knows none: run the work inline, as VirtualCompute does"


def _nothing() -> None:
    """Do nothing, instead of what a frozen process would do."""


def _cancels(handle: asyncio.Handle) -> bool:
    callback = handle._callback  # type: ignore[attr-defined]  # not in the stubs
    return handle.cancelled() or isinstance(getattr(callback, "__self__", None), anyio.CancelScope)


class _LeapingSelector(selectors.DefaultSelector):
    """A selector that never blocks, and polls only when the loop has nothing else to do."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = [] if timeout == 0 else super().select(0)
        self._loop.turn(idle=timeout != 0 and not events)
        return events


# --- where a task waits -----------------------------------------------------------------------------------------------

_PLUMBING = frozenset({"anyio", "asyncio", "contextlib"})
"""Packages in which every task waits."""


def place_of(task: asyncio.Task[Any]) -> str:
    """Function, file and line of the innermost frame in which `task` waits, those of asyncio and anyio left out."""
    frames = list(_frames(task.get_coro()))
    if not frames:
        return "no frame"
    own = [frame for frame in frames if frame.f_globals.get("__name__", "").partition(".")[0] not in _PLUMBING]
    frame = (own or frames)[-1]
    for_thread = any(frame.f_code.co_name == "run_sync_in_worker_thread" for frame in frames)
    file = "/".join(Path(frame.f_code.co_filename).parts[-2:])
    return f"{frame.f_code.co_qualname} ({file}:{frame.f_lineno}){', for a thread' if for_thread else ''}"


def _frames(awaited: object) -> Iterator[FrameType]:
    """The frames from the outermost coroutine inwards; generators are awaited where old code is."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
