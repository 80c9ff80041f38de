"""Whether this device's data have changed, looked at between runs: `NewData`."""

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
        self._took_s = 0.0
        self._refused = ""

    async def watch(self) -> None:
        """Look again and again, as long as this runs."""
        while True:
            await anyio.sleep(max(LOOK_S, READING_PARTS * self._took_s))
            await self.look()

    async def look(self) -> None:
        """Look when no run is on. Data that cannot be trained are said, once, and the former ones stay."""
        await self._node.wait()
        began_s = anyio.current_time()
        try:
            await self._node.data_changed()
        except BadConfig as error:
            if str(error) != self._refused:
                log.warning("new_data_refused", error=str(error))
            self._refused = str(error)
        else:
            self._refused = ""
        self._took_s = anyio.current_time() - began_s
