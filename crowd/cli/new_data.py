"""Whether this device's data have changed, looked at between runs: `NewData`."""

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
import structlog

from crowd.errors import BadConfig

if TYPE_CHECKING:
    from crowd.node import Node

LOOK_S = 60.0
"""How often it is looked, where the data are read at once."""
READING_PARTS = 100
"""Looking takes at most one in so many parts of the time."""

log = structlog.get_logger()


class NewData:
    """Has a node read its data anew."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._refused = ""
        """How it was said last that new data cannot be trained."""
        self._wanted = anyio.Event()
        self._looked = anyio.Event()
        """Set by a look that began after it was made."""

    async def watch(self) -> None:
        """Look again and again, as long as this runs, and at once where somebody wants it."""
        while True:
            with anyio.move_on_after(max(LOOK_S, READING_PARTS * self._node.reading_s)):
                await self._wanted.wait()
            looked, self._wanted, self._looked = self._looked, anyio.Event(), anyio.Event()
            await self._look()
            looked.set()

    async def look_now(self) -> None:
        """Return when it has been looked, or a run has begun meanwhile."""
        self._wanted.set()
        async with anyio.create_task_group() as tasks:

            async def first(wait: Callable[[], Awaitable[object]]) -> None:
                await wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(first, self._looked.wait)
            tasks.start_soon(first, self._node.begun)

    async def _look(self) -> None:
        """Data that cannot be trained are said, once, and the former ones stay."""
        try:
            await self._node.data_changed()
        except BadConfig as error:
            refused = re.sub(r"\d", "", str(error))  # free memory is another figure each time
            if refused != self._refused:
                log.warning("new_data_refused", error=str(error))
            self._refused = refused
        else:
            self._refused = ""
