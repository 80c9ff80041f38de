"""What keeps the number of messages from growing with the square of the number of devices."""

from typing import Any

import attrs
import pytest

from crowd.agreement import events
from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.state import WATCHED, Decision, Own, OwnAck, State
from crowd.agreement.step import note_beat, step
from crowd.agreement.view import View
from crowd.planning.plan import Plan, plan_digest
from crowd.units import SECOND_US, DeviceId, Life
from tests.support.profiles import make_profile

NAMES = [DeviceId(f"d{index}") for index in range(8)]


def decide(view: View) -> Decision:
    plan = Plan(members=())
    return Decision(plan=plan, plan_digest=plan_digest(plan))


def connected(name: DeviceId) -> State:
    """A device that knows all others, and hears itself."""
    state = State(own=Own(profile=make_profile(name), progress=StateProgress(run=1)))
    others = tuple(make_profile(other) for other in NAMES if other != name)
    round_trip = events.BeatHeard(device=name, life=state.own.profile.life, view_digest=b"", generation=0)
    for event in (events.Connected(), events.Learned(profiles=others), round_trip):
        state, _ = step(state, event, decide, now_us=0)
    return state


def test_only_those_who_watch_a_device_ask_whether_it_lives() -> None:
    asking = []
    for name in NAMES[1:]:
        will = events.StatusHeard(device=NAMES[0], online=False)
        _, effects = step(connected(name), will, decide, now_us=1)
        asking += [name for effect in effects if isinstance(effect, events.SendProbe)]
    assert asking == NAMES[1 : 1 + WATCHED]


def test_a_device_that_is_watched_anew_is_not_silent_already() -> None:
    state = connected(NAMES[4])
    late_us = 2 * state.silence_us
    detector = attrs.evolve(
        state.detector,
        round_trip_us=late_us,
        heard_us={**state.detector.heard_us, **dict.fromkeys(NAMES[1:4], late_us)},
    )
    state = attrs.evolve(state, detector=detector)
    gone = {NAMES[3]: make_profile(NAMES[3]).life}
    state, effects = step(state, events.Learned(tombstones=gone), decide, now_us=late_us)
    assert NAMES[0] in state.watched
    assert not any(isinstance(effect, events.SendProbe) for effect in effects)


def test_nobody_is_asked_about_the_view_that_this_device_has_acked_before() -> None:
    state = connected(NAMES[0])
    ack = Ack(
        device=NAMES[1],
        life=make_profile(NAMES[1]).life,
        generation=1,
        view_digest=state.view.digest,
        plan_digest=b"",
        progress=StateProgress(run=1),
    )
    newer = make_profile(NAMES[2], life=Life(incarnation=9, boot=b"x"))
    asked = []
    for known in (b"", state.view.digest):
        acked = attrs.evolve(ack, device=NAMES[0], generation=1, view_digest=known)
        now = attrs.evolve(state, acks=attrs.evolve(state.acks, own_ack=_own_ack(acked)))
        for event in (events.AckHeard(ack=ack), events.Learned(profiles=(newer,)), events.Tick()):
            now, effects = step(now, event, decide, now_us=now.now_us + SECOND_US)
        asked.append(any(isinstance(effect, events.AskView) for effect in effects))
    assert asked == [True, False]


@pytest.mark.parametrize(
    ("changed", "of_state"),
    [
        ({}, {}),
        ({"view_digest": b"other"}, {}),
        ({"generation": 2}, {}),
        ({"life": Life(incarnation=9, boot=b"x")}, {}),
        ({"device": NAMES[0]}, {}),
        ({}, {"detector": {"offline": frozenset({NAMES[1]})}}),
        ({}, {"detector": {"probes_us": {NAMES[1]: SECOND_US}}}),
        ({}, {"acks": {"own_ack": None}}),
    ],
)
def test_a_heartbeat_that_says_nothing_new_says_only_that_its_sender_lives(
    changed: dict[str, Any], of_state: dict[str, dict[str, Any]]
) -> None:
    state = connected(NAMES[0])
    life = make_profile(NAMES[1]).life
    mine = Ack(
        device=NAMES[0],
        life=state.own.profile.life,
        generation=1,
        view_digest=state.view.digest,
        plan_digest=b"",
        progress=StateProgress(run=1),
    )
    acks = {"own_ack": _own_ack(mine), "generation_known": 1, **of_state.get("acks", {})}
    detector = attrs.evolve(state.detector, **of_state.get("detector", {}))
    state = attrs.evolve(state, acks=attrs.evolve(state.acks, **acks), detector=detector)
    beat = events.BeatHeard(device=NAMES[1], life=life, view_digest=state.view.digest, generation=1)
    noted = note_beat(state, attrs.evolve(beat, **changed), now_us=7)
    says_nothing_new = not changed and not of_state
    alive = attrs.evolve(detector, heard_us={**detector.heard_us, NAMES[1]: 7})
    assert noted == (attrs.evolve(state, now_us=7, detector=alive) if says_nothing_new else None)


def _own_ack(ack: Ack) -> OwnAck:
    return OwnAck(ack=ack, plan=Plan(members=()), given_us=0, rules={})
