"""Own lives and profiles, and what is learned of other devices: every change of the view."""

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

import attrs

from crowd.agreement.events import Departed, Freeze, PublishProfile, Resumed, SendView, Suspended, ViewRequested
from crowd.agreement.state import Retries, State
from crowd.agreement.suspension import Suspension
from crowd.agreement.turn import Turn
from crowd.agreement.view import View
from crowd.planning.profile import Profile
from crowd.units import SECOND_US, DeviceId, Life

T = TypeVar("T")


# --- this device ------------------------------------------------------------------------------------------------------


def connect(turn: Turn) -> None:
    """Publish anew what the broker may have forgotten; every clock restarts."""
    state = turn.state
    now_us, own_ack = state.now_us, state.acks.own_ack
    turn.state = attrs.evolve(
        state,
        view_changed_us=now_us,
        own=attrs.evolve(state.own, connected=True, beat_due_us=now_us),
        acks=attrs.evolve(state.acks, own_ack=own_ack and attrs.evolve(own_ack, given_us=now_us)),
        detector=attrs.evolve(
            state.detector,
            round_trip_us=None,
            probes_us={},
            heard_us=dict.fromkeys(state.detector.heard_us, now_us),
        ),
        retries=Retries(),
    )
    if state.own.returns_us is None and not _is_superseded(state):
        merge(turn, (state.own.profile,), {})
        turn.emit(PublishProfile(profile=state.own.profile))
        turn.publish_ack()


def disconnect(turn: Turn) -> None:
    """Suspect nobody, and trust no round trip any more: a broker that ends says of all that they are offline."""
    turn.own = attrs.evolve(turn.own, connected=False)
    turn.detector = attrs.evolve(turn.detector, round_trip_us=None, probes_us={}, offline=frozenset())


def publish_own(turn: Turn, profile: Profile) -> None:
    """Publish a new measurement of this device, as a further revision of its profile, if it differs from the last."""
    own = turn.own.profile
    started = turn.state.running or (own.started and profile.run == own.run)
    unfit = profile.unfit or own.unfit
    profile = attrs.evolve(profile, life=own.life, revision=own.revision, started=started, unfit=unfit)
    if profile == own:
        return
    profile = attrs.evolve(profile, revision=own.revision + 1)
    turn.own = attrs.evolve(turn.own, profile=profile)
    if turn.own.connected and turn.own.returns_us is None:
        merge(turn, (profile,), {})
        turn.emit(PublishProfile(profile=profile))


def refute(turn: Turn) -> None:
    """Begin a life above a profile of this device that it did not publish, or above its own eviction: as SWIM's
    incarnation numbers (Das, Gupta and Motivala, SWIM, 2002), but after a pause that grows with each eviction."""
    state = turn.state
    if not state.own.connected:
        return
    me, life = state.me, state.own.profile.life
    foreign = state.view.profiles.get(me, state.own.profile)
    if state.own.returns_us is not None:
        if state.now_us >= state.own.returns_us:
            turn.own = attrs.evolve(state.own, returns_us=None)
            _begin_life(turn, above=max(state.view.tombstones.get(me, life), life, foreign.life))
        return
    if state.view.is_evicted(me, life):
        times = state.own.times_evicted + 1
        turn.own = attrs.evolve(state.own, times_evicted=times, returns_us=state.now_us + _pause_us(state, times))
        stop(turn)
    elif _is_superseded(state):
        times = state.own.times_superseded
        turn.own = attrs.evolve(state.own, times_superseded=times + 1)
        stop(turn)
        if times:  # two devices with one name and key would outdo each other without end
            turn.own = attrs.evolve(turn.own, returns_us=state.now_us + _pause_us(state, times))
        else:
            _begin_life(turn, above=foreign.life)


def _pause_us(state: State, times: int) -> int:
    return min(SECOND_US << min(times, 20), state.timing.return_max_us)


def _is_superseded(state: State) -> bool:
    """Whether the view has a profile of this device that it did not publish, and that is not older than its own."""
    own = state.own.profile
    foreign = state.view.profiles.get(state.me, own)
    return foreign != own and foreign.version >= own.version


def _begin_life(turn: Turn, *, above: Life) -> None:
    own = turn.own.profile
    life = Life(incarnation=above.incarnation + 1, boot=own.life.boot)
    own = attrs.evolve(own, life=life, revision=0)
    turn.own = attrs.evolve(turn.own, profile=own)
    merge(turn, (own,), {})
    turn.emit(PublishProfile(profile=own))


def stop(turn: Turn) -> None:
    """Leave the active plan, and forget the own ack: it was of another life."""
    if turn.acks.active is not None:
        turn.emit(Freeze())
    turn.acks = attrs.evolve(turn.acks, active=None, own_ack=None)


# --- other devices ----------------------------------------------------------------------------------------------------


def merge(
    turn: Turn,
    profiles: tuple[Profile, ...],
    tombstones: Mapping[DeviceId, Life],
    suspensions: Mapping[DeviceId, Suspension] | None = None,
) -> None:
    """Merge into the view; a change of its living part, or of who is suspended, starts the debounce time anew."""
    state, before = turn.state, turn.state.view
    after = before.merge(profiles, tombstones, suspensions)
    if after is before:
        return
    turn.state = attrs.evolve(state, view=after)
    if after.suspended != before.suspended:
        turn.state = attrs.evolve(turn.state, view_changed_us=state.now_us)
        for device in sorted(after.suspended - before.suspended):
            turn.emit(Suspended(device=device))
        for device in sorted((before.suspended - after.suspended) & after.ring.keys()):
            turn.emit(Resumed(device=device))
        _say_that_it_runs(turn)
    told_of = {profile.device: None for profile in profiles} | dict.fromkeys(tombstones)
    lives = {device: (before.living_profile(device), after.living_profile(device)) for device in told_of}
    if all(known == profile for known, profile in lives.values()):
        return
    now_us, detector = state.now_us, state.detector
    # a new life is a sign of life, and nobody is silent before he is listened to; a departed one is no suspect any more
    fresh = {device for device in turn.state.watched if device in after.ring} - set(state.watched)
    for device, (known, profile) in lives.items():
        if profile is not None and (known is None or known.life != profile.life):
            fresh.add(device)
    heard_us = {**detector.heard_us, **dict.fromkeys(fresh, now_us)}
    probes_us = {device: due_us for device, due_us in detector.probes_us.items() if device not in fresh}
    detector = attrs.evolve(detector, heard_us=_of_living(heard_us, after), probes_us=_of_living(probes_us, after))
    turn.state = attrs.evolve(turn.state, view_changed_us=now_us, detector=detector)
    latest = _of_living(state.acks.latest, after)
    if latest is not state.acks.latest:
        tally = Counter((ack.generation, ack.view_digest) for ack in latest.values())
        turn.acks = attrs.evolve(turn.acks, latest=latest, tally=tally)
    _say_that_it_runs(turn)


def _say_that_it_runs(turn: Turn) -> None:
    """Publish that the run has started, if that is not known of this device: it rides on a change that others made, for
    alone it would not be worth a generation."""
    own = turn.own
    if turn.state.running and not own.profile.started and own.connected and own.returns_us is None:
        publish_own(turn, own.profile)


def _of_living(known: Mapping[DeviceId, T], view: View) -> Mapping[DeviceId, T]:
    """What is known of living devices; `known` itself if all are."""
    if known.keys() <= view.ring.keys():
        return known
    return {device: value for device, value in known.items() if device in view.ring}


def learn(
    turn: Turn,
    profiles: tuple[Profile, ...],
    tombstones: Mapping[DeviceId, Life],
    suspensions: Mapping[DeviceId, Suspension],
    source: DeviceId | None,
) -> None:
    """Take in profiles, tombstones and suspensions, and tell `source` of its eviction if it seems not to know."""
    view = turn.state.view
    evicted = any(profile.device == source and view.is_evicted(source, profile.life) for profile in profiles)
    merge(turn, profiles, tombstones, suspensions)
    if source is None:
        return
    for device in sorted(view.ring.keys() - turn.state.view.ring.keys() - {turn.state.me}):
        turn.emit(Departed(device=device, told_by=source))
    requests = turn.retries.view_requests
    if source in requests and requests[source].repeats:  # it has answered
        requests = {**requests, source: attrs.evolve(requests[source], repeats=0)}
        turn.retries = attrs.evolve(turn.retries, view_requests=requests)
    if evicted:
        tell_of_later_life(turn, source)


def tell_of_later_life(turn: Turn, device: DeviceId) -> None:
    """Tell a device that speaks in a former life, or in one that is evicted, of the latest that is known here, so that
    it begins a later one. Those who would watch it do so, and seldom: all that it said may have been recorded."""
    state, notices = turn.state, turn.state.retries.life_notices
    if device != state.me and state.watches(device) and turn.may_send(notices.get(device)):
        turn.retries = attrs.evolve(state.retries, life_notices={**notices, device: turn.sent(notices.get(device))})
        last = state.view.tombstones.get(device)
        profiles = (device,) if device in state.view.profiles else ()
        turn.emit(SendView(device=device, profiles=profiles, tombstones={} if last is None else {device: last}))


def answer_request(turn: Turn, request: ViewRequested) -> None:
    """Send what the asking device lacks, and ask it for what is lacking here. Resend the own ack if both know the same,
    since nothing else can be missing there."""
    view = turn.state.view
    newer = tuple(
        device
        for device, profile in sorted(view.profiles.items())
        if (device not in request.versions or profile.version > request.versions[device]) and view.is_living(device)
    )
    tombstones = {
        device: life
        for device, life in view.tombstones.items()
        if (device not in request.tombstones or life > request.tombstones[device]) and device in request.versions
    }
    suspensions = {
        device: suspension
        for device, suspension in view.suspensions.items()
        if device not in request.suspensions or suspension > request.suspensions[device]
    }
    if newer or tombstones or suspensions:
        turn.emit(SendView(device=request.device, profiles=newer, tombstones=tombstones, suspensions=suspensions))
    lacking = _lacks(view, request)
    if lacking:
        turn.ask_for_view(request.device)
    own_ack = turn.acks.own_ack
    if (
        not (newer or tombstones or suspensions or lacking)
        and own_ack is not None
        and own_ack.ack.view_digest == view.digest
    ):
        turn.resend_ack(request.device)


def _lacks(view: View, request: ViewRequested) -> bool:
    """Whether the asking device knows something that `view` does not."""
    if any(
        device not in view.suspensions or suspension > view.suspensions[device]
        for device, suspension in request.suspensions.items()
    ):
        return True
    return any(
        device not in view.profiles or version > view.profiles[device].version
        for device, version in request.versions.items()
        if not view.is_evicted(device, version[0])
    ) or any(
        device in view.profiles and life > view.tombstones.get(device, Life(incarnation=-1, boot=b""))
        for device, life in request.tombstones.items()
    )
