"""The rules of docs/protocol.md#agreement, under everything that a network and its devices may do."""

from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from crowd.actors.lives import LIFE_FILE
from crowd.agreement import events
from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.state import Decision, Own, State
from crowd.agreement.step import next_deadline_us, step
from crowd.agreement.view import View
from crowd.planning.plan import plan_digest
from crowd.planning.policy import decide
from crowd.planning.profile import Profile, Share
from crowd.units import SECOND_US, DeviceId, Life
from tests.agreement.cluster_model import Everybody, Fault, Model, Scenario, Violation
from tests.support.profiles import make_profile, task_facts

CALM_US = 100 * SECOND_US
"""Long enough for evicted devices to come back and for every member to agree."""

FAULTS = ("crash", "cut", "slow", "deaf", "broker", "update", "stale_will")
faults = st.builds(
    Fault,
    at_us=st.integers(0, 60 * SECOND_US),
    kind=st.sampled_from([*FAULTS, "replay", "lost", "rolled back", "cloned"]),
    device=st.integers(0, 5),
    lasts_us=st.sampled_from([SECOND_US // 2, 3 * SECOND_US, 10 * SECOND_US, 25 * SECOND_US]),
)
scenarios = st.builds(
    Scenario,
    devices=st.integers(2, 6),
    seed=st.integers(0, 2**32 - 1),
    loss_permille=st.sampled_from([0, 20, 100, 250]),
    duplicate_permille=st.sampled_from([0, 50, 200]),
    delay_max_us=st.sampled_from([5_000, 50_000, 400_000]),
    members_min=st.integers(1, 2),
    policy=st.sampled_from(["everybody", "crowd_learning", "fedavg", "ship_once"]),
    faults=st.lists(faults, max_size=8).map(tuple),
)


def run_with_faults(scenario: Scenario) -> Model:
    """Safety under faults, then a healed network: the checks inside the model raise `Violation`."""
    model = Model(scenario)
    model.start()
    model.run(scenario.faults_until_us + SECOND_US)
    model.heal()
    model.run(model.now_us + CALM_US)
    return model


def expect_agreement(model: Model) -> None:
    """L1: every device runs the same plan, made from the same view, and rounds go on."""
    active = [device.state.acks.active for device in model.devices]
    if None in active:
        raise Violation("L1: a device has no active plan")
    if len({(one.generation, one.view_digest, one.plan_digest) for one in active if one is not None}) != 1:
        raise Violation(f"L1: different plans: {[(one.generation, one.plan_digest) for one in active if one]}")
    if any(len(one.plan.members) != len(model.devices) for one in active if one is not None):
        raise Violation("L1: a living device is no member")
    before = model.checks.rounds_completed
    model.run(model.now_us + 30 * SECOND_US)
    if model.checks.rounds_completed < before + 10 * len(model.devices):
        raise Violation("L1: rounds do not go on")


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a scenario takes a second: shrinking would take minutes
)
@given(scenarios)
def test_devices_agree_lose_nothing_and_end_equal_whatever_happens(scenario: Scenario) -> None:
    expect_agreement(run_with_faults(scenario))


def test_a_healthy_cluster_activates_two_message_delays_after_the_debounce_time() -> None:
    model = Model(Scenario(devices=4, delay_max_us=20_000))
    model.start()
    model.run(10 * SECOND_US)
    first = [device.state.acks.active for device in model.devices]
    assert all(active is not None and len(active.plan.members) == 4 for active in first)
    slowest = model.devices[1]
    slowest.hear(events.OwnProfile(profile=attrs.evolve(slowest.state.own.profile, speed_kflops=77)))
    changed_us = model.now_us
    while len({device.state.acks.active.generation for device in model.devices if device.state.acks.active}) > 1 or (
        model.devices[0].state.acks.active == first[0]
    ):
        model.run(model.now_us + 10_000)
        assert model.now_us < changed_us + 10 * SECOND_US
    # debounce time, two messages, at most the round in hand (1 s) and its three messages
    assert model.now_us - changed_us <= 200_000 + 2 * 20_000 + SECOND_US + 6 * 20_000 + 20_000


def test_a_cluster_below_its_smallest_size_waits_without_work() -> None:
    model = Model(Scenario(devices=3, members_min=3))
    model.at(0, model.devices[0].boot)
    model.at(0, model.devices[1].boot)
    model.run(20 * SECOND_US)
    assert model.checks.rounds_completed == 0
    active = model.devices[0].state.acks.active
    assert active is not None
    assert active.plan.why == "2 of 3 devices are here"
    model.at(model.now_us, model.devices[2].boot)
    model.run(40 * SECOND_US)
    assert model.checks.rounds_completed > 0


def test_after_the_start_the_smallest_size_is_forgotten() -> None:
    crash = Fault(at_us=10 * SECOND_US, kind="crash", device=2, lasts_us=10_000 * SECOND_US)
    model = Model(Scenario(devices=3, members_min=3, faults=(crash,)))
    model.start()
    model.run(15 * SECOND_US)
    before = model.checks.rounds_completed
    model.run(30 * SECOND_US)
    assert model.checks.rounds_completed > before + 10


def test_others_go_on_within_the_probe_time_and_two_rounds_of_a_crash() -> None:
    crash = Fault(at_us=10 * SECOND_US, kind="crash", device=2, lasts_us=10_000 * SECOND_US)
    model = Model(Scenario(devices=3, faults=(crash,), seed=5))
    model.start()
    model.run(10 * SECOND_US)
    before = model.checks.rounds_completed
    # a will may take 3 s in the model; then the probe (2 s), the debounce time, an exchange and two rounds
    model.run(10 * SECOND_US + 3 * SECOND_US + 2 * SECOND_US + 2 * SECOND_US + SECOND_US)
    assert model.checks.rounds_completed >= before + 2


def test_a_cut_off_device_evicts_nobody() -> None:
    cut = Fault(at_us=10 * SECOND_US, kind="cut", device=0, lasts_us=25 * SECOND_US)
    model = Model(Scenario(devices=3, faults=(cut,)))
    model.start()
    model.run(34 * SECOND_US)
    assert model.devices[0].state.view.tombstones == {}


def test_a_living_device_that_never_acks_is_evicted_and_returns() -> None:
    deaf = Fault(at_us=10 * SECOND_US, kind="deaf", device=2, lasts_us=30 * SECOND_US)
    update = Fault(at_us=11 * SECOND_US, kind="update", device=0, lasts_us=SECOND_US)
    model = Model(Scenario(devices=3, faults=(deaf, update)))
    model.start()
    model.run(35 * SECOND_US)
    assert DeviceId("d2") in model.devices[0].state.view.tombstones
    model.run(120 * SECOND_US)
    expect_agreement(model)


# --- single steps -----------------------------------------------------------------------------------------------------


def decision_of(view: View) -> Decision:
    plan = decide(view.living, {"test": Everybody()}, view.suspended)
    return Decision(plan=plan, plan_digest=plan_digest(plan))


def connected(name: str = "a", **changes: Any) -> State:
    state, _ = step(
        State(own=Own(profile=make_profile(name, **changes), progress=StateProgress(run=1))),
        events.Connected(),
        decision_of,
        now_us=0,
    )
    return state


def after(state: State, event: events.Event, now_us: int) -> State:
    return step(state, event, decision_of, now_us=now_us)[0]


def test_a_device_that_sees_its_own_name_in_a_later_life_goes_above_it() -> None:
    state = connected()
    other = make_profile("a", life=Life(incarnation=3, boot=b"another"))
    state = after(state, events.Learned(profiles=(other,), source=DeviceId("a")), 1_000)
    assert state.own.profile.life.incarnation == 4
    assert state.view.profiles[DeviceId("a")] == state.own.profile


def test_two_devices_with_one_name_and_key_outdo_each_other_ever_more_seldom() -> None:
    state, now_us, pauses_s = connected(), 0, []
    for _ in range(4):
        life = attrs.evolve(state.own.profile.life, incarnation=state.own.profile.life.incarnation + 1, boot=b"twin")
        state = after(state, events.Learned(profiles=(make_profile("a", life=life),), source=DeviceId("a")), now_us)
        returns_us = state.own.returns_us or now_us
        pauses_s.append((returns_us - now_us) // SECOND_US)
        now_us = returns_us
        state = after(state, events.Tick(), now_us)
        assert state.own.profile.life > life
    assert pauses_s == [0, 2, 4, 8]


def test_an_evicted_device_returns_later_each_time() -> None:
    state, now_us = connected(), 0
    pauses_s = []
    for _ in range(3):
        state = after(state, events.Learned(tombstones={DeviceId("a"): state.own.profile.life}), now_us)
        assert state.own.returns_us is not None
        pauses_s.append((state.own.returns_us - now_us) // SECOND_US)
        now_us = state.own.returns_us
        state = after(state, events.Tick(), now_us)
        assert state.own.returns_us is None
    assert pauses_s == [2, 4, 8]


def test_a_single_device_agrees_with_itself() -> None:
    state = connected()
    beat = events.BeatHeard(device=DeviceId("a"), life=state.own.profile.life, view_digest=b"", generation=0)
    state = after(state, beat, 10)
    state = after(state, events.Tick(), 2 * SECOND_US)
    assert state.acks.active is not None
    assert state.acks.active.generation == 1
    assert state.acks.active.start == StateProgress(run=1)


def test_without_a_round_trip_of_its_own_heartbeat_a_device_activates_nothing() -> None:
    state = after(connected(), events.Tick(), 2 * SECOND_US)
    assert state.acks.own_ack is not None
    assert state.acks.active is None


def waiting_for(*profiles: Profile) -> State:
    """An ack was given, an own heartbeat has come back, and the others say nothing."""
    state = after(connected(), events.Learned(profiles=profiles), 0)
    return after(round_trip(state, 0), events.Tick(), 2 * SECOND_US)


def round_trip(state: State, now_us: int, *, rtt_s: int = 0) -> State:
    rtt_us = rtt_s * SECOND_US
    beat = events.BeatHeard(device=state.me, life=state.own.profile.life, view_digest=b"", generation=0, rtt_us=rtt_us)
    return after(state, beat, now_us)


def answer_of(profile: Profile, state: State) -> events.AckHeard:
    """The ack for which `state` waits."""
    assert state.acks.own_ack is not None
    ack = attrs.evolve(state.acks.own_ack.ack, device=profile.device, life=profile.life)
    return events.AckHeard(ack=ack)


def evict(state: State, device: DeviceId) -> tuple[State, int]:
    """Hear its heartbeats until `device` is evicted all the same, and how many seconds after the own ack that is."""
    assert state.acks.own_ack is not None
    given_us = state.acks.own_ack.given_us
    while (profile := state.view.living_profile(device)) is not None:
        beat = events.BeatHeard(device=device, life=profile.life, view_digest=b"", generation=0)
        state = after(round_trip(state, state.now_us), beat, state.now_us + SECOND_US)
    return state, (state.now_us - given_us) // SECOND_US


def test_timeouts_are_longer_after_a_false_suspicion_and_not_for_ever() -> None:
    profile = make_profile("b")
    state = waiting_for(profile)
    timeout_s = []
    for incarnation in range(2, 7):
        answer = answer_of(profile, state)
        state, waited_s = evict(state, profile.device)
        timeout_s.append(waited_s)
        state = after(after(state, answer, state.now_us), answer, state.now_us)
        profile = attrs.evolve(profile, life=attrs.evolve(profile.life, incarnation=incarnation))
        state = after(state, events.Learned(profiles=(profile,)), state.now_us)
        state = after(round_trip(state, state.now_us), events.Tick(), state.now_us + 2 * SECOND_US)
    assert timeout_s == [10, 20, 40, 80, 160]
    assert state.ack_timeout_us == 320 * SECOND_US
    assert after(state, events.Tick(), state.now_us + 601 * SECOND_US).ack_timeout_us == 160 * SECOND_US
    assert after(state, events.Tick(), state.now_us + 3601 * SECOND_US).ack_timeout_us == 10 * SECOND_US


@pytest.mark.parametrize(("has_acked_before", "timeout_s"), [(False, 10), (True, 320)])
def test_a_newcomer_waits_longer_for_those_who_may_be_in_a_round(has_acked_before: bool, timeout_s: int) -> None:
    profile = make_profile("b")
    state = waiting_for(profile)
    if has_acked_before:
        answer = answer_of(profile, state)
        state = after(state, attrs.evolve(answer, ack=attrs.evolve(answer.ack, view_digest=b"before")), 2 * SECOND_US)
    assert evict(state, profile.device)[1] == timeout_s


def test_an_ack_that_was_lost_is_asked_for_and_sent_again() -> None:
    profiles = [make_profile("a"), make_profile("b")]
    (asker, answerer) = (
        after(
            round_trip(after(connected(own.device), events.Learned(profiles=(other,)), 0), 0),
            events.Tick(),
            2 * SECOND_US,
        )
        for own, other in (profiles, profiles[::-1])
    )
    deadline_us = next_deadline_us(asker)
    assert deadline_us is not None
    assert deadline_us <= 4 * SECOND_US
    _, effects = step(asker, events.Tick(), decision_of, now_us=4 * SECOND_US)
    assert events.AskView(device=answerer.me) in effects
    request = events.ViewRequested(
        device=asker.me, versions={profile.device: profile.version for profile in profiles}, tombstones={}
    )
    assert answerer.acks.own_ack is not None
    _, effects = step(answerer, request, decision_of, now_us=4 * SECOND_US)
    assert events.SendAck(device=asker.me, ack=answerer.acks.own_ack.ack) in effects
    _, effects = step(answerer, attrs.evolve(request, versions={}), decision_of, now_us=4 * SECOND_US)
    assert not any(isinstance(effect, events.SendAck) for effect in effects), "it lacks more than that"


def test_who_misses_acks_asks_all_of_them_in_turn() -> None:
    profiles = tuple(make_profile(f"b{number}") for number in range(5))
    state = waiting_for(*profiles)
    asked: list[list[str]] = []
    for second in (4, 5, 7):
        state, effects = step(state, events.Tick(), decision_of, now_us=second * SECOND_US)
        asked.append([effect.device for effect in effects if isinstance(effect, events.AskView)])
    names = [profile.device for profile in profiles]
    assert asked == [names[:2], names[2:4], names[4:] + names[:1]]


@pytest.mark.parametrize(("rtt_s", "debounce_s"), [(0, 2), (5, 5), (60, 10)])
def test_where_messages_take_long_the_debounce_time_before_an_ack_is_as_long(rtt_s: int, debounce_s: int) -> None:
    state = round_trip(connected(), 0, rtt_s=rtt_s)
    state = after(state, events.Learned(profiles=(make_profile("b"),)), 0)
    while state.acks.own_ack is None:
        state = after(round_trip(state, state.now_us, rtt_s=rtt_s), events.Tick(), state.now_us + SECOND_US)
    assert state.acks.own_ack.given_us == debounce_s * SECOND_US


@pytest.mark.parametrize("rtt_s", [0, 5])
def test_where_messages_take_long_a_lost_ack_is_asked_for_later_and_waited_for_longer(rtt_s: int) -> None:
    profile = make_profile("b")
    state = round_trip(waiting_for(profile), 2 * SECOND_US, rtt_s=rtt_s)
    asked_s = []
    while state.view.is_living(profile.device):
        state = round_trip(state, state.now_us, rtt_s=rtt_s)
        beat = events.BeatHeard(device=profile.device, life=profile.life, view_digest=state.view.digest, generation=1)
        state = after(state, beat, state.now_us + SECOND_US)
        asked_s += [
            request.sent_us // SECOND_US - 2
            for request in state.retries.view_requests.values()
            if request.sent_us == state.now_us
        ]
    first_s = 2 + rtt_s
    assert asked_s[:2] == [first_s, first_s + max(1, rtt_s)]
    assert state.now_us // SECOND_US - 2 == 10 + rtt_s


def test_an_ack_is_repeated_to_the_one_that_lacks_it_and_not_at_each_of_its_heartbeats() -> None:
    profile, other = make_profile("b"), make_profile("c")
    state = waiting_for(profile, other)
    beat = events.BeatHeard(device=profile.device, life=profile.life, view_digest=state.view.digest, generation=0)
    assert when_said(state, beat, events.PublishAck, 9) == []
    assert when_said(state, beat, events.SendAck, 9) == [0, 1, 3, 7]
    _, effects = step(state, beat, decision_of, now_us=3 * SECOND_US)
    assert [effect.device for effect in effects if isinstance(effect, events.SendAck)] == [profile.device]


def test_all_who_are_overdue_are_evicted_in_one_message() -> None:
    profiles = [make_profile("b"), make_profile("c")]
    state = waiting_for(*profiles)
    state = round_trip(state, 11 * SECOND_US)
    _, effects = step(state, events.Tick(), decision_of, now_us=12 * SECOND_US)
    assert [effect.lives for effect in effects if isinstance(effect, events.PublishEvictions)] == [
        {profile.device: profile.life for profile in profiles}
    ]


def test_who_would_not_have_answered_was_not_waited_for_too_shortly() -> None:
    profile, other = make_profile("b"), make_profile("c")
    state = waiting_for(profile, other)
    wrong = answer_of(profile, state)
    state, _ = evict(state, profile.device)
    assert not state.view.is_living(other.device)
    earlier = events.AckHeard(ack=attrs.evolve(wrong.ack, generation=wrong.ack.generation - 1))
    for late in (earlier, events.ProbeAnswered(device=profile.device, life=profile.life)):
        state = after(state, late, state.now_us)
    newer = attrs.evolve(profile, life=attrs.evolve(profile.life, incarnation=2))
    state = after(state, events.Learned(profiles=(newer,)), state.now_us)
    assert state.ack_timeout_us == 10 * SECOND_US
    for late in (answer_of(other, waiting_for(profile, other)), answer_of(profile, waiting_for(profile, other))):
        state = after(state, late, state.now_us)
    assert state.ack_timeout_us == 20 * SECOND_US, "two who were evicted at once are one false suspicion"


def test_a_late_answer_to_a_probe_makes_probes_wait_longer() -> None:
    profile = make_profile("b")
    state = after(waiting_for(profile), answer_of(profile, waiting_for(profile)), 2 * SECOND_US)
    assert state.acks.active is not None
    state = after(state, events.StatusHeard(device=profile.device, online=False), 3 * SECOND_US)
    timeout_us = state.probe_timeout_us(profile.device)
    assert timeout_us < SECOND_US
    assert state.detector.probes_us == {profile.device: 3 * SECOND_US + timeout_us}
    state = after(round_trip(state, 4 * SECOND_US), events.Tick(), 5 * SECOND_US)
    assert not state.view.is_living(profile.device)
    state = after(state, events.ProbeAnswered(device=profile.device, life=profile.life), 6 * SECOND_US)
    assert state.probe_timeout_us(profile.device) == 2 * timeout_us


def test_who_was_said_to_be_offline_as_the_broker_ended_is_not_suspected_when_it_is_back() -> None:
    profile = make_profile("b")
    state = after(waiting_for(profile), answer_of(profile, waiting_for(profile)), 2 * SECOND_US)
    state = after(state, events.StatusHeard(device=profile.device, online=False), 3 * SECOND_US)
    state = after(after(state, events.Disconnected(), 3 * SECOND_US), events.Connected(), 4 * SECOND_US)
    state = after(round_trip(state, 4 * SECOND_US), events.Tick(), 5 * SECOND_US)
    assert state.detector.probes_us == {}
    assert state.view.is_living(profile.device)


def test_a_suspect_s_answer_may_be_under_way_for_twice_as_long_as_an_own_heartbeat_was() -> None:
    profile = make_profile("b")
    state = after(waiting_for(profile), answer_of(profile, waiting_for(profile)), 2 * SECOND_US)
    beat = events.BeatHeard(
        device=state.me, life=state.own.profile.life, view_digest=b"", generation=1, rtt_us=7 * SECOND_US
    )
    state = after(
        after(state, beat, 3 * SECOND_US), events.StatusHeard(device=profile.device, online=False), 3 * SECOND_US
    )
    quick_us = waiting_for(profile).probe_timeout_us(profile.device)
    assert state.detector.probes_us == {profile.device: (3 + 2 * 7) * SECOND_US + quick_us}


@pytest.mark.parametrize(
    ("rate_bytes_s", "timeout_us"), [(125_000_000, 108_388), (11_250_000, 193_204), (1, 4_100_000)]
)
def test_a_suspect_s_answer_may_wait_for_a_chunk_on_each_link(rate_bytes_s: int, timeout_us: int) -> None:
    link = {"uplink_bytes_s": rate_bytes_s, "downlink_bytes_s": rate_bytes_s}
    state = after(connected("a", **link), events.Learned(profiles=(make_profile("b", **link),)), 0)
    assert state.probe_timeout_us(DeviceId("b")) == timeout_us


def test_an_owner_whose_slice_does_not_come_is_probed_and_not_again_at_once() -> None:
    profile = make_profile("b")
    state = waiting_for(profile)
    probes_s = []
    for tenth in range(60):
        now_us = 2 * SECOND_US + tenth * SECOND_US // 10
        state, effects = step(state, events.OwnerSilent(device=profile.device), decision_of, now_us=now_us)
        if events.SendProbe(device=profile.device) in effects:
            probes_s.append(now_us / SECOND_US)
            state = after(state, events.ProbeAnswered(device=profile.device, life=profile.life), now_us)
    assert probes_s == [2.0, 4.0, 6.0]
    state = after(round_trip(state, 8 * SECOND_US), events.OwnerSilent(device=profile.device), 8 * SECOND_US)
    assert not after(state, events.Tick(), 9 * SECOND_US).view.is_living(profile.device), "it does not answer"


def when_said(state: State, heard: events.Event, kind: type, until_s: int) -> list[int]:
    """The seconds in which `kind` follows from `heard`, which is heard four times in each."""
    seconds = []
    for quarter in range(4 * until_s):
        state, effects = step(state, heard, decision_of, now_us=3 * SECOND_US + quarter * SECOND_US // 4)
        seconds += [quarter // 4 for effect in effects if isinstance(effect, kind)]
    return seconds


@pytest.mark.parametrize("by", ["ack", "beat"])
def test_what_has_no_effect_is_said_again_less_and_less_often(by: str) -> None:
    profile = make_profile("b")
    state = after(connected(), events.Learned(profiles=(profile,), tombstones={profile.device: profile.life}), 0)
    ack = Ack(
        device=profile.device,
        life=profile.life,
        generation=1,
        view_digest=b"",
        plan_digest=b"",
        progress=StateProgress(run=1),
    )
    beat = events.BeatHeard(device=profile.device, life=profile.life, view_digest=b"", generation=1)
    heard = events.AckHeard(ack=ack) if by == "ack" else beat
    assert when_said(state, heard, events.SendView, 120) == [0, 1, 3, 7, 15, 31, 63, 95]
    newer = attrs.evolve(profile, life=Life(incarnation=2, boot=b"b"))
    state = after(state, events.Learned(profiles=(newer,)), 0)
    assert when_said(state, heard, events.SendView, 10) == [], "it has begun another life: it knows"


def test_an_answer_makes_the_next_question_an_early_one_again() -> None:
    state = connected()
    stranger = events.BeatHeard(
        device=DeviceId("b"), life=Life(incarnation=1, boot=b"b"), view_digest=b"", generation=1
    )
    assert when_said(state, stranger, events.AskView, 20) == [0, 1, 3, 7, 15]
    for second in range(4):
        state = after(state, stranger, 3 * SECOND_US + second * SECOND_US)
    state = after(state, events.Learned(source=stranger.device), 7 * SECOND_US)
    asked = state.retries.view_requests[stranger.device]
    assert asked.due_us(state.timing, rtt_us=0) == asked.sent_us + SECOND_US


def test_only_those_who_would_watch_an_evicted_device_tell_it() -> None:
    profiles = tuple(make_profile(name) for name in "abcdef")
    dead = profiles[1]
    beat = events.BeatHeard(device=dead.device, life=dead.life, view_digest=b"", generation=1)
    tellers = []
    for own in profiles[:1] + profiles[2:]:
        state = connected(own.device)
        state = after(state, events.Learned(profiles=profiles, tombstones={dead.device: dead.life}), 0)
        tellers += [own.device] * len(when_said(state, beat, events.SendView, 1))
    assert tellers == ["c", "d", "e"]


def test_an_ack_waits_for_the_end_of_the_round_in_hand() -> None:
    state = connected()
    beat = events.BeatHeard(device=DeviceId("a"), life=state.own.profile.life, view_digest=b"", generation=0)
    state = after(after(state, beat, 10), events.Tick(), 2 * SECOND_US)
    assert state.running
    changed = attrs.evolve(state.own.profile, speed_kflops=5)
    state = after(state, events.OwnProfile(profile=changed), 3 * SECOND_US)
    state = after(state, events.Tick(), 4 * SECOND_US)
    assert state.acks.own_ack is not None
    assert state.acks.own_ack.ack.generation == 1
    ready = events.RoundReady(generation=1, progress=StateProgress(run=1, samples=1, round=1))
    state, effects = step(state, ready, decision_of, now_us=5 * SECOND_US)
    assert events.RoundAccepted(progress=ready.progress) in effects
    assert state.acks.own_ack is not None
    assert state.acks.own_ack.ack.generation == 2
    assert state.acks.own_ack.ack.progress == ready.progress


@pytest.mark.parametrize("tightened", [{"share": Share.NEVER}, {"memory_bytes": 1 << 20}])
def test_a_tightened_rule_ends_the_round_at_once(tightened: dict[str, Any]) -> None:
    state = connected()
    beat = events.BeatHeard(device=DeviceId("a"), life=state.own.profile.life, view_digest=b"", generation=0)
    state = after(after(state, beat, 10), events.Tick(), 2 * SECOND_US)
    state = after(state, events.OwnProfile(profile=attrs.evolve(state.own.profile, **tightened)), 3 * SECOND_US)
    state = after(state, events.Tick(), 4 * SECOND_US)
    assert state.acks.own_ack is not None
    assert state.acks.own_ack.ack.generation == 2


def test_a_frozen_round_cannot_be_completed() -> None:
    state = connected()
    beat = events.BeatHeard(device=DeviceId("a"), life=state.own.profile.life, view_digest=b"", generation=0)
    state = after(after(state, beat, 10), events.Tick(), 2 * SECOND_US)
    other = make_profile("b")
    state = after(state, events.Learned(profiles=(other,), source=other.device), 3 * SECOND_US)
    tightened = attrs.evolve(state.own.profile, share=Share.NEVER)
    state = after(state, events.OwnProfile(profile=tightened), 3 * SECOND_US)
    state = after(state, events.Tick(), 4 * SECOND_US)
    assert state.frozen
    ready = events.RoundReady(generation=1, progress=StateProgress(run=1, samples=1, round=1))
    state, effects = step(state, ready, decision_of, now_us=5 * SECOND_US)
    assert not any(isinstance(effect, events.RoundAccepted) for effect in effects)
    assert state.own.progress == StateProgress(run=1)


def test_a_device_that_computes_another_plan_from_the_same_view_steps_back() -> None:
    state = connected()
    others = [make_profile("b"), make_profile("c")]
    state = after(state, events.Learned(profiles=tuple(others)), 0)
    beat = events.BeatHeard(device=DeviceId("a"), life=state.own.profile.life, view_digest=b"", generation=0)
    state = after(after(state, beat, 10), events.Tick(), 2 * SECOND_US)
    assert state.acks.own_ack is not None
    for other in others:
        ack = attrs.evolve(
            state.acks.own_ack.ack, device=other.device, life=other.life, plan_digest=b"what the others computed"
        )
        state = after(state, events.AckHeard(ack=ack), 2 * SECOND_US)
    assert state.own.profile.unfit
    assert state.acks.active is None


def test_a_device_that_returns_from_an_eviction_goes_above_every_life_that_it_has_heard_of() -> None:
    # found by a scenario: it went above its tombstone only, and then acked in the name of its former process
    state = connected()
    evicted = Life(incarnation=1, boot=b"the first process")
    former = make_profile("a", life=Life(incarnation=2, boot=b"the first process"))
    state = after(state, events.Learned(tombstones={DeviceId("a"): evicted}), 1_000)
    assert state.own.returns_us is not None
    state = after(state, events.Learned(profiles=(former,), source=DeviceId("a")), 2_000)
    state, effects = step(state, events.Tick(), decision_of, now_us=state.own.returns_us or 0)
    acks = [effect.ack for effect in effects if isinstance(effect, events.PublishAck)]
    assert state.own.profile.life == Life(incarnation=3, boot=b"a")
    assert all(ack.life == state.own.profile.life for ack in acks)


def test_waking_when_told_to_never_leads_to_waking_at_once_again() -> None:
    # connected, but no own heartbeat comes back: nothing may be decided, and nothing is due but the next heartbeat
    state = connected()
    others = tuple(make_profile(name) for name in "bc")
    state = after(state, events.Learned(profiles=others), 0)
    state = after(state, events.StatusHeard(device=DeviceId("b"), online=False), 0)
    for _ in range(50):
        due_us = next_deadline_us(state)
        assert due_us is not None
        state = after(state, events.Tick(), due_us)
        again_us = next_deadline_us(state)
        assert again_us is not None
        assert again_us > due_us
    assert state.now_us > 60 * SECOND_US


def test_nothing_is_acked_before_the_state_of_the_run_is_there() -> None:
    state = after(State(own=Own(profile=make_profile("a"))), events.Connected(), 0)
    state = after(state, events.Tick(), 5 * SECOND_US)
    assert state.acks.own_ack is None
    state = after(state, events.StateReached(progress=StateProgress(run=1)), 5 * SECOND_US)
    assert state.acks.own_ack is not None


# --- lives ------------------------------------------------------------------------------------------------------------


def test_a_former_run_that_is_replayed_reaches_every_device_and_changes_nothing() -> None:
    model = Model(Scenario(devices=4, delay_max_us=20_000))
    model.start()
    model.run(10 * SECOND_US)
    for device in model.devices:
        device.crash()
    model.run(20 * SECOND_US)
    for device in model.devices:
        device.boot()
    model.run(40 * SECOND_US)
    lives = [device.state.own.profile.life for device in model.devices]
    active = [device.state.acks.active for device in model.devices]
    model.begin(Fault(at_us=0, kind="replay", device=0, lasts_us=5 * SECOND_US))
    model.run(60 * SECOND_US)
    assert model.replayed == 20
    assert [device.state.own.profile.life for device in model.devices] == lives
    assert [device.state.acks.active for device in model.devices] == active


def test_a_device_that_forgot_its_lives_begins_a_later_one_and_takes_part() -> None:
    model = Model(Scenario(devices=3, delay_max_us=20_000))
    device = model.devices[1]
    device.disk.write(LIFE_FILE, b"8")
    model.start()
    model.run(10 * SECOND_US)
    device.crash()
    device.change_disk("lost")
    model.retained.clear()  # nothing but the others tells it who it was
    device.boot()
    assert device.state.own.profile.life.incarnation == 1
    model.run(60 * SECOND_US)
    assert device.state.own.profile.life.incarnation > 9
    expect_agreement(model)


def test_who_is_left_out_says_so_when_all_others_have_agreed_without_it() -> None:
    others = [make_profile(name) for name in ("a", "b")]
    state = connected("c", task=task_facts(fingerprint=b"another-task"))
    state = after(state, events.Learned(profiles=tuple(others)), SECOND_US)
    state = after(state, events.Tick(), 5 * SECOND_US)
    told = []
    for generation, (profile, digest) in enumerate(
        [(others[0], state.view.digest), (others[1], b"another view"), (others[1], state.view.digest)], start=1
    ):
        ack = Ack(
            device=profile.device,
            life=profile.life,
            generation=generation,
            view_digest=digest,
            plan_digest=decision_of(state.view).plan_digest,
            progress=StateProgress(run=1),
        )
        state, effects = step(state, events.AckHeard(ack=ack), decision_of, now_us=6 * SECOND_US)
        told.append([effect for effect in effects if isinstance(effect, events.Excluded)])
    assert [len(excluded) for excluded in told] == [0, 0, 1]
    assert [out.device for out in told[-1][0].plan.left_out] == ["c"]
