"""The clock of a node's actors: `now_us`."""

import anyio

from crowd.units import SECOND_US


def now_us() -> int:
    """The time on the node's clock, in microseconds; virtual in a simulation."""
    return int(anyio.current_time() * SECOND_US)
