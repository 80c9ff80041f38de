import anyio
import pytest

from crowd.runtime import Actor
from crowd.runtime.clock import reached_us
from crowd.units import SECOND_US
from tests.runtime.actors import Message, supervise
from tests.support.virtual import run_virtually


class Late(Actor[Message]):
    """Notes how far each of its deadlines has been passed when it ticks."""

    def __init__(self, due_us: int) -> None:
        self.due_us = due_us
        self.late_us: list[int] = []

    async def receive(self, message: Message) -> None:
        raise AssertionError

    def deadline_us(self) -> int:
        return self.due_us

    async def tick(self) -> None:
        self.late_us.append(reached_us() - self.due_us)
        self.due_us += 7


@pytest.mark.parametrize("due_us", [1, 3, 1_000_001, 4_294_967_297, 1_000_000_000_001])
def test_a_deadline_is_reached_when_the_actor_ticks_whatever_floats_make_of_it(due_us: int) -> None:
    actor = Late(due_us)

    async def run() -> None:
        async with supervise(actor):
            await anyio.sleep(due_us / SECOND_US + 0.001)

    run_virtually(run)
    assert len(actor.late_us) >= 100
    assert set(actor.late_us) <= {0, 1}
