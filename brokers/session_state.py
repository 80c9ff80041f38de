"""The common parts of every adapter's sessions.

Layout: `KEEPALIVE_S`, `SessionState` (makes the pending and all later calls of a session fail when its connection goes)
and `Drops` (counts the messages that found no room, and logs it now and then).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import structlog

from crowd.errors import BrokerLost, BrokerRefused
from crowd.runtime.seldom import Seldom
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
        self._kind: type[BrokerLost | BrokerRefused] = BrokerLost

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

    def lose(
        self,
        reason: str,
        cause: BaseException | None = None,
        *,
        kind: type[BrokerLost | BrokerRefused] = BrokerLost,
    ) -> None:
        """Note that the connection has gone, because of `reason`; only the first one counts. All calls fail with an
        error of this `kind`."""
        if self._reason is not None:
            return
        self._reason, self._cause, self._kind = reason, cause, kind
        for scope in self._pending:
            scope.cancel()
        for callback in self._told:
            callback()

    @property
    def lost(self) -> bool:
        """Whether the connection has gone."""
        return self._reason is not None

    def check(self) -> None:
        """Raise `BrokerLost`, or the kind of error that was told, if the connection has gone."""
        if self._reason is not None:
            raise self._kind(self._reason) from self._cause


class Drops:
    """The counter of messages to `device` that were dropped, as there was no room for them or nobody sends such; tells
    it at most once a minute."""

    def __init__(self, device: DeviceId) -> None:
        self._device = device
        self._dropped = 0
        self._told = Seldom()

    def count(self, *, address: Address) -> None:
        self._dropped += 1
        if self._told.is_due():
            _log.warning("inbound_messages_dropped", device=self._device, latest=address, dropped=self._dropped)
