"""What the agreement wants said to other devices: `Voice`."""

from functools import partial
from typing import TypeAlias, assert_never

import structlog

from crowd.actors import inbox
from crowd.actors.inbox import DataMoverMessage
from crowd.actors.lives import Lives
from crowd.actors.probe import Probe
from crowd.agreement import events
from crowd.agreement.state import State
from crowd.planning.profile import Profile
from crowd.ports import Compute
from crowd.protocol import messages
from crowd.runtime import ActorRef
from crowd.units import Address, Channel, DeviceId

Spoken: TypeAlias = (
    events.PublishProfile
    | events.PublishAck
    | events.SendAck
    | events.PublishEvictions
    | events.PublishSuspensions
    | events.SendBeat
    | events.AskView
    | events.SendView
    | events.SendProbe
)
"""Effects of the agreement that are messages."""

log = structlog.get_logger()


class Voice:
    """Makes messages of effects, and keeps the profiles of others as they have signed them, to be said again."""

    def __init__(
        self,
        *,
        device: DeviceId,
        lives: Lives,
        compute: Compute,
        data_mover: ActorRef[DataMoverMessage],
        probe: Probe,
    ) -> None:
        self._me = device
        self._lives = lives
        self._compute = compute
        self._data_mover = data_mover
        self._probe = probe
        self._envelopes: dict[DeviceId, tuple[Profile, bytes]] = {}
        self._nonce = 0

    def keep(self, profile: Profile, envelope: bytes) -> None:
        """Keep a profile as its device has signed it, unless a later one is known."""
        known = self._envelopes.get(profile.device)
        if known is None or profile.version > known[0].version:
            self._envelopes[profile.device] = (profile, envelope)

    async def say(self, effect: Spoken, state: State) -> None:
        """`state` is that of the agreement, which wants this said."""
        match effect:
            case events.PublishProfile(profile=profile):
                if not self._lives.has_reached(profile.life.incarnation):
                    await self._compute.run(partial(self._lives.reach, profile.life.incarnation))
                await self._data_mover.tell(inbox.NewLife(life=profile.life))
                await self._publish(Channel.PROFILE, messages.ProfileMessage(profile=profile), retain=True)
            case events.PublishAck(ack=ack):
                self._probe.promised(ack)
                log.debug("plan_acknowledged", generation=ack.generation, round=ack.progress.round)
                await self._publish(Channel.ACK, messages.AckMessage(ack=ack), retain=True)
            case events.SendAck(device=device, ack=ack):
                self._probe.promised(ack)
                await self.send(device, messages.AckMessage(ack=ack))
            case events.PublishEvictions(lives=lives):
                await self._publish(Channel.ALL, messages.Evictions(lives=dict(lives)))
            case events.SendBeat(view_digest=view_digest, generation=generation):
                beat = messages.Beat(life=state.own.profile.life, view_digest=view_digest, generation=generation)
                await self._publish(Channel.BEAT, beat)
            case events.AskView(device=device):
                await self.send(device, _view_request(state))
            case events.PublishSuspensions(suspensions=suspensions):
                for device in sorted(suspensions.keys() - {self._me}):
                    self._probe.suspended(device)
                await self._publish(Channel.ALL, messages.Suspensions(devices=dict(suspensions)))
            case events.SendView():
                await self._send_view(effect, state)
            case events.SendProbe(device=device):
                self._probe.probed(device)
                self._nonce += 1
                await self.send(device, messages.ProbeRequest(nonce=self._nonce))
            case _:
                assert_never(effect)

    async def publish_result(self, result: messages.ResultMessage) -> None:
        await self._publish(Channel.RESULT, result, retain=True)

    async def send(self, device: DeviceId, message: messages.Message) -> None:
        """Say something to one device."""
        address = Address(channel=Channel.TO, source=self._me, destination=device)
        await self._data_mover.tell(inbox.Send(address=address, message=message))

    async def _publish(self, channel: Channel, message: messages.Message, *, retain: bool = False) -> None:
        address = Address(channel=channel, source=self._me)
        await self._data_mover.tell(inbox.Send(address=address, message=message, retain=retain))

    async def _send_view(self, told: events.SendView, state: State) -> None:
        if self._me in told.profiles:
            await self.send(told.device, messages.ProfileMessage(profile=state.own.profile))
        envelopes = tuple(self._envelopes[name][1] for name in told.profiles if name in self._envelopes)
        reply = messages.ViewReply(
            envelopes=envelopes, tombstones=dict(told.tombstones), suspended=dict(told.suspensions)
        )
        if reply.envelopes or reply.tombstones or reply.suspended:
            await self.send(told.device, reply)


def _view_request(state: State) -> messages.ViewRequest:
    view = state.view
    return messages.ViewRequest(
        versions={
            device: messages.Version(life=profile.life, revision=profile.revision)
            for device, profile in view.profiles.items()
        },
        tombstones=dict(view.tombstones),
        suspended=dict(view.suspensions),
    )
