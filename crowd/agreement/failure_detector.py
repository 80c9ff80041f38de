"""Who is suspected, probed and evicted: every change of the failure detector but those by heartbeats.

Timeouts double after each false suspicion (Chandra and Toueg, Unreliable failure detectors for reliable distributed
systems, 1996). A device that does not hear itself through the broker evicts nobody.
"""

from collections.abc import Iterable

import attrs

from crowd.agreement import predicates, views
from crowd.agreement.events import Evicted, PublishEvictions, SendProbe
from crowd.agreement.state import Ballot, Eviction
from crowd.agreement.turn import Turn
from crowd.units import DeviceId, Life

# --- signs of life ----------------------------------------------------------------------------------------------------


def is_evicted_alive(turn: Turn, device: DeviceId, life: Life) -> bool:
    """Whether this life was evicted, though it shows signs of life. Those who would watch it tell it: if two devices
    have evicted each other, and the messages were lost, nothing else would bring them together again."""
    state = turn.state
    last = state.view.tombstones.get(device)
    if device == state.me or last is None or life > last:
        return False
    if not state.view.is_living(device):  # else it has begun another life since
        views.tell_of_later_life(turn, device)
    return True


def note_sign_of_life(turn: Turn, device: DeviceId) -> None:
    """Suspect `device` no longer."""
    detector = turn.detector
    turn.detector = attrs.evolve(
        detector,
        heard_us={**detector.heard_us, device: turn.state.now_us},
        offline=detector.offline - {device},
        probes_us={suspect: due_us for suspect, due_us in detector.probes_us.items() if suspect != device},
    )


def note_status(turn: Turn, device: DeviceId, *, online: bool) -> None:
    """Note whether `device` is said to be online."""
    offline = turn.detector.offline - {device} if online else turn.detector.offline | {device}
    turn.detector = attrs.evolve(turn.detector, offline=offline)


def hear_probe_answer(turn: Turn, device: DeviceId, life: Life) -> None:
    """Take a sign of life that was asked for."""
    suspect = turn.state.view.profiles.get(device)
    note_late_answer(turn, device, life, None)
    if not is_evicted_alive(turn, device, life) and suspect is not None and life >= suspect.life:
        note_sign_of_life(turn, device)


def note_late_answer(turn: Turn, device: DeviceId, life: Life, answers: Ballot | None) -> None:
    """Count a false suspicion if `life` was evicted for not giving this answer: its ack of a ballot, or with `None` any
    answer to a probe. Timeouts that grow with false suspicions end them, whatever time messages take."""
    state = turn.state
    eviction = state.detector.evictions.get(device)
    if eviction is None or eviction.life != life or eviction.awaited != answers:
        return
    if eviction.at_us <= state.detector.false_suspicion_us:
        return
    suspicions = min(state.backoff_exponent + 1, state.timing.backoff_exponent_max)
    turn.detector = attrs.evolve(turn.detector, false_suspicions=suspicions, false_suspicion_us=state.now_us)


# --- silence ----------------------------------------------------------------------------------------------------------


def probe_suspects(turn: Turn) -> None:
    """Probe those of the watched who are said to be offline, or whose heartbeat this device should have heard. A few
    who ask are enough: were it all, each departure would cost the square of their number in messages."""
    state = turn.state
    if not state.has_round_trip:
        return
    detector, silence_us = state.detector, state.silence_us
    for device in sorted(state.watched):
        silent = device in detector.heard_us and state.now_us - detector.heard_us[device] >= silence_us
        if (silent or device in detector.offline) and device != state.me and device not in detector.probes_us:
            _probe(turn, device)


def _probe(turn: Turn, device: DeviceId) -> None:
    due_us = turn.state.now_us + turn.state.probe_timeout_us(device)
    turn.detector = attrs.evolve(turn.detector, probes_us={**turn.detector.probes_us, device: due_us})
    turn.emit(SendProbe(device=device))


def evict_overdue(turn: Turn) -> None:
    """Evict the devices that left a probe unanswered, or a plan unacknowledged, beyond the timeout."""
    state = turn.state
    if not state.has_round_trip:
        return
    silent = [device for device, due_us in sorted(state.detector.probes_us.items()) if state.now_us >= due_us]
    _evict(turn, silent, "it did not answer")
    state = turn.state
    own_ack = state.acks.own_ack
    if own_ack is not None and state.now_us - own_ack.given_us >= state.ack_timeout_us:
        is_beyond_any_round = state.now_us - own_ack.given_us >= state.ack_timeout_max_us
        missing = predicates.missing_acks(state)
        overdue = [
            device for device in missing if is_beyond_any_round or not predicates.may_be_in_a_round(state, device)
        ]
        _evict(turn, overdue, "it did not agree to the plan", own_ack.ballot)


def hear_of_silent_owner(turn: Turn, device: DeviceId) -> None:
    """Probe an owner whose slice has not come, and that says nothing to that; now and then again, while it answers."""
    state = turn.state
    probed_us = state.detector.silent_us.get(device)
    if not state.has_round_trip or not state.view.is_living(device) or device in state.detector.probes_us:
        return
    if probed_us is None or state.now_us - probed_us >= state.timing.retry_us + state.probe_timeout_us(device):
        turn.detector = attrs.evolve(state.detector, silent_us={**state.detector.silent_us, device: state.now_us})
        _probe(turn, device)


def _evict(turn: Turn, devices: Iterable[DeviceId], reason: str, awaited: Ballot | None = None) -> None:
    """Evict the living ones of these devices, all in one message."""
    state = turn.state
    if not state.has_round_trip:
        return
    lives = {
        device: state.view.profiles[device].life
        for device in devices
        if device != state.me and state.view.is_living(device)
    }
    if not lives:
        return
    evictions = {device: Eviction(life=life, at_us=state.now_us, awaited=awaited) for device, life in lives.items()}
    turn.detector = attrs.evolve(
        state.detector,
        offline=state.detector.offline - lives.keys(),
        evictions={**state.detector.evictions, **evictions},
    )
    views.merge(turn, (), lives)
    for device in lives:
        turn.emit(Evicted(device=device, reason=reason))
    turn.emit(PublishEvictions(lives=lives))
