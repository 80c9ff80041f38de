"""What the parts of a trainer share of what is around it: `Outside`."""

from collections.abc import Callable

import attrs

from crowd.actors import inbox
from crowd.actors.inbox import DataMoverMessage, PlannerMessage, ProfilerMessage
from crowd.actors.probe import Probe
from crowd.actors.trainer.observations import Observation
from crowd.ports import Compute, Traffic
from crowd.protocol import messages
from crowd.runtime import ActorRef
from crowd.units import Address, Channel, DeviceId


@attrs.frozen(kw_only=True, eq=False)
class Outside:
    """The device, its other actors, and whoever looks on."""

    device: DeviceId
    compute: Compute
    planner: ActorRef[PlannerMessage]
    data_mover: ActorRef[DataMoverMessage]
    profiler: ActorRef[ProfilerMessage]
    observe: Callable[[Observation], None]
    traffic: Callable[[], Traffic]
    """What has crossed the device's link so far."""
    downlink_bytes_s: int
    probe: Probe

    async def say(self, device: DeviceId, message: messages.Message) -> None:
        """Send a message to one other device."""
        address = Address(channel=Channel.TO, source=self.device, destination=device)
        await self.data_mover.tell(inbox.Send(address=address, message=message))

    async def send(self, destination: DeviceId | None, cargo: messages.Cargo, data: bytes) -> None:
        """Transfer bulk bytes to one other device; `None`: to all."""
        await self.data_mover.tell(inbox.SendCargo(destination=destination, cargo=cargo, data=data))
