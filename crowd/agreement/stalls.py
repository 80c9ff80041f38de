"""Who holds up all others is suspended: it lives, and says so, but what it should do does not come.

A wait ends after `patience_us`, which no answer moves: an answer shows that a device lives, not that it works. A
suspended device takes part again with its first sign of progress, later each time. Waits double with each mistake.
"""

import attrs

from crowd.agreement import predicates, views
from crowd.agreement.events import HeldUp, PublishSuspensions, ShowProgress
from crowd.agreement.state import State
from crowd.agreement.suspension import Given, Suspension
from crowd.agreement.turn import Turn
from crowd.planning.estimate import ELEMENT_BYTES, REPLICA_COPIES, moves, ship_cost
from crowd.planning.plan import Plan
from crowd.planning.policy import Cluster
from crowd.units import SECOND_US, DeviceId

ROUNDS_PATIENT = 3
"""Of the longest recent rounds, for how many a device may be waited for."""
SLEPT_US = SECOND_US
"""How late an own heartbeat is when the device slept, or was too busy: what came meanwhile it has not heard yet."""


# --- how long to wait -------------------------------------------------------------------------------------------------


def patience_us(state: State, links: int) -> int:
    """How long this device may wait for others before it suspends them; half as long again for each of the `links` at
    which somebody else may be to blame. In the first round of a generation also for what is moved before it."""
    active, stalls = state.acks.active, state.stalls
    planned_us = 0 if active is None else active.plan.round_us
    base_us = max(state.timing.stall_timeout_us, ROUNDS_PATIENT * max((planned_us, *stalls.rounds_us)))
    forgiven = (state.now_us - stalls.mistake_us) // state.timing.return_max_us
    exponent = min(max(0, stalls.mistakes - forgiven), state.timing.backoff_exponent_max)
    if active is not None and (state.own.progress.round <= active.start.round or state.own.progress.finished):
        base_us += _setup_us(state, active.plan)
    return (base_us * (2 + links) // 2 << exponent) + state.detector.rtt_us


def _setup_us(state: State, plan: Plan) -> int:
    """Twice what it takes to move the plan's samples and a whole state, over the slowest of the members' links."""
    members = tuple(filter(None, (state.view.living_profile(member.device) for member in plan.members)))
    if len(members) < 2 or len(members) < len(plan.members):
        return 0
    cluster = Cluster(members=members, prefer=members[0].prefer, seed=0)
    slowest_bytes_s = max(1, min(cluster.by_uplink[0][0], cluster.by_downlink[0][0]))
    state_bytes = REPLICA_COPIES * ELEMENT_BYTES * members[0].task.state_elements
    return 2 * (ship_cost(cluster, *moves(plan)).ship_us + state_bytes * SECOND_US // slowest_bytes_s)


def notice_sleep(turn: Turn) -> None:
    """Begin all waits anew if this device was not awake: nobody is to blame for what it has not heard."""
    state = turn.state
    if state.own.connected and state.now_us - state.own.beat_due_us > SLEPT_US:
        turn.stalls = attrs.evolve(state.stalls, awake_us=state.now_us)


def notice_deafness(turn: Turn) -> None:
    """Begin all waits anew as an own heartbeat comes back after others that did not: what came meanwhile has not been
    heard either."""
    if _is_deaf(turn.state):
        turn.stalls = attrs.evolve(turn.stalls, awake_us=turn.state.now_us)


def _is_deaf(state: State) -> bool:
    """Whether an own heartbeat should have come back by now, and has not."""
    last_us, rtt_us = state.detector.round_trip_us, state.detector.rtt_us
    return last_us is not None and state.now_us - last_us > state.beat_us + SLEPT_US + 2 * rtt_us


# --- others -----------------------------------------------------------------------------------------------------------


def hear(turn: Turn, held_up: HeldUp) -> None:
    """Suspend the devices for which this one has waited for too long, unless it is about to leave the round anyway."""
    state = turn.state
    in_hand = state.own.progress.finished or not predicates.may_leave_round(state)
    if not in_hand or not state.has_round_trip or _is_deaf(state) or state.me in state.view.suspended:
        return
    waited_us = state.now_us - max(held_up.since_us, state.stalls.awake_us)
    if waited_us < patience_us(state, held_up.links):
        return
    suspensions = {
        device: _next(state, device)
        for device in sorted(held_up.devices)
        if device != state.me and state.view.is_living(device) and device not in state.view.suspended
    }
    if not suspensions:
        return
    given = {
        device: Given(suspension=suspension, at_us=state.now_us, waited_us=waited_us)
        for device, suspension in suspensions.items()
    }
    turn.stalls = attrs.evolve(state.stalls, given={**state.stalls.given, **given})
    views.merge(turn, (), {}, suspensions)
    turn.emit(PublishSuspensions(suspensions=suspensions))


def _next(state: State, device: DeviceId) -> Suspension:
    life, last = state.view.profiles[device].life, state.view.suspensions.get(device)
    return Suspension(life=life, number=last.number + 1 if last is not None and last.life == life else 1)


def doubt(turn: Turn) -> None:
    """Notice which of the devices that this one suspended are back so soon that it should have waited longer."""
    state = turn.state
    back = {
        device: given
        for device, given in state.stalls.given.items()
        if device in state.view.ring and device not in state.view.suspended
    }
    if not back:
        return
    early = {
        device
        for device, given in back.items()
        if state.now_us - given.at_us <= given.waited_us and state.view.profiles[device].life == given.suspension.life
    }
    kept = {device: given for device, given in state.stalls.given.items() if device not in back}
    turn.stalls = attrs.evolve(state.stalls, given=kept, doubted=state.stalls.doubted | early)


def note_round(turn: Turn, plan: Plan, senders: frozenset[DeviceId]) -> None:
    """Note a complete round, and the mistakes that it shows: a device that was back early, and has done its part."""
    state = turn.state
    stalls = state.stalls.with_round(state.now_us)
    proven = {
        device
        for device in stalls.doubted
        if plan.life_of(device) is not None and (device in senders or plan.trainer(device) is None)
    }
    if proven:
        mistakes = min(stalls.mistakes + 1, state.timing.backoff_exponent_max)
        stalls = attrs.evolve(stalls, doubted=stalls.doubted - proven, mistakes=mistakes, mistake_us=state.now_us)
    turn.stalls = stalls


# --- this device ------------------------------------------------------------------------------------------------------


def hear_of_progress(turn: Turn) -> None:
    """Decide when the own suspension ends: soon the first time, when the others have gone on, later each further
    time."""
    state, asked = turn.state, turn.stalls.asked
    if asked is not None and turn.stalls.lifts_us is None:
        pause_us = SECOND_US << min(asked.number - 1, 20)
        turn.stalls = attrs.evolve(turn.stalls, lifts_us=state.now_us + min(pause_us, state.timing.return_max_us))


def answer_own(turn: Turn) -> None:
    """Ask for a sign of progress when this device is suspended, and end its suspension when there was one."""
    state, stalls = turn.state, turn.state.stalls
    own = state.view.suspensions.get(state.me)
    if own is None or state.me not in state.view.suspended:
        if stalls.asked is not None:
            turn.stalls = attrs.evolve(stalls, asked=None, lifts_us=None)
        return
    if stalls.asked != own:
        turn.stalls = attrs.evolve(stalls, asked=own, lifts_us=None)
        turn.emit(ShowProgress())
    elif stalls.lifts_us is not None and state.now_us >= stalls.lifts_us and state.own.connected:
        turn.stalls = attrs.evolve(stalls, asked=None, lifts_us=None)
        lifted = {state.me: attrs.evolve(own, lifted=True)}
        views.merge(turn, (), {}, lifted)
        turn.emit(PublishSuspensions(suspensions=lifted))
