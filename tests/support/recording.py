"""What the devices of a cluster say of themselves, written down: which lives they led, the profiles that they published
and the plans that they acked. The same for a real broker (`listening`) and a simulated one.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import attrs
from anyio.from_thread import start_blocking_portal

from brokers import mqtt
from crowd.agreement.ack import Ack
from crowd.planning.profile import Profile
from crowd.ports import Broker, Delivery
from crowd.protocol.messages import AckMessage, ProfileMessage
from crowd.units import Address, Channel, DeviceId
from tests.node.cluster import is_sealed, read

CHANNELS = (Channel.STATUS, Channel.PROFILE, Channel.ACK)


@attrs.define(kw_only=True)
class Lifetime:
    """A process from its connection to the broker until it is killed."""

    device: DeviceId
    boot: bytes
    began_s: float
    killed_s: float | None = None
    profiles: list[tuple[float, Profile]] = attrs.field(factory=list)
    """With the time of their publication."""
    acks: list[tuple[float, Ack]] = attrs.field(factory=list)
    """With the time when they were first given; repetitions are left out."""


class Recording:
    """Times are in seconds, counted from any moment."""

    def __init__(self) -> None:
        self.lifetimes: dict[bytes, Lifetime] = {}
        """By boot ID, in the order in which they began."""
        self._online_s: dict[DeviceId, float] = {}

    def saw(self, delivery: Delivery, *, at_s: float) -> None:
        """Take down a message that was published at that time."""
        address = delivery.address
        if address.channel is Channel.STATUS and address.source is not None:
            if delivery.payload == b"online":
                self._online_s.setdefault(address.source, at_s)
            else:
                self._online_s.pop(address.source, None)
        elif address.channel in CHANNELS and is_sealed(delivery):
            match read(delivery):
                case ProfileMessage(profile=profile):
                    self._lifetime(profile).profiles.append((at_s, profile))
                case AckMessage(ack=ack):
                    acks = self.lifetimes[ack.life.boot].acks
                    if ack.generation not in {known.generation for _, known in acks}:
                        acks.append((at_s, ack))

    def killed(self, device: DeviceId, *, at_s: float) -> None:
        """Take down the end of the latest life of `device`."""
        latest = [lifetime for lifetime in self.lifetimes.values() if lifetime.device == device][-1]
        latest.killed_s = at_s
        self._online_s.pop(device, None)

    def until(self, end_s: float) -> "Recording":
        """A copy without the acks that were given later, and the lives in which none is left."""
        copy = Recording()
        for boot, lifetime in self.lifetimes.items():
            if acks := [(at_s, ack) for at_s, ack in lifetime.acks if at_s <= end_s]:
                copy.lifetimes[boot] = attrs.evolve(lifetime, acks=acks)
        return copy

    @property
    def end_s(self) -> float:
        """When the last ack was given."""
        return max(at_s for lifetime in self.lifetimes.values() for at_s, _ in lifetime.acks)

    def _lifetime(self, profile: Profile) -> Lifetime:
        boot = profile.life.boot
        if boot not in self.lifetimes:
            began_s = self._online_s[profile.device]
            self.lifetimes[boot] = Lifetime(device=profile.device, boot=boot, began_s=began_s)
        return self.lifetimes[boot]


@contextmanager
def listening(url: str, *, cluster: str) -> Iterator[Recording]:
    """Record, by `time.monotonic`, all that is published meanwhile on the broker at `url`."""
    recording = Recording()
    broker = mqtt.from_url(url, cluster=cluster, device=DeviceId("listener"))
    with start_blocking_portal() as portal:
        listener, _ = portal.start_task(_listen, broker, recording)
        try:
            yield recording
        finally:
            listener.cancel()


async def _listen(broker: Broker, recording: Recording, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    async with broker.session() as session:
        await session.subscribe(*(Address(channel=channel) for channel in CHANNELS))
        task_status.started()
        while True:
            delivery = await session.receive()
            recording.saw(delivery, at_s=time.monotonic())
