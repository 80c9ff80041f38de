"""The clock of a node's actors, in whole microseconds: `now_us`, and `reached_us` for deadlines."""

import anyio

from crowd.units import SECOND_US


def now_us() -> int:
    """The time on the node's clock, in microseconds; virtual in a simulation."""
    return int(anyio.current_time() * SECOND_US)


def reached_us() -> int:
    """The latest deadline that has been reached. It may be just ahead of `now_us`: the clock of floats, by which an
    actor's `tick` is called, may be a hair too early for whole numbers."""
    return now_us() + 1
