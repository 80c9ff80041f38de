"""An asyncio loop whose clock goes slower than real time: all that waits for it takes as many times as long.

anyio.run(main, backend="asyncio", backend_options={"loop_factory": partial(SlowedLoop, 10.0)})
"""

import asyncio
import selectors


class SlowedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock, the system's monotonic one, goes `slower` times slower: at 10 a sleep of 1 s takes 10
    s."""

    def __init__(self, slower: float) -> None:
        self._slower = slower
        super().__init__(_PatientSelector(slower))

    def time(self) -> float:
        return super().time() / self._slower


class _PatientSelector(selectors.DefaultSelector):
    """A selector that takes its timeouts by the slowed clock."""

    def __init__(self, slower: float) -> None:
        super().__init__()
        self._slower = slower

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout if timeout is None else timeout * self._slower)
