"""What a message of another device means to the agreement: `event_of`."""

from typing import assert_never

from crowd.actors import inbox
from crowd.agreement import events
from crowd.protocol import messages
from crowd.units import DeviceId


def event_of(heard: inbox.AgreementMessage) -> events.Event | None:
    """The event that the agreement takes in; `None`: it is none for the agreement, or its sender speaks for another
    device."""
    sender = heard.sender
    match heard.message:
        case messages.AckMessage(ack=ack):
            return events.AckHeard(ack=ack) if ack.device == sender else None
        case messages.ProfileMessage(profile=profile):
            return events.Learned(profiles=(profile,), source=sender) if profile.device == sender else None
        case messages.Beat() as beat:
            return beat_heard(heard, beat)
        case messages.Evictions(lives=lives):
            return events.Learned(tombstones=lives, source=sender)
        case messages.Suspensions(devices=suspensions):
            return events.Learned(suspensions=suspensions, source=sender)
        case messages.ViewReply(tombstones=tombstones, suspended=suspensions):
            return events.Learned(tombstones=tombstones, suspensions=suspensions, source=sender)
        case messages.ViewRequest() as request:
            return _view_requested(sender, request)
        case messages.ProbeAnswer(life=life):
            return events.ProbeAnswered(device=sender, life=life)
        case messages.ProbeRequest() | messages.ResultMessage():
            return None  # the planner answers these itself
        case _:
            assert_never(heard.message)


def beat_heard(heard: inbox.AgreementMessage, beat: messages.Beat) -> events.BeatHeard:
    """The same of a heartbeat, as most of what comes in a large cluster is one."""
    return events.BeatHeard(
        device=heard.sender,
        life=beat.life,
        view_digest=beat.view_digest,
        generation=beat.generation,
        rtt_us=heard.rtt_us,
    )


def _view_requested(sender: DeviceId, request: messages.ViewRequest) -> events.ViewRequested:
    return events.ViewRequested(
        device=sender,
        versions={device: (version.life, version.revision) for device, version in request.versions.items()},
        tombstones=request.tombstones,
        suspensions=request.suspended,
    )
