"""Acks given and heard, and the plan that they activate."""

import attrs

from crowd.agreement import failure_detector, predicates, views
from crowd.agreement.ack import Ack
from crowd.agreement.events import Activate, Excluded, Freeze
from crowd.agreement.state import ASKED_AT_ONCE, Acks, Active, Decision, OwnAck
from crowd.agreement.turn import Turn
from crowd.planning.plan import Plan

# --- acks of others ---------------------------------------------------------------------------------------------------


def hear(turn: Turn, ack: Ack) -> None:
    """Take in an ack of any device, perhaps an old one."""
    state = turn.state
    if ack.device == state.me:
        known = max(state.acks.generation_known, ack.generation)
        turn.acks = attrs.evolve(state.acks, generation_known=known)
        return
    profile = state.view.profiles.get(ack.device)
    failure_detector.note_late_answer(turn, ack.device, ack.life, (ack.generation, ack.view_digest))
    evicted = failure_detector.is_evicted_alive(turn, ack.device, ack.life)
    if not evicted and (profile is None or ack.life > profile.life):
        turn.ask_for_view(ack.device)
    latest = state.acks.latest.get(ack.device)
    if latest is None or (ack.life, ack.generation) > (latest.life, latest.generation):
        turn.acks = noted(turn.acks, ack)


def noted(acks: Acks, ack: Ack) -> Acks:
    """These acks with a new one of another device."""
    tally = dict(acks.tally)
    ballot, known = (ack.generation, ack.view_digest), acks.latest.get(ack.device)
    tally[ballot] = tally.get(ballot, 0) + 1
    if known is not None:
        before = (known.generation, known.view_digest)
        tally[before] -= 1
        if tally[before] == 0:
            del tally[before]
    generation_known = max(acks.generation_known, ack.generation)
    return attrs.evolve(acks, latest={**acks.latest, ack.device: ack}, tally=tally, generation_known=generation_known)


def ask_for_missing(turn: Turn) -> None:
    """Ask for acks that have been missing for a while: one that was lost would not be published again for long."""
    state = turn.state
    if state.acks.own_ack is None or not state.own.connected or state.now_us < state.missing_due_us:
        return
    missing = tuple(predicates.missing_acks(state))
    if missing:
        turn.retries = attrs.evolve(state.retries, missing=turn.sent(state.retries.missing))
        requests = state.retries.view_requests
        longest_ago = sorted(missing, key=lambda device: requests[device].sent_us if device in requests else -1)
        for device in longest_ago[:ASKED_AT_ONCE]:
            turn.ask_for_view(device)


# --- the own ack ------------------------------------------------------------------------------------------------------


def give(turn: Turn, *, round_complete: bool) -> None:
    """Ack the plan of the present view, where the rules allow it now."""
    state = turn.state
    if not predicates.may_ack(state):
        return
    digest = state.view.digest
    own_ack, acked = state.acks.own_ack, state.acks.generation_acked
    joinable = predicates.joinable_generation(state)
    if own_ack is not None and own_ack.ack.view_digest == digest and joinable <= acked:
        return
    if not round_complete and not predicates.may_leave_round(state):
        return
    decision = turn.decide(state.view)
    life = decision.plan.life_of(state.me)
    if life is None:
        _stay_out(turn, decision.plan)
        return
    ack = Ack(
        device=state.me,
        life=life,
        generation=joinable if joinable > acked else state.acks.generation_known + 1,
        view_digest=digest,
        plan_digest=decision.plan_digest,
        progress=state.own.progress,
    )
    _publish(turn, ack, decision)


def _publish(turn: Turn, ack: Ack, decision: Decision) -> None:
    """Freeze the round in hand, and give this ack."""
    state = turn.state
    if not state.frozen:
        turn.emit(Freeze())
    members = {member.device for member in decision.plan.members}
    rules = {p.device: (p.share, p.memory_bytes) for p in state.view.living if p.device in members}
    turn.acks = attrs.evolve(
        state.acks,
        own_ack=OwnAck(ack=ack, plan=decision.plan, given_us=state.now_us, rules=rules),
        generation_known=max(state.acks.generation_known, ack.generation),
        generation_acked=ack.generation,
    )
    turn.retries = attrs.evolve(turn.retries, missing=None)
    turn.publish_ack()


def _stay_out(turn: Turn, plan: Plan) -> None:
    """Stop working: the plan of the present view leaves this device out. It is reported once all whom that plan names
    have acked it, and so know what this device says of itself."""
    state = turn.state
    digest, acks = state.view.digest, state.acks
    if acks.excluded != digest and all(predicates.has_acked(state, member, digest) for member in plan.members):
        turn.acks = attrs.evolve(acks, excluded=digest)
        turn.emit(Excluded(plan=plan))
    if turn.acks.active is not None:
        views.stop(turn)


# --- the plan that they activate --------------------------------------------------------------------------------------


def activate(turn: Turn) -> None:
    """Begin the acked plan once every member has acked the same."""
    state = turn.state
    own_ack = state.acks.undecided
    if own_ack is None or not state.has_round_trip or state.own.returns_us is not None:
        return
    acks = {state.me: own_ack.ack}
    living = state.view.ring
    for member in own_ack.plan.members:
        if member.device not in living:
            return
        if member.device == state.me:
            continue
        ack = state.acks.latest.get(member.device)
        if ack is not None and predicates.disagrees(own_ack.ack, ack):
            _declare_unfit(turn)
            return
        if ack is None or not predicates.matches(ack, own_ack.ack, member.life):
            return
        acks[member.device] = ack
    start = max({ack.progress for ack in acks.values()})  # a set, for nearly always they are equal
    active = Active(
        generation=own_ack.ack.generation,
        view_digest=own_ack.ack.view_digest,
        plan_digest=own_ack.ack.plan_digest,
        plan=own_ack.plan,
        start=start,
        holders=tuple(sorted(device for device, ack in acks.items() if ack.progress == start)),
    )
    _begin(turn, active)


def _begin(turn: Turn, active: Active) -> None:
    state = turn.state
    heard_us = dict.fromkeys(state.detector.heard_us, state.now_us)
    turn.acks = attrs.evolve(state.acks, active=active)
    turn.stalls = attrs.evolve(state.stalls, began_us=state.now_us)
    turn.detector = attrs.evolve(state.detector, silent_us={}, heard_us=heard_us)
    beat_due_us = min(state.own.beat_due_us, state.now_us + turn.state.beat_us)
    turn.own = attrs.evolve(state.own, beat_due_us=beat_due_us)
    turn.emit(Activate(active=active))


def _declare_unfit(turn: Turn) -> None:
    """Step back if the others' plan is the commoner one (ties: the lower digest stays)."""
    state = turn.state
    own_ack = state.acks.own_ack
    if own_ack is None or state.own.profile.unfit:
        return
    mine = own_ack.ack
    counts: dict[bytes, int] = {mine.plan_digest: 1}
    for ack in state.acks.latest.values():
        if ack.generation == mine.generation and ack.view_digest == mine.view_digest:
            counts[ack.plan_digest] = counts.get(ack.plan_digest, 0) + 1
    commonest = min(counts, key=lambda digest: (-counts[digest], digest))
    if commonest != mine.plan_digest:
        unfit = attrs.evolve(state.own.profile, unfit="it computes another plan from the same view")
        views.publish_own(turn, unfit)
