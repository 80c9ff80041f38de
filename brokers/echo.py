"""Whether a device hears what it says itself: `Echo`.

A broker whose access list denies reading may take a subscription all the same, and deliver nothing (Mosquitto 2 does).
"""

from collections.abc import Iterable

import anyio
import structlog

from crowd.units import Address, Channel, DeviceId

ECHO_AFTER_S = 30.0
"""Seconds from the first heartbeat on after which one has come back, however slow the link."""

_log = structlog.get_logger(__name__)


class Echo:
    """The own heartbeats of one session, the one thing that a device subscribes to of its own; logs once that none of
    them comes back."""

    def __init__(self, device: DeviceId) -> None:
        self._own = Address(channel=Channel.BEAT, source=device)
        self._awaited = False
        self._since_s: float | None = None

    def subscribed(self, patterns: Iterable[Address]) -> None:
        self._awaited = self._awaited or self._own in patterns

    def unsubscribed(self, patterns: Iterable[Address]) -> None:
        self._awaited = self._awaited and self._own not in patterns

    def sent(self, address: Address, topic: str) -> None:
        """The broker has taken what was published to `address`, whose topic this is."""
        if address != self._own or not self._awaited:
            return
        now_s = anyio.current_time()
        if self._since_s is None:
            self._since_s = now_s
        elif now_s - self._since_s >= ECHO_AFTER_S:
            self._awaited = False
            _log.warning(
                "nothing_comes_back",
                topic=topic,
                hint="this device may write there, and hears nothing of it: allow reading in the broker's access list",
            )

    def came(self, address: Address) -> None:
        """Something was delivered."""
        if self._awaited and address == self._own:
            self._awaited = False
