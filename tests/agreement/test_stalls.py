"""Single steps of the agreement about a device whose work stands still."""

import attrs
import pytest

from crowd.agreement import events
from crowd.agreement.state import State
from crowd.agreement.step import step
from crowd.agreement.suspension import Suspension
from crowd.agreement.view import View
from crowd.planning.plan import SUSPENDED
from crowd.planning.profile import Profile
from crowd.units import SECOND_US, DeviceId, Life
from tests.agreement.test_agreement import after, answer_of, decision_of, round_trip, waiting_for
from tests.support.profiles import make_profile

BEN = make_profile("b")


def running(*others: Profile) -> State:
    """At 3 s, with a plan active and its first round complete."""
    state = waiting_for(*others)
    for profile in others:
        state = after(state, answer_of(profile, state), 2 * SECOND_US)
    assert state.acks.active is not None
    return complete(state, 3)


def complete(state: State, second: float, *senders: DeviceId) -> State:
    """With one more round complete at that time."""
    active, done = state.acks.active, state.own.progress
    assert active is not None
    progress = attrs.evolve(done, round=done.round + 1, samples=done.samples + 1)
    ready = events.RoundReady(generation=active.generation, progress=progress, senders=frozenset(senders))
    return after(state, ready, round(second * SECOND_US))


def live(state: State, until_s: int) -> State:
    """Each second all heartbeats come, until then."""
    while state.now_us < until_s * SECOND_US:
        now_us = (state.now_us // SECOND_US + 1) * SECOND_US
        state = round_trip(after(state, events.Tick(), now_us), now_us)
        generation = 0 if state.acks.own_ack is None else state.acks.own_ack.ack.generation
        beat = events.BeatHeard(device=BEN.device, life=BEN.life, view_digest=state.view.digest, generation=generation)
        state = after(state, beat, now_us)
    return state


def held_up(state: State, since_s: float, until_s: int, device: DeviceId = BEN.device, links: int = 0) -> int | None:
    """In which second the device is suspended for whom this one waits; `None` if it is not until then."""
    for second in range(int(since_s), until_s):
        state = live(state, second)
        event = events.HeldUp(devices=frozenset({device}), since_us=round(since_s * SECOND_US), links=links)
        if device in after(state, event, second * SECOND_US).view.suspended:
            return second
    return None


def suspend(state: State, second: int) -> State:
    """By somebody else."""
    last = state.view.suspensions.get(BEN.device)
    suspension = Suspension(life=BEN.life, number=1 if last is None else last.number + 1)
    return after(state, events.Learned(suspensions={BEN.device: suspension}), second * SECOND_US)


@pytest.mark.parametrize(("links", "waits_s"), [(0, 10), (1, 15), (2, 20)])
def test_who_does_not_do_its_part_is_suspended_after_ten_seconds_or_later_if_it_may_wait_itself(
    links: int, waits_s: int
) -> None:
    assert held_up(running(BEN), 3, 60, links=links) == 3 + waits_s


def test_where_rounds_are_long_three_of_the_longest_recent_ones_are_waited_for() -> None:
    state = complete(live(running(BEN), 10), 10)
    assert held_up(state, 10, 60) == 10 + 3 * 7
    for second in range(8):
        state = complete(live(state, 11 + second), 11 + second)
    assert held_up(state, 18, 60) == 18 + 10, "long ago"


def test_what_came_while_a_device_slept_is_heard_before_it_blames_others() -> None:
    state = running(BEN)
    event = events.HeldUp(devices=frozenset({BEN.device}), since_us=3 * SECOND_US)
    assert not after(state, event, 14 * SECOND_US).view.suspended, "it sent no heartbeat for so long"
    assert held_up(state, 3, 60) == 13


def test_what_did_not_reach_a_device_that_could_not_hear_itself_is_heard_before_it_blames_others() -> None:
    state = running(BEN)
    for second in range(4, 13):  # awake, and what comes back is lost
        state = after(state, events.Tick(), second * SECOND_US)
    event = events.HeldUp(devices=frozenset({BEN.device}), since_us=3 * SECOND_US)
    assert state.has_round_trip
    assert not after(state, event, 13 * SECOND_US).view.suspended
    state = round_trip(state, 13 * SECOND_US)
    assert held_up(state, 3, 60) == 13 + 10


def test_a_suspended_device_lives_is_heard_and_has_no_part() -> None:
    state = running(BEN)
    before, digest = state.acks.own_ack, state.view.digest
    state, effects = step(
        live(state, 12),
        events.HeldUp(devices=frozenset({BEN.device}), since_us=2 * SECOND_US),
        decision_of,
        now_us=13 * SECOND_US,
    )
    assert events.Suspended(device=BEN.device) in effects
    assert state.view.is_living(BEN.device)
    assert state.view.digest != digest
    state = live(state, 14)
    own_ack = state.acks.own_ack
    assert own_ack is not None
    assert own_ack is not before
    assert [member.device for member in own_ack.plan.members] == ["a"]
    assert [(left.device, left.reason) for left in own_ack.plan.left_out] == [("b", SUSPENDED)]
    lifted = {BEN.device: attrs.evolve(state.view.suspensions[BEN.device], lifted=True)}
    state, effects = step(state, events.Learned(suspensions=lifted), decision_of, now_us=20 * SECOND_US)
    assert events.Resumed(device=BEN.device) in effects


def test_the_wait_doubles_when_a_device_was_back_early_and_has_done_its_part() -> None:
    for back_s, senders, waits_s in ((5, ["b"], 20), (5, [], 10), (15, ["b"], 10)):
        state = live(running(BEN), 12)
        event = events.HeldUp(devices=frozenset({BEN.device}), since_us=3 * SECOND_US)
        state = after(state, event, 13 * SECOND_US)
        lifted = {BEN.device: attrs.evolve(state.view.suspensions[BEN.device], lifted=True)}
        state = live(state, 13 + back_s)  # it goes on alone
        state = after(state, events.Learned(suspensions=lifted), (13 + back_s) * SECOND_US)
        state = complete(live(state, 14 + back_s), 14 + back_s)
        state = after(state, answer_of(BEN, state), state.now_us)
        assert state.acks.active is not None
        assert len(state.acks.active.plan.members) == 2
        now_s = state.now_us // SECOND_US + 1
        for number in range(9):  # so many that the long ones are forgotten
            state = complete(state, now_s + number / 10, *map(DeviceId, senders))
        assert held_up(state, now_s + 1, now_s + 60) == now_s + 1 + waits_s


def test_a_suspended_device_is_back_with_its_first_sign_of_progress_and_later_each_further_time() -> None:
    state, pauses_s, now_s = running(BEN), [], 10
    me, life = state.me, state.own.profile.life
    for number in (1, 2, 3):
        suspension = {me: Suspension(life=life, number=number)}
        state, effects = step(state, events.Learned(suspensions=suspension), decision_of, now_us=now_s * SECOND_US)
        assert events.ShowProgress() in effects
        state = live(state, now_s + 50)
        assert state.acks.active is None, "it does not work any more"
        assert me in state.view.suspended, "there is no sign of progress"
        state, effects = step(state, events.Progressed(), decision_of, now_us=(now_s + 60) * SECOND_US)
        while me in state.view.suspended:
            assert state.stalls.lifts_us is not None
            state, effects = step(state, events.Tick(), decision_of, now_us=state.stalls.lifts_us)
        assert events.PublishSuspensions(suspensions={me: attrs.evolve(suspension[me], lifted=True)}) in effects
        pauses_s.append(state.now_us // SECOND_US - now_s - 60)
        now_s += 100
    assert pauses_s == [1, 2, 4]


def test_who_does_not_know_of_a_suspension_is_told_and_a_new_life_is_free_of_it() -> None:
    state = suspend(running(BEN), 5)
    asked = events.ViewRequested(
        device=DeviceId("c"), versions={p.device: p.version for p in state.view.living}, tombstones={}
    )
    _, effects = step(state, asked, decision_of, now_us=6 * SECOND_US)
    (told,) = (effect for effect in effects if isinstance(effect, events.SendView))
    assert told.suspensions == state.view.suspensions
    newer = attrs.evolve(BEN, life=Life(incarnation=2, boot=b"b"))
    assert not after(state, events.Learned(profiles=(newer,)), 6 * SECOND_US).view.suspended


def test_suspensions_merge_in_any_order() -> None:
    lives = [Life(incarnation=number, boot=b"b") for number in (1, 2)]
    all_of_them = [
        Suspension(life=life, number=number, lifted=lifted)
        for life in lives
        for number in (1, 2)
        for lifted in (False, True)
    ]
    view = View().merge((BEN,))
    for suspension in all_of_them[::-1] + all_of_them:
        view = view.merge(suspensions={BEN.device: suspension})
        assert view.suspensions[BEN.device] == max(all_of_them)
        assert view.digest == View().merge((BEN,)).digest


@pytest.mark.parametrize(
    ("their_round", "leaves"), [(1, True), (2, False), (3, True)], ids=["cannot complete it", "has", "is past it"]
)
def test_who_is_behind_the_others_does_not_keep_them_waiting_for_the_end_of_its_round(
    their_round: int, leaves: bool
) -> None:
    state = running(BEN)
    own_ack = state.acks.own_ack
    assert own_ack is not None
    assert state.own.progress.round == 1
    faster = attrs.evolve(BEN, revision=BEN.revision + 1, speed_kflops=BEN.speed_kflops + 1)
    state = after(state, events.Learned(profiles=(faster,), source=BEN.device), 4 * SECOND_US)
    progress = attrs.evolve(state.own.progress, round=their_round)
    later = attrs.evolve(
        own_ack.ack, device=BEN.device, life=BEN.life, generation=2, view_digest=state.view.digest, progress=progress
    )
    state = after(state, events.AckHeard(ack=later), 4 * SECOND_US)
    state = live(state, 6)
    assert state.acks.own_ack is not None
    assert (state.acks.own_ack is not own_ack) == leaves
    assert (state.acks.generation_acked == 2) == leaves
