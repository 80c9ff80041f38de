"""`SlowedLoop` under a clock and a selector that are told how much time passes."""

import selectors
import time

import anyio
import pytest

from devices.lab.slowed_time import SlowedLoop


@pytest.fixture
def waited_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the system was asked to wait, each time, while nothing else moves its clock."""
    waited_s: list[float] = []
    select = selectors.DefaultSelector.select

    def wait(self: selectors.DefaultSelector, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout:
            waited_s.append(timeout)
        return select(self, 0)

    monkeypatch.setattr(selectors.DefaultSelector, "select", wait)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + sum(waited_s))
    return waited_s


def test_a_sleep_takes_so_many_times_as_long_and_the_clock_says_nothing_of_it(waited_s: list[float]) -> None:
    async def main() -> float:
        began_s = anyio.current_time()
        await anyio.sleep(2.0)
        return anyio.current_time() - began_s

    slept_s = anyio.run(main, backend_options={"loop_factory": lambda: SlowedLoop(10.0)})
    assert slept_s == pytest.approx(2.0)
    assert sum(waited_s) == pytest.approx(20.0)
