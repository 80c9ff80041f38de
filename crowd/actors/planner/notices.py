"""What people are told of other devices, each at most once a minute: `Notices`."""

from collections import defaultdict

import structlog

from crowd.protocol import messages
from crowd.protocol.messages import Message
from crowd.runtime.seldom import Seldom
from crowd.units import DeviceId

log = structlog.get_logger()


class Notices:
    """Logs who has gone, which several others may find one after the other, and in whose name a former life speaks."""

    def __init__(self) -> None:
        self._gone: defaultdict[DeviceId, Seldom] = defaultdict(Seldom)
        self._former: defaultdict[DeviceId, Seldom] = defaultdict(Seldom)

    def gone(self, device: DeviceId, **how: str) -> None:
        """`device` is in the view no longer, and `how`: the `reason` if this device has found that, else who has
        `told_by`; itself if it has left."""
        if how.get("told_by") == device:
            log.info("device_left", departed=device)
        elif self._gone[device].is_due():
            log.warning("device_evicted", departed=device, **how)

    def former_life(self, device: DeviceId, message: Message) -> None:
        """`message` is of a life of `device` before the present one. What the broker keeps outlives its sender; all
        else has been recorded, or its sender has lost count of its lives."""
        match message:
            case messages.ProfileMessage() | messages.AckMessage() | messages.ResultMessage():
                pass
            case _ if self._former[device].is_due():
                log.warning("former_life_heard", of=device, hint="somebody says again what was recorded earlier")
