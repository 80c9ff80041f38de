"""The way into the agreement: `step(state, event, decide)`, a pure function, and short cuts for what changes little.

Layout: `step`; `note` and `note_beat` (messages from which nothing follows); `next_deadline_us` (when to send the next
`Tick`). Times are integer microseconds of any monotonic clock; the caller owns the clock, the network and the memory of
signed envelopes.
"""

from collections.abc import Iterator
from typing import TypeAlias, assert_never

import attrs

from crowd.agreement import acks, failure_detector, heartbeats, predicates, stalls, views
from crowd.agreement.ack import StateProgress
from crowd.agreement.events import (
    AckHeard,
    BeatHeard,
    Connected,
    Disconnected,
    Effect,
    Event,
    FormerLifeHeard,
    HeldUp,
    Learned,
    OwnerSilent,
    OwnProfile,
    ProbeAnswered,
    Progressed,
    RoundAccepted,
    RoundReady,
    StateReached,
    StatusHeard,
    Tick,
    ViewRequested,
)
from crowd.agreement.state import Decide, State
from crowd.agreement.turn import Turn

Stepped: TypeAlias = tuple[State, tuple[Effect, ...]]
Notable: TypeAlias = AckHeard | StatusHeard
"""The events that `note` may take in."""


def step(state: State, event: Event, decide: Decide, *, now_us: int) -> Stepped:
    """The state after `event` at `now_us`, and what is to be done, in this order. Pure; time never runs backwards."""
    now_us = max(now_us, state.now_us)
    if isinstance(event, Notable) and (noted := note(state, event)) is not None:
        return attrs.evolve(noted, now_us=now_us), ()
    turn = Turn(attrs.evolve(state, now_us=now_us), decide)
    stalls.notice_sleep(turn)
    round_complete = _take_in(turn, event)
    views.refute(turn)
    stalls.answer_own(turn)
    failure_detector.probe_suspects(turn)
    failure_detector.evict_overdue(turn)
    acks.give(turn, round_complete=round_complete)
    acks.activate(turn)
    _ask_for_unknown_view(turn)
    acks.ask_for_missing(turn)
    heartbeats.send_due(turn)
    return turn.state, tuple(turn.effects)


def note(state: State, heard: Notable) -> State | None:
    """The state after an ack from which nothing follows but that there is one less to wait for, or after it was said
    that somebody is online who was: nearly all that a large cluster says. Nothing is due earlier than before. `None` if
    it is for `step` to see what follows."""
    if isinstance(heard, AckHeard):
        if not predicates.ack_changes_nothing_yet(state, heard.ack):
            return None
        return attrs.evolve(state, acks=acks.noted(state.acks, heard.ack))
    return state if heard.online == (heard.device not in state.detector.offline) else None


def note_beat(state: State, beat: BeatHeard, *, now_us: int) -> State | None:
    """The state after a heartbeat that only says that its sender lives; `None` if it is for `step` to see what follows.
    Nothing is due earlier than before."""
    if not predicates.beat_says_nothing_new(state, beat):
        return None
    now_us = max(now_us, state.now_us)
    heard_us = {**state.detector.heard_us, beat.device: now_us}
    return attrs.evolve(state, now_us=now_us, detector=attrs.evolve(state.detector, heard_us=heard_us))


def _take_in(turn: Turn, event: Event) -> bool:
    """Put the event into the state; whether it completed a round."""
    match event:
        case Tick():
            pass
        case Connected():
            views.connect(turn)
        case Disconnected():
            views.disconnect(turn)
        case OwnProfile(profile=profile):
            views.publish_own(turn, profile)
        case Learned(profiles=profiles, tombstones=tombstones, suspensions=suspensions, source=source):
            views.learn(turn, profiles, tombstones, suspensions, source)
            stalls.doubt(turn)
        case AckHeard(ack=ack):
            acks.hear(turn, ack)
        case BeatHeard():
            heartbeats.hear(turn, event)
        case StatusHeard(device=device, online=online):
            failure_detector.note_status(turn, device, online=online)
        case ProbeAnswered(device=device, life=life):
            failure_detector.hear_probe_answer(turn, device, life)
        case FormerLifeHeard(device=device):
            views.tell_of_later_life(turn, device)
        case ViewRequested():
            views.answer_request(turn, event)
        case OwnerSilent(device=device):
            failure_detector.hear_of_silent_owner(turn, device)
        case HeldUp():
            stalls.hear(turn, event)
        case Progressed():
            stalls.hear_of_progress(turn)
        case StateReached(progress=progress):
            _reach(turn, progress)
        case RoundReady():
            return _accept_round(turn, event)
        case _:
            assert_never(event)
    return False


def _accept_round(turn: Turn, ready: RoundReady) -> bool:
    """Accept a round of the active plan, unless a later plan is acked; whether it was accepted."""
    active = turn.acks.active
    if active is None or ready.generation != active.generation or turn.state.frozen:
        return False
    _reach(turn, ready.progress)
    turn.detector = attrs.evolve(turn.detector, silent_us={})
    stalls.note_round(turn, active.plan, ready.senders)
    turn.emit(RoundAccepted(progress=ready.progress))
    return True


def _reach(turn: Turn, progress: StateProgress) -> None:
    finished_us = turn.state.now_us if progress.finished else None
    turn.own = attrs.evolve(turn.own, progress=progress, finished_us=finished_us)


def _ask_for_unknown_view(turn: Turn) -> None:
    """Ask the device whose ack shows that it knows more, once the own view has settled."""
    state = turn.state
    settled = state.now_us - state.view_changed_us >= state.timing.debounce_us
    if state.own.connected and settled and state.own.returns_us is None:
        device = predicates.most_advanced_stranger(state)
        if device is not None:
            turn.ask_for_view(device)


# --- deadlines --------------------------------------------------------------------------------------------------------


def next_deadline_us(state: State) -> int | None:
    """The time at which something will be due without any event, for the next `Tick`; `None` while disconnected."""
    if not state.own.connected:
        return None
    due = [state.own.beat_due_us]
    if state.own.returns_us is not None:
        due.append(state.own.returns_us)
    if state.stalls.lifts_us is not None:
        due.append(state.stalls.lifts_us)
    settled_us = state.view_changed_us + state.debounce_us
    if state.now_us < settled_us:
        due.append(settled_us)
    if state.has_round_trip:  # else nobody is suspected, and nobody evicted
        due.extend(_suspicions_us(state))
        due.extend(_ack_timeouts_us(state))
    stranger = predicates.most_advanced_stranger(state)
    if stranger is not None and state.own.returns_us is None:
        asked = state.retries.view_requests.get(stranger)
        again_us = state.now_us if asked is None else asked.due_us(state.timing, state.detector.rtt_us)
        due.append(max(again_us, state.view_changed_us + state.timing.debounce_us))
    return max(min(due), state.now_us)


def _suspicions_us(state: State) -> Iterator[int]:
    """The times at which probes are overdue, and watched devices become suspect."""
    detector, silence_us = state.detector, state.silence_us
    yield from detector.probes_us.values()
    for device in state.watched:
        if device != state.me and device in detector.heard_us and device not in detector.probes_us:
            yield detector.heard_us[device] + silence_us


def _ack_timeouts_us(state: State) -> Iterator[int]:
    """The times to ask for missing acks, and to wait for them no longer."""
    own_ack = state.acks.own_ack
    if own_ack is not None and predicates.is_waiting(state):
        yield state.missing_due_us
        is_brief = state.now_us - own_ack.given_us < state.ack_timeout_us
        yield own_ack.given_us + (state.ack_timeout_us if is_brief else state.ack_timeout_max_us)
