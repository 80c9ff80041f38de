"""How devices agree on a plan without a leader (design, section 4): `step(state, event, decide)`, a pure function.

Layout: `step` and what it is made of: `_learn` (views), `_watch` and `_bury` (departure), `_ack` (promises),
`_activate` (a plan begins) and `_beat` (heartbeats); `note` and `note_beat` are short cuts for what nothing follows
from. `next_deadline_us` says when to send the next `Tick`. Times are integer microseconds of any monotonic clock; the
caller owns the clock, the network and the memory of signed envelopes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar, assert_never

import attrs

from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.events import (
    AckHeard,
    Activate,
    AskView,
    BeatHeard,
    Buried,
    Connected,
    Disconnected,
    Effect,
    Event,
    Excluded,
    Freeze,
    Learned,
    OwnerSilent,
    OwnProfile,
    ProbeAnswered,
    PublishAck,
    PublishBurials,
    PublishProfile,
    RoundAccepted,
    RoundReady,
    SendAck,
    SendBeat,
    SendProbe,
    SendView,
    StateReached,
    StatusHeard,
    Tick,
    ViewRequested,
)
from crowd.agreement.state import ASKED_AT_ONCE, Active, Burial, Decide, Promise, Said, State, Vote
from crowd.agreement.view import View
from crowd.planning.plan import Member
from crowd.planning.profile import Profile, Share
from crowd.units import SECOND_US, DeviceId, Life

_STRICTNESS = {Share.RAW: 0, Share.FEATURES: 1, Share.NEVER: 2}

T = TypeVar("T")
Stepped: TypeAlias = tuple[State, tuple[Effect, ...]]
Notable: TypeAlias = AckHeard | StatusHeard
"""What `note` may take in."""


class _Turn:
    """One call of `step`: the state as it develops, and the effects so far."""

    def __init__(self, state: State, decide: Decide) -> None:
        self.state = state
        self.decide = decide
        self.effects: list[Effect] = []

    def set(self, **changes: object) -> None:
        self.state = self.state.having(**changes)

    def emit(self, effect: Effect) -> None:
        self.effects.append(effect)


def step(state: State, event: Event, decide: Decide, *, now_us: int) -> Stepped:
    """The state after `event` at `now_us`, and what is to be done, in this order. Pure; time never runs backwards."""
    now_us = max(now_us, state.now_us)
    if isinstance(event, Notable) and (noted := note(state, event)) is not None:
        return noted.having(now_us=now_us), ()
    turn = _Turn(state.having(now_us=now_us), decide)
    round_complete = _take_in(turn, event)
    _rise_above(turn)
    _watch(turn)
    _bury_the_overdue(turn)
    _ack(turn, round_complete=round_complete)
    _activate(turn)
    _ask_for_views(turn)
    _ask_for_promises(turn)
    _beat(turn)
    return turn.state, tuple(turn.effects)


def note(state: State, heard: Notable) -> State | None:
    """The state after an ack from which nothing follows but that there is one less to wait for, or after it was said
    that somebody is online who was: nearly all that a large cluster says. Nothing is due earlier than before. `None` if
    it is for `step` to see what follows."""
    if isinstance(heard, AckHeard):
        return state.having(**_noted(state, heard.ack)) if _follows_nothing(state, heard.ack) else None
    return state if heard.online == (heard.device not in state.offline) else None


def note_beat(state: State, beat: BeatHeard, *, now_us: int) -> State | None:
    """The same for a heartbeat that says nothing new."""
    if not _says_nothing_new(state, beat):
        return None
    now_us = max(now_us, state.now_us)
    return state.having(now_us=now_us, heard_us={**state.heard_us, beat.device: now_us})


def _take_in(turn: _Turn, event: Event) -> bool:
    """Put the event into the state; whether it completed a round."""
    match event:
        case Tick():
            pass
        case Connected():
            _connect(turn)
        case Disconnected():
            turn.set(connected=False, echoed_us=None, probes_us={})
        case OwnProfile(profile=profile):
            _publish_own(turn, profile)
        case Learned(profiles=profiles, buried=buried, source=source):
            _learn(turn, profiles, buried, source)
        case AckHeard(ack=ack):
            _hear_ack(turn, ack)
        case BeatHeard():
            _hear_beat(turn, event)
        case StatusHeard(device=device, online=online):
            known = turn.state.offline - {device} if online else turn.state.offline | {device}
            turn.set(offline=known)
        case ProbeAnswered(device=device, life=life):
            suspect = turn.state.view.profiles.get(device)
            _note_late_answer(turn, device, life, None)
            if not _is_told_of_burial(turn, device, life) and suspect is not None and life >= suspect.life:
                _alive(turn, device)
        case ViewRequested():
            _answer_view(turn, event)
        case OwnerSilent(device=device):
            _hear_of_silence(turn, device)
        case StateReached(progress=progress):
            _reach(turn, progress)
        case RoundReady(generation=generation, progress=progress):
            state = turn.state
            if state.active is not None and generation == state.active.generation and not state.frozen:
                _reach(turn, progress)
                turn.set(silent_us={})
                turn.emit(RoundAccepted(progress=progress))
                return True
        case _:
            assert_never(event)
    return False


def _reach(turn: _Turn, progress: StateProgress) -> None:
    finished_us = turn.state.now_us if progress.finished else None
    turn.set(progress=progress, finished_us=finished_us)


def next_deadline_us(state: State) -> int | None:
    """When something will be due without any event; `None` while disconnected."""
    if not state.connected:
        return None
    due = [state.beat_due_us]
    if state.returns_us is not None:
        due.append(state.returns_us)
    rested_us = state.changed_us + state.rest_us
    if state.now_us < rested_us:
        due.append(rested_us)
    if state.echoing:  # else nobody is suspected, and nobody buried
        due.extend(state.probes_us.values())
        silence_us = state.silence_us
        due.extend(
            state.heard_us[device] + silence_us
            for device in state.watched
            if device != state.me and device in state.heard_us and device not in state.probes_us
        )
        if state.promise is not None and _is_waiting(state):
            due.append(state.missed_due_us)
            waited_us = state.now_us - state.promise.given_us
            is_brief = waited_us < state.ack_patience_us
            due.append(state.promise.given_us + (state.ack_patience_us if is_brief else state.ack_patience_max_us))
    differing = _differing(state)
    if differing is not None and state.returns_us is None:
        asked = state.asked.get(differing)
        again_us = state.now_us if asked is None else asked.again_us(state.timing, state.lag_us)
        due.append(max(again_us, state.changed_us + state.timing.rest_us))
    return max(min(due), state.now_us)


# --- own life and views -----------------------------------------------------------------------------------------------


def _connect(turn: _Turn) -> None:
    """Rebuild what the broker may have forgotten; every clock restarts."""
    state = turn.state
    turn.set(
        connected=True,
        echoed_us=None,
        beat_due_us=state.now_us,
        probes_us={},
        asked={},
        told={},
        said_us=None,
        heard_us=dict.fromkeys(state.heard_us, state.now_us),
        changed_us=state.now_us,
        promise=state.promise and attrs.evolve(state.promise, given_us=state.now_us),
        missed=None,
    )
    if state.returns_us is None and not _is_outlived(state):
        _merge(turn, (state.own,), {})
        turn.emit(PublishProfile(profile=state.own))
        _say(turn)


def _publish_own(turn: _Turn, profile: Profile) -> None:
    own = turn.state.own
    started = turn.state.running or (own.started and profile.run == own.run)
    unfit = profile.unfit or own.unfit
    profile = attrs.evolve(profile, life=own.life, revision=own.revision, started=started, unfit=unfit)
    if profile == own:
        return
    profile = attrs.evolve(profile, revision=own.revision + 1)
    turn.set(own=profile)
    if turn.state.connected and turn.state.returns_us is None:
        _merge(turn, (profile,), {})
        turn.emit(PublishProfile(profile=profile))


def _merge(turn: _Turn, profiles: tuple[Profile, ...], buried: Mapping[DeviceId, Life]) -> None:
    """Merge into the view; a change of what lives starts the rest time anew."""
    state, before = turn.state, turn.state.view
    after = before.merge(profiles, buried)
    if after is before:
        return
    turn.set(view=after)
    told_of = {profile.device: None for profile in profiles} | dict.fromkeys(buried)
    lives = {device: (before.living_profile(device), after.living_profile(device)) for device in told_of}
    if all(known == profile for known, profile in lives.values()):
        return
    now = state.now_us
    # a new life is a sign of life, and nobody is silent before he is listened to; a departed one is no suspect any more
    fresh = {device for device in turn.state.watched if device in after.ring} - set(state.watched)
    for device, (known, profile) in lives.items():
        if profile is not None and (known is None or known.life != profile.life):
            fresh.add(device)
    heard_us = {**state.heard_us, **dict.fromkeys(fresh, now)}
    probes_us = {device: due for device, due in state.probes_us.items() if device not in fresh}
    turn.set(changed_us=now, heard_us=_of_living(heard_us, after), probes_us=_of_living(probes_us, after))
    acks = _of_living(state.acks, after)
    if acks is not state.acks:
        turn.set(acks=acks, votes=Counter((ack.generation, ack.view_digest) for ack in acks.values()))
    own = turn.state.own
    if turn.state.running and not own.started and turn.state.connected and turn.state.returns_us is None:
        # rides on a change that others made: alone it would not be worth a generation
        _publish_own(turn, own)


def _of_living(known: Mapping[DeviceId, T], view: View) -> Mapping[DeviceId, T]:
    """Without what is known of the dead; `known` itself if there is none."""
    if known.keys() <= view.ring.keys():
        return known
    return {device: value for device, value in known.items() if device in view.ring}


def _learn(
    turn: _Turn, profiles: tuple[Profile, ...], buried: Mapping[DeviceId, Life], source: DeviceId | None
) -> None:
    state = turn.state
    stale = any(
        profile.device == source
        and source in state.view.profiles
        and (profile.version < state.view.profiles[source].version or state.view.is_buried(source, profile.life))
        for profile in profiles
    )
    _merge(turn, profiles, buried)
    asked = None if source is None else turn.state.asked.get(source)
    if source is not None and asked is not None and asked.times:
        turn.set(asked={**turn.state.asked, source: attrs.evolve(asked, times=0)})  # it has answered
    if stale and source is not None and turn.state.watches(source):
        # it has come back under its old name and does not know of its former life, or of its burial
        turn.emit(SendView(device=source, profiles=(source,), buried=dict(turn.state.view.buried)))


def _rise_above(turn: _Turn) -> None:
    """Go above a profile of this device that it did not publish, and above its own burial."""
    state = turn.state
    if not state.connected:
        return
    me, own = state.me, state.own
    foreign = state.view.profiles.get(me, own)
    if state.returns_us is not None:
        if state.now_us >= state.returns_us:
            turn.set(returns_us=None)
            _begin_life(turn, above=max(state.view.buried.get(me, own.life), own.life, foreign.life))
        return
    if state.view.is_buried(me, own.life):
        pause_us = min(SECOND_US << min(state.times_buried + 1, 20), state.timing.return_max_us)
        turn.set(times_buried=state.times_buried + 1, returns_us=state.now_us + pause_us)
        _stop(turn)
    elif _is_outlived(state):
        _stop(turn)
        _begin_life(turn, above=foreign.life)


def _is_outlived(state: State) -> bool:
    """Whether the view has a profile of this device that it did not publish, and that is not older than its own."""
    foreign = state.view.profiles.get(state.me, state.own)
    return foreign != state.own and foreign.version >= state.own.version


def _begin_life(turn: _Turn, *, above: Life) -> None:
    own = turn.state.own
    life = Life(incarnation=above.incarnation + 1, boot=own.life.boot)
    own = attrs.evolve(own, life=life, revision=0)
    turn.set(own=own)
    _merge(turn, (own,), {})
    turn.emit(PublishProfile(profile=own))


def _stop(turn: _Turn) -> None:
    """Leave the active plan and every promise: they were of another life."""
    if turn.state.active is not None:
        turn.emit(Freeze())
    turn.set(active=None, promise=None)


def _answer_view(turn: _Turn, request: ViewRequested) -> None:
    view = turn.state.view
    newer = tuple(
        device
        for device, profile in sorted(view.profiles.items())
        if (device not in request.versions or profile.version > request.versions[device]) and view.is_living(device)
    )
    burials = {
        device: life
        for device, life in view.buried.items()
        if (device not in request.buried or life > request.buried[device]) and device in request.versions
    }
    if newer or burials:
        turn.emit(SendView(device=request.device, profiles=newer, buried=burials))
    lacking = any(
        device not in view.profiles or version > view.profiles[device].version
        for device, version in request.versions.items()
        if not view.is_buried(device, version[0])
    ) or any(
        device in view.profiles and life > view.buried.get(device, Life(incarnation=-1, boot=b""))
        for device, life in request.buried.items()
    )
    if lacking:
        _ask(turn, request.device)
    promise = turn.state.promise
    if not (newer or burials or lacking) and promise is not None and promise.ack.view_digest == view.digest:
        _repeat(turn, request.device)  # what else could be missing there


def _ask(turn: _Turn, device: DeviceId) -> None:
    asked = turn.state.asked
    if _may_say_again(turn.state, asked.get(device)):
        turn.set(asked={**asked, device: _said_now(turn.state, asked.get(device))})
        turn.emit(AskView(device=device))


def _may_say_again(state: State, said: Said | None) -> bool:
    return said is None or state.now_us >= said.again_us(state.timing, state.lag_us)


def _said_now(state: State, said: Said | None) -> Said:
    return Said(at_us=state.now_us) if said is None else said.repeated(state.timing, state.lag_us, state.now_us)


def _differing(state: State) -> DeviceId | None:
    """Whose promise shows that it knows something that this device lacks: the most advanced, by lowest ID. The view of
    this device's own promise is no news to it, whatever it has learned since."""
    mine, known = (0, b"") if state.promise is None else (state.promise.ack.generation, state.promise.ack.view_digest)
    unknown = {vote for vote in state.votes if vote[0] >= mine and vote[1] != known}
    if all(view_digest == state.view.digest for _, view_digest in unknown):
        return None
    ahead = [
        (-ack.generation, device)
        for device, ack in state.acks.items()
        if (ack.generation, ack.view_digest) in unknown
        and ack.view_digest != state.view.digest
        and state.view.is_living(device)
    ]
    return min(ahead)[1] if ahead else None


def _ask_for_views(turn: _Turn) -> None:
    state = turn.state
    rested = state.now_us - state.changed_us >= state.timing.rest_us
    if state.connected and rested and state.returns_us is None:
        device = _differing(state)
        if device is not None:
            _ask(turn, device)


def _ask_for_promises(turn: _Turn) -> None:
    """A promise that was lost would not be said again for long: who waits for some asks for them after a while."""
    state = turn.state
    if state.promise is None or not state.connected or state.now_us < state.missed_due_us:
        return
    missing = tuple(_missing_acks(state))
    if missing:
        turn.set(missed=_said_now(state, state.missed))
        longest_ago = sorted(missing, key=lambda device: state.asked[device].at_us if device in state.asked else -1)
        for device in longest_ago[:ASKED_AT_ONCE]:
            _ask(turn, device)


# --- departure --------------------------------------------------------------------------------------------------------


def _is_told_of_burial(turn: _Turn, device: DeviceId, life: Life) -> bool:
    """Whether this life was buried, though it shows signs of life: it has not heard of it, and those who would watch it
    tell it. If two have buried each other, and the words were lost, nothing else would bring them together again."""
    buried = turn.state.view.buried.get(device)
    if device == turn.state.me or buried is None or life > buried:
        return False
    state, told = turn.state, turn.state.told
    knows = state.view.is_living(device)  # for it has begun another life since
    if not knows and state.watches(device) and _may_say_again(state, told.get(device)):
        turn.set(told={**told, device: _said_now(turn.state, told.get(device))})
        turn.emit(SendView(device=device, profiles=(), buried={device: buried}))
    return True


def _alive(turn: _Turn, device: DeviceId) -> None:
    state = turn.state
    turn.set(
        heard_us={**state.heard_us, device: state.now_us},
        offline=state.offline - {device},
        probes_us={suspect: due for suspect, due in state.probes_us.items() if suspect != device},
    )


def _watch(turn: _Turn) -> None:
    """Probe those of the watched who are said to be offline, or whose heartbeat this device should have heard. A few
    who ask are enough: were it all, each departure would cost the square of their number in messages."""
    state = turn.state
    if not state.echoing:
        return
    silence_us = state.silence_us
    for device in sorted(state.watched):
        silent = device in state.heard_us and state.now_us - state.heard_us[device] >= silence_us
        if (silent or device in state.offline) and device != state.me and device not in state.probes_us:
            turn.set(probes_us={**turn.state.probes_us, device: state.now_us + state.probe_patience_us})
            turn.emit(SendProbe(device=device))


def _missing_acks(state: State) -> Iterator[DeviceId]:
    """Living members whose matching ack this device's promise still waits for."""
    promise = state.promise
    if promise is None or (state.active is not None and state.active.generation >= promise.ack.generation):
        return
    for member in promise.plan.members:
        if not _matches(state.acks.get(member.device), promise.ack, member.life) and _is_awaited(state, member):
            yield member.device


def _is_awaited(state: State, member: Member) -> bool:
    """Whether that life of another device is still there to give its ack."""
    living = state.view.is_living(member.device) and state.view.profiles[member.device].life == member.life
    return living and member.device != state.me


def _is_waiting(state: State) -> bool:
    promise = state.promise
    if promise is not None and promise.ack.view_digest == state.view.digest and _awaits_several(state, promise):
        return True  # the members of that plan are all there
    return any(True for _ in _missing_acks(state))


def _bury_the_overdue(turn: _Turn) -> None:
    state = turn.state
    if not state.echoing:
        return
    silent = [device for device, due_us in sorted(state.probes_us.items()) if state.now_us >= due_us]
    _bury(turn, silent, "it did not answer")
    state = turn.state
    if state.promise is not None and state.now_us - state.promise.given_us >= state.ack_patience_us:
        awaited = (state.promise.ack.generation, state.promise.ack.view_digest)
        is_beyond_all_patience = state.now_us - state.promise.given_us >= state.ack_patience_max_us
        missing = _missing_acks(state)
        overdue = [device for device in missing if is_beyond_all_patience or not _may_be_in_a_round(state, device)]
        _bury(turn, overdue, "it did not agree to the plan", awaited)


def _may_be_in_a_round(state: State, device: DeviceId) -> bool:
    """Whether this life has made another promise before: it may have begun that plan."""
    ack = state.acks.get(device)
    return ack is not None and ack.life == state.view.profiles[device].life


def _bury(turn: _Turn, devices: Iterable[DeviceId], reason: str, awaited: Vote | None = None) -> None:
    state = turn.state
    if not state.echoing:
        return
    lives = {
        device: state.view.profiles[device].life
        for device in devices
        if device != state.me and state.view.is_living(device)
    }
    if not lives:
        return
    burials = {device: Burial(life=life, at_us=state.now_us, awaited=awaited) for device, life in lives.items()}
    turn.set(offline=state.offline - lives.keys(), burials={**state.burials, **burials})
    _merge(turn, (), lives)
    for device in lives:
        turn.emit(Buried(device=device, reason=reason))
    turn.emit(PublishBurials(buried=lives))


def _hear_of_silence(turn: _Turn, device: DeviceId) -> None:
    """An owner's slice has not come, and it says nothing to that."""
    state = turn.state
    since_us = state.silent_us.get(device, state.now_us)
    turn.set(silent_us={**state.silent_us, device: since_us})
    if state.now_us - since_us >= state.owner_patience_us:
        _bury(turn, (device,), "its slice did not come")


def _note_late_answer(turn: _Turn, device: DeviceId, life: Life, answers: Vote | None) -> None:
    """The answer that a life was buried for not giving has come, or any to a probe: this device was too impatient, for
    everything takes longer than was thought. Patience that grows with such mistakes ends them, whatever time words take
    (Chandra and Toueg, Unreliable failure detectors for reliable distributed systems, 1996)."""
    state = turn.state
    burial = state.burials.get(device)
    if burial is None or burial.life != life or burial.awaited != answers or burial.at_us <= state.mistaken_us:
        return
    mistakes = min(state.doublings + 1, state.timing.doublings_max)
    turn.set(mistakes=mistakes, mistaken_us=state.now_us)


# --- promises ---------------------------------------------------------------------------------------------------------


def _matches(theirs: Ack | None, mine: Ack, life: Life) -> bool:
    return (
        theirs is not None
        and theirs.generation == mine.generation
        and theirs.life == life
        and theirs.view_digest == mine.view_digest
        and theirs.plan_digest == mine.plan_digest
    )


def _hear_ack(turn: _Turn, ack: Ack) -> None:
    state = turn.state
    if ack.device == state.me:
        turn.set(generation_known=max(state.generation_known, ack.generation))
        return
    profile = state.view.profiles.get(ack.device)
    _note_late_answer(turn, ack.device, ack.life, (ack.generation, ack.view_digest))
    if not _is_told_of_burial(turn, ack.device, ack.life) and (profile is None or ack.life > profile.life):
        _ask(turn, ack.device)
    known = state.acks.get(ack.device)
    if known is None or (ack.life, ack.generation) > (known.life, known.generation):
        turn.set(generation_known=max(state.generation_known, ack.generation), **_noted(state, ack))


def _noted(state: State, ack: Ack) -> dict[str, Any]:
    """What changes in `state` with a new ack of another device."""
    votes = dict(state.votes)
    vote, known = (ack.generation, ack.view_digest), state.acks.get(ack.device)
    votes[vote] = votes.get(vote, 0) + 1
    if known is not None:
        before = (known.generation, known.view_digest)
        votes[before] -= 1
        if votes[before] == 0:
            del votes[before]
    return {"acks": {**state.acks, ack.device: ack}, "votes": votes}


def _follows_nothing(state: State, ack: Ack) -> bool:
    """Whether a member only says again what is known, or gives a first matching ack while others are still missing."""
    promise, profile = state.promise, state.view.living_profile(ack.device)
    if promise is None or profile is None or not _matches(ack, promise.ack, profile.life):
        return False
    known = state.acks.get(ack.device)
    return (_awaits_several(state, promise) and not _matches(known, promise.ack, ack.life)) or known == ack


def _awaits_several(state: State, promise: Promise) -> bool:
    """Whether more than one member's matching ack is missing for certain: there are fewer for that view at all."""
    if state.active is not None and state.active.generation >= promise.ack.generation:
        return False
    votes = state.votes.get((promise.ack.generation, promise.ack.view_digest), 0)
    return len(promise.plan.members) - 1 - votes > 1


def _ack(turn: _Turn, *, round_complete: bool) -> None:
    """Promise to follow the plan of the present view, where the rules allow it now."""
    state = turn.state
    if not state.connected or state.returns_us is not None or not state.view.is_living(state.me):
        return
    if state.view.profiles[state.me] != state.own:
        return  # the view names another life of this device: its promises are not this one's to give
    if state.progress.run != state.own.run:
        return  # the state of this run is still being made, and an ack names the state that its device holds
    if state.now_us - state.changed_us < state.rest_us or any(map(state.view.is_living, state.probes_us)):
        return
    digest = state.view.digest
    mine = state.promise.ack if state.promise is not None else None
    joinable = max(
        (generation for generation, view_digest in state.votes if view_digest == digest),
        default=0,
    )
    if mine is not None and mine.view_digest == digest and joinable <= state.generation_acked:
        return
    if not round_complete and not _may_leave_round(state):
        return
    decision = turn.decide(state.view)
    life = decision.plan.life_of(state.me)
    if life is None:
        if state.excluded != digest:
            turn.set(excluded=digest)
            turn.emit(Excluded(plan=decision.plan))
        if state.active is not None:
            _stop(turn)
        return
    ack = Ack(
        device=state.me,
        life=life,
        generation=joinable if joinable > state.generation_acked else state.generation_known + 1,
        view_digest=digest,
        plan_digest=decision.plan_digest,
        progress=state.progress,
    )
    if not state.frozen:
        turn.emit(Freeze())
    members = {member.device for member in decision.plan.members}
    rules = {p.device: (p.share, p.memory_bytes) for p in state.view.living if p.device in members}
    turn.set(
        promise=Promise(ack=ack, plan=decision.plan, given_us=state.now_us, rules=rules),
        missed=None,
        generation_known=max(state.generation_known, ack.generation),
        generation_acked=ack.generation,
    )
    _say(turn)


def _may_leave_round(state: State) -> bool:
    """Whether an ack need not wait for the end of the round in hand."""
    active, promise = state.active, state.promise
    if active is None or promise is None or state.frozen or not state.running:
        return True
    living = {profile.device: profile for profile in state.view.living}
    for member in active.plan.members:
        profile = living.get(member.device)
        if profile is None or profile.life != member.life:
            return True
        share, memory_bytes = promise.rules[member.device]
        if _STRICTNESS[profile.share] > _STRICTNESS[share] or profile.memory_bytes < memory_bytes:
            return True
    in_hand = (state.progress.run, state.progress.round + 1)
    return any(
        ack.generation > active.generation and (ack.progress.run, ack.progress.round) < in_hand
        for ack in state.acks.values()
        if active.plan.life_of(ack.device) == ack.life
    )


def _activate(turn: _Turn) -> None:
    """Begin the promised plan once every member has promised the same."""
    state = turn.state
    promise = state.promise
    if promise is None or not state.echoing or state.returns_us is not None:
        return
    if state.active is not None and state.active.generation >= promise.ack.generation:
        return
    acks = {state.me: promise.ack}
    living = state.view.ring
    for member in promise.plan.members:
        if member.device not in living:
            return
        if member.device == state.me:
            continue
        ack = state.acks.get(member.device)
        if ack is not None and _disagrees(promise.ack, ack):
            _declare_unfit(turn)
            return
        if ack is None or not _matches(ack, promise.ack, member.life):
            return
        acks[member.device] = ack
    start = max({ack.progress for ack in acks.values()})  # a set, for nearly always they are equal
    active = Active(
        generation=promise.ack.generation,
        view_digest=promise.ack.view_digest,
        plan_digest=promise.ack.plan_digest,
        plan=promise.plan,
        start=start,
        holders=tuple(sorted(device for device, ack in acks.items() if ack.progress == start)),
    )
    turn.set(active=active, silent_us={}, heard_us=dict.fromkeys(state.heard_us, state.now_us))
    turn.set(beat_due_us=min(state.beat_due_us, state.now_us + turn.state.beat_us))
    turn.emit(Activate(active=active))


def _disagrees(mine: Ack, theirs: Ack) -> bool:
    """Whether the same view gave another plan there: one of the two computes wrongly."""
    same_vote = theirs.generation == mine.generation and theirs.view_digest == mine.view_digest
    return same_vote and theirs.plan_digest != mine.plan_digest


def _declare_unfit(turn: _Turn) -> None:
    """Step back if the others' plan is the commoner one (ties: the lower digest stays)."""
    state = turn.state
    if state.promise is None or state.own.unfit:
        return
    mine = state.promise.ack
    votes: dict[bytes, int] = {mine.plan_digest: 1}
    for ack in state.acks.values():
        if ack.generation == mine.generation and ack.view_digest == mine.view_digest:
            votes[ack.plan_digest] = votes.get(ack.plan_digest, 0) + 1
    commonest = min(votes, key=lambda digest: (-votes[digest], digest))
    if commonest != mine.plan_digest:
        _publish_own(turn, attrs.evolve(state.own, unfit="it computes another plan from the same view"))


# --- heartbeats -------------------------------------------------------------------------------------------------------


def _hear_beat(turn: _Turn, beat: BeatHeard) -> None:
    state = turn.state
    if beat.device == state.me:
        if beat.life == state.own.life:
            turn.set(echoed_us=state.now_us, lag_us=beat.lag_us)
        return
    if _is_told_of_burial(turn, beat.device, beat.life):
        return
    profile = state.view.profiles.get(beat.device)
    if profile is None or beat.life > profile.life:
        _ask(turn, beat.device)
        return
    if beat.life == profile.life and state.view.is_living(beat.device):
        _alive(turn, beat.device)
        turn.set(generation_known=max(state.generation_known, beat.generation))
        if beat.view_digest != state.view.digest:
            _ask(turn, beat.device)
        if beat.generation != (state.promise.ack.generation if state.promise is not None else 0):
            _repeat(turn, beat.device)


def _says_nothing_new(state: State, beat: BeatHeard) -> bool:
    """Whether another device lives, as everybody thought, and thinks what this one thinks."""
    profile = state.view.living_profile(beat.device)
    return (
        beat.device != state.me
        and profile is not None
        and profile.life == beat.life
        and beat.view_digest == state.view.digest
        and state.promise is not None
        and beat.generation == state.promise.ack.generation <= state.generation_known
        and beat.device not in state.probes_us
        and beat.device not in state.offline
    )


def _say(turn: _Turn) -> None:
    """The promise that was given last."""
    if turn.state.promise is not None:
        turn.set(said_us=turn.state.now_us, repeated={})
        turn.emit(PublishAck(ack=turn.state.promise.ack))


def _repeat(turn: _Turn, device: DeviceId) -> None:
    """The same once more to one that may have missed it."""
    promise, repeated = turn.state.promise, turn.state.repeated
    if promise is not None and _may_say_again(turn.state, repeated.get(device)):
        turn.set(repeated={**repeated, device: _said_now(turn.state, repeated.get(device))})
        turn.emit(SendAck(device=device, ack=promise.ack))


def _beat(turn: _Turn) -> None:
    state = turn.state
    if not state.connected or state.now_us < state.beat_due_us:
        return
    # until the first echo, and while a promise waits for others, a lost message costs waiting time: beat faster
    eager = not state.echoing or _is_waiting(state)
    pause_us = min(state.beat_us, state.timing.probe_us) if eager else state.beat_us
    turn.set(beat_due_us=state.now_us + pause_us)
    generation = state.promise.ack.generation if state.promise is not None else 0
    turn.emit(SendBeat(view_digest=state.view.digest, generation=generation))
    repeat_us = max(state.timing.repeat_us, state.timing.repeat_each_us * len(state.view.living))
    if state.said_us is not None and state.now_us - state.said_us >= repeat_us:
        _say(turn)  # everybody hears it, even who does not know this device, or thinks that it is dead
