"""The common parts of every adapter's sessions.

Layout: `KEEPALIVE_S`, `SessionState` (makes the pending and all later calls of a session fail when its connection goes)
and `Drops` (counts the messages that found no room, and logs it now and then).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import structlog

from crowd.errors import BrokerLost
from crowd.units import Address, DeviceId

KEEPALIVE_S = 15
"""Seconds without a sign of its broker after which a client gives the connection up, and a broker its client after half
as much again (MQTT 5, section 3.1.2.10)."""

_log = structlog.get_logger(__name__)


class SessionState:
    """The state of one session's connection: intact until `lose`."""

    def __init__(self) -> None:
        self._pending: dict[anyio.CancelScope, None] = {}  # no set: cancelled in the order in which they came
        self._told: list[Callable[[], None]] = []
        self._reason: str | None = None
        self._cause: BaseException | None = None

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Run the body of the context while the connection lasts; `BrokerLost` if it has gone or goes meanwhile."""
        self.check()
        with anyio.CancelScope() as scope:
            self._pending[scope] = None
            try:
                yield
            finally:
                del self._pending[scope]
        if scope.cancelled_caught:
            self.check()

    def call_when_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the connection goes: for whoever waits in another way than in `holding`, and calls
        `check` then."""
        self._told.append(callback)

    def lose(self, reason: str, cause: BaseException | None = None) -> None:
        """Note that the connection has gone, because of `reason`; only the first one counts."""
        if self._reason is not None:
            return
        self._reason, self._cause = reason, cause
        for scope in self._pending:
            scope.cancel()
        for callback in self._told:
            callback()

    @property
    def lost(self) -> bool:
        """Whether the connection has gone."""
        return self._reason is not None

    def check(self) -> None:
        """Raise `BrokerLost` if the connection has gone."""
        if self._reason is not None:
            raise BrokerLost(self._reason) from self._cause


class Drops:
    """The counter of messages to `device` that were dropped; logs when their number reaches a power of two."""

    def __init__(self, device: DeviceId) -> None:
        self._device = device
        self._dropped = 0

    def count(self, *, address: Address) -> None:
        self._dropped += 1
        if self._dropped & (self._dropped - 1) == 0:
            _log.warning("inbound_message_dropped", device=self._device, last=address, dropped=self._dropped)
