"""`step` on a handful of devices, where each fate of each message is chosen and not left to a clock.

What is sent hangs in the air until it is delivered, lost or delivered once more; time stands still until it is passed.
The checks know what devices said and when, and nothing of how they decide. In the end all is healed, and they agree.
"""

import copy
import hashlib
from collections.abc import Callable
from typing import assert_never

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from crowd.agreement import events
from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.state import Active, Decision, Own, State
from crowd.agreement.step import next_deadline_us, step
from crowd.agreement.view import View
from crowd.planning.profile import Share
from crowd.units import SECOND_US, DeviceId, Life
from tests.agreement.cluster_model import ROUND_US, Checks
from tests.agreement.test_agreement import decision_of
from tests.support.profiles import make_profile, task_facts

DEVICES_MAX = 4
HEALED_US = 1_000 * SECOND_US
"""Longer than the pauses of a device that was evicted nine times."""
CALM_US = 5 * SECOND_US

numbers = st.integers(0, DEVICES_MAX - 1)
places = st.integers(0, 99)


@attrs.frozen
class Probe:
    """Are you there? Answered by the life that it finds."""

    asker: DeviceId


@attrs.define
class Device:
    name: DeviceId
    state: State
    alive: bool = True
    muted: bool = False
    """Nothing gets to it or from it, whether it has noticed or not."""
    heard_itself: bool = False
    """Whether it heard itself in this connection."""
    active: Active | None = None
    """What its trainer was last told to do."""
    training: int | None = None
    """The generation whose rounds it works on."""
    in_step: bool = False
    """Whether its state is the start of that generation, or one made from it."""
    from_trainer: events.RoundReady | events.StateReached | None = None
    """On its way to the planner."""
    round_due_us: int = 0
    shows_progress: bool = False
    """Whether its planner has asked the trainer whether its work goes on, and has no answer yet."""

    @property
    def life(self) -> Life:
        return self.state.own.profile.life


class Agreement(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_us = 0
        self.devices: list[Device] = []
        self.air: list[tuple[DeviceId, events.Event | Probe]] = []
        self.retained: dict[tuple[DeviceId, type], events.Event] = {}
        self.decisions: dict[bytes, Decision] = {}
        self.boots = 0
        self.calm = False
        self.checks = Checks()
        self.acks: dict[tuple[DeviceId, Life, int], Ack] = {}
        self.acked: dict[tuple[DeviceId, Life], int] = {}

    @initialize(
        count=st.integers(2, DEVICES_MAX), boots=st.lists(st.binary(max_size=1), min_size=4), calm=st.booleans()
    )
    def devices_start(self, count: int, boots: list[bytes], calm: bool) -> None:
        for index in range(count):
            self.devices.append(Device(DeviceId(f"d{index}"), self._fresh(DeviceId(f"d{index}"), boots[index])))
            self._connect(self.devices[index])
        if calm:
            self._pass_calmly(self.now_us + 5 * SECOND_US, until=lambda: False)

    def _fresh(self, name: DeviceId, random: bytes) -> State:
        """A process that has just started, with a network of its own making."""
        self.boots += 1
        boot = random + b"%d" % self.boots
        profile = make_profile(name, life=Life(incarnation=1, boot=boot), task=task_facts(evaluation_samples=0))
        return State(own=Own(profile=profile, progress=StateProgress(run=1, digest=boot)))

    # --- the fate of messages -----------------------------------------------------------------------------------------

    @precondition(lambda self: self.air)
    @rule(place=places)
    def a_message_arrives(self, place: int) -> None:
        self._deliver(*self.air.pop(place % len(self.air)))

    @precondition(lambda self: self.air)
    @rule(place=places)
    def a_message_arrives_and_will_come_again(self, place: int) -> None:
        self._deliver(*self.air[place % len(self.air)])

    @precondition(lambda self: self.air)
    @rule(place=places)
    def a_message_is_lost(self, place: int) -> None:
        self.air.pop(place % len(self.air))

    @precondition(lambda self: self.air)
    @rule(number=numbers)
    def one_device_hears_all_that_was_sent_to_it(self, number: int) -> None:
        name = self._device(number).name
        mine = [message for target, message in self.air if target == name]
        self.air = [sent for sent in self.air if sent[0] != name]
        for message in mine:
            self._deliver(name, message)

    @precondition(lambda self: self.air)
    @rule(lost=st.booleans())
    def everything_sent_so_far_arrives_or_is_lost(self, lost: bool) -> None:
        air, self.air = self.air, []
        for name, message in air:
            if not lost:
                self._deliver(name, message)

    def _deliver(self, name: DeviceId, message: events.Event | Probe) -> None:
        device = self._named(name)
        if not device.alive or device.muted or not device.state.own.connected:
            return
        if isinstance(message, Probe):
            self._send(device, message.asker, events.ProbeAnswered(device=name, life=device.life))
            return
        if isinstance(message, events.BeatHeard) and (message.device, message.life) == (name, device.life):
            device.heard_itself = True
        self._step(device, message)

    # --- time ---------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self._due())
    @rule()
    def time_passes_to_the_next_deadline(self) -> None:
        self._tick(min(self._due()))

    @rule(seconds=st.sampled_from([1, 3, 10, 20]))
    def time_passes(self, seconds: int) -> None:
        self._tick(self.now_us + seconds * SECOND_US)

    @rule(seconds=st.integers(1, 20))
    def for_a_while_nothing_goes_wrong(self, seconds: int) -> None:
        self._pass_calmly(self.now_us + seconds * SECOND_US, until=lambda: False)

    def _due(self) -> list[int]:
        deadlines = (next_deadline_us(device.state) for device in self.devices if device.alive)
        return [deadline_us for deadline_us in deadlines if deadline_us is not None]

    def _tick(self, now_us: int) -> None:
        self.now_us = max(self.now_us, now_us)
        for device in self.devices:
            if device.alive:
                if device.shows_progress:
                    device.shows_progress = False
                    self._step(device, events.Progressed())
                self._step(device, events.Tick())
                due_us = next_deadline_us(device.state)
                assert due_us is None or due_us > self.now_us, "a tick leaves nothing to be done at once"

    # --- what devices do ----------------------------------------------------------------------------------------------

    @rule(number=numbers, speed_kflops=st.integers(1, 3), share=st.sampled_from(Share), memory=st.integers(1, 2))
    def a_device_has_news_of_itself(self, number: int, speed_kflops: int, share: Share, memory: int) -> None:
        device = self._device(number)
        if device.alive:
            own = attrs.evolve(
                device.state.own.profile, speed_kflops=speed_kflops, share=share, memory_bytes=memory << 30
            )
            self._step(device, events.OwnProfile(profile=own))

    @precondition(lambda self: any(device.training for device in self.devices))
    @rule(number=numbers, at_once=st.booleans())
    def a_trainer_has_a_round_or_the_state_it_lacked(self, number: int, at_once: bool) -> None:
        """Its planner may hear of it a little later."""
        device = self._device(number)
        self._fetch(device)
        self._propose(device)
        if at_once:
            self._listen(device)

    @precondition(lambda self: any(device.from_trainer for device in self.devices))
    @rule(number=numbers)
    def a_planner_hears_of_its_trainer(self, number: int) -> None:
        self._listen(self._device(number))

    @precondition(lambda self: any(device.training for device in self.devices))
    @rule(number=numbers, owner=numbers)
    def an_owner_seems_silent(self, number: int, owner: int) -> None:
        device, silent = self._device(number), self._device(owner)
        if device.alive and device is not silent and device.training is not None:
            self._step(device, events.OwnerSilent(device=silent.name))

    @precondition(lambda self: any(device.training for device in self.devices))
    @rule(number=numbers, other=numbers)
    def a_device_seems_to_stand_still(self, number: int, other: int) -> None:
        device, still = self._device(number), self._device(other)
        if device.alive and device is not still and device.training is not None:
            self._step(device, events.HeldUp(devices=frozenset([still.name]), since_us=-1000 * SECOND_US))

    def _propose(self, device: Device) -> None:
        active, done = device.state.acks.active, device.state.own.progress
        if not device.alive or device.from_trainer or active is None or device.training is None or not device.in_step:
            return
        number = done.round + 1
        made_of = f"{active.generation} {active.plan_digest.hex()} {done}".encode()
        samples = done.samples + len(active.plan.trainers)
        progress = StateProgress(run=1, samples=samples, round=number, digest=hashlib.blake2b(made_of).digest())
        device.from_trainer = events.RoundReady(generation=active.generation, progress=progress)

    def _fetch(self, device: Device) -> None:
        active = device.state.acks.active
        if device.alive and not device.from_trainer and active is not None and not device.in_step:
            device.in_step = True
            device.from_trainer = events.StateReached(progress=active.start)

    def _listen(self, device: Device) -> None:
        event, device.from_trainer = device.from_trainer, None
        if event is not None:
            self._step(device, event)

    # --- faults -------------------------------------------------------------------------------------------------------

    @rule(number=numbers, random=st.binary(max_size=1))
    def a_device_crashes_or_returns_as_a_new_life(self, number: int, random: bytes) -> None:
        device = self._device(number)
        if not device.alive:
            self._boot(device, random)
        else:
            device.alive = False
            self._say_of(device, online=False)

    @rule(number=numbers, noticed=st.booleans())
    def a_device_is_cut_off_or_no_more(self, number: int, noticed: bool) -> None:
        """First nothing gets through; the device may notice; then it is back."""
        device = self._device(number)
        if not device.muted:
            device.muted = True
        elif noticed and device.alive and device.state.own.connected:
            self._step(device, events.Disconnected())
            self._say_of(device, online=False)
        else:
            self._mend(device)

    @rule(number=numbers)
    def an_old_will_is_spread(self, number: int) -> None:
        self._say_of(self._device(number), online=False)

    @rule()
    def the_broker_forgets_everything(self) -> None:
        self.retained.clear()
        for device in self.devices:
            if device.alive and not device.muted and device.state.own.connected:
                self._step(device, events.Disconnected())
                self._connect(device)

    def _boot(self, device: Device, random: bytes) -> None:
        fresh = Device(device.name, self._fresh(device.name, random), muted=device.muted)
        self.devices[self.devices.index(device)] = fresh
        if not fresh.muted:
            self._connect(fresh)

    def _mend(self, device: Device) -> None:
        device.muted = False
        if device.alive and not device.state.own.connected:
            self._connect(device)

    def _connect(self, device: Device) -> None:
        device.heard_itself = False
        self.air += [(device.name, event) for event in self.retained.values()]
        self._step(device, events.Connected())
        self._say_of(device, online=True)

    def _say_of(self, device: Device, *, online: bool) -> None:
        status = events.StatusHeard(device=device.name, online=online)
        self.air += [(other.name, status) for other in self.devices if other is not device]

    # --- one step, and what is checked in it --------------------------------------------------------------------------

    def _decide(self, view: View) -> Decision:
        if view.digest not in self.decisions:
            self.decisions[view.digest] = decision_of(view)
        return self.decisions[view.digest]

    def _step(self, device: Device, event: events.Event) -> None:
        before = device.state
        given = before if self.calm else copy.deepcopy(before)
        stepped = step(before, event, self._decide, now_us=self.now_us)
        if not self.calm:
            assert given == before, "a step changed the state that it was given"
            assert step(given, event, self._decide, now_us=self.now_us) == stepped, "equal input, another output"
        device.state = stepped[0]
        for effect in stepped[1]:
            self._carry_out(device, event, effect)

    def _carry_out(self, device: Device, event: events.Event, effect: events.Effect) -> None:
        me, state = device.name, device.state
        match effect:
            case events.PublishProfile(profile=profile):
                self._retain(device, events.Learned(profiles=(profile,), source=me))
            case events.PublishAck(ack=ack):
                self._check_ack(device, ack)
                self._retain(device, events.AckHeard(ack=ack))
            case events.SendAck(device=other, ack=ack):
                self._check_ack(device, ack)
                self._send(device, other, events.AckHeard(ack=ack))
            case events.PublishEvictions(lives=lives):
                assert me not in lives
                self._tell_others(device, events.Learned(tombstones=lives, source=me))
            case events.SendBeat(view_digest=digest, generation=generation):
                beat = events.BeatHeard(device=me, life=device.life, view_digest=digest, generation=generation)
                self._send(device, me, beat)
                self._tell_others(device, beat)
            case events.PublishSuspensions(suspensions=suspensions):
                self._tell_others(device, events.Learned(suspensions=suspensions, source=me))
            case events.ShowProgress():
                device.shows_progress = True
            case events.Suspended() | events.Resumed() | events.Departed():
                pass
            case events.AskView(device=other):
                versions = {name: profile.version for name, profile in state.view.profiles.items()}
                asked = events.ViewRequested(
                    device=me,
                    versions=versions,
                    tombstones=dict(state.view.tombstones),
                    suspensions=dict(state.view.suspensions),
                )
                self._send(device, other, asked)
            case events.SendView(device=other, profiles=names, tombstones=tombstones, suspensions=suspensions):
                profiles = tuple(state.view.profiles[name] for name in names)
                told = events.Learned(profiles=profiles, tombstones=tombstones, suspensions=suspensions, source=me)
                self._send(device, other, told)
            case events.SendProbe(device=other):
                self._send(device, other, Probe(me))
            case events.Freeze():
                device.training = None
            case events.Activate(active=active):
                self._check_activation(device)
                device.active = active
                device.training = active.generation
                device.in_step = state.own.progress == active.start
                device.from_trainer = None
                device.round_due_us = self.now_us + ROUND_US
            case events.RoundAccepted(progress=progress):
                assert isinstance(event, events.RoundReady)
                acked = self.acked.get((me, device.life), 0)
                assert event.generation >= acked, f"{me} completes a round of {event.generation}, past {acked}"
                assert device.active is not None
                self.checks.completed(me, device.active, progress)
                device.round_due_us = self.now_us + ROUND_US
            case events.Evicted():
                assert device.heard_itself, f"{me} evicts others, and does not hear itself"
            case events.Excluded():
                assert me in state.view.suspended, f"{me} is left out, but it is like the others"
            case _:
                assert_never(effect)

    def _check_ack(self, device: Device, ack: Ack) -> None:
        self.checks.acked(ack)
        acked = self.acked.get((ack.device, ack.life), 0)
        assert (ack.device, ack.life) == (device.name, device.life), "an ack in the name of another life"
        assert ack.generation >= acked, f"{ack.device} falls back from {acked} to {ack.generation}"
        assert device.training is None or device.training >= ack.generation, "an ack, and the old round goes on"
        self.acked[ack.device, ack.life] = ack.generation
        self.acks[ack.device, ack.life, ack.generation] = ack

    def _check_activation(self, device: Device) -> None:
        """Every member, in the very life, has acked this plan; the start is the best that they acked with."""
        active = device.state.acks.active
        assert active is not None
        assert device.heard_itself, "a plan begins on a device that does not hear itself"
        self.checks.activated(device.name, device.life, active)
        assert active.plan.life_of(device.name) == device.life
        acks = [self.acks.get((one.device, one.life, active.generation)) for one in active.plan.members]
        for ack in acks:
            assert ack is not None, "a member has not acked anything"
            assert (ack.view_digest, ack.plan_digest) == (active.view_digest, active.plan_digest)
        progress = {ack.device: ack.progress for ack in acks if ack is not None}
        assert active.start == max(progress.values())
        assert active.holders == tuple(sorted(name for name in progress if progress[name] == active.start))

    @invariant()
    def every_connected_device_knows_when_to_wake(self) -> None:
        for device in self.devices:
            due_us = next_deadline_us(device.state)
            assert (due_us is not None) is device.state.own.connected
            assert due_us is None or due_us >= device.state.now_us

    # --- the network --------------------------------------------------------------------------------------------------

    def _send(self, source: Device, target: DeviceId, message: events.Event | Probe) -> None:
        if not source.muted:
            self.air.append((target, message))

    def _tell_others(self, source: Device, event: events.Event) -> None:
        for other in self.devices:
            if other.name != source.name:
                self._send(source, other.name, event)

    def _retain(self, source: Device, event: events.Event) -> None:
        if not source.muted:
            self.retained[source.name, type(event)] = event
        self._tell_others(source, event)

    def _device(self, number: int) -> Device:
        return self.devices[number % len(self.devices)]

    def _named(self, name: DeviceId) -> Device:
        return next(device for device in self.devices if device.name == name)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _pass_calmly(self, stop_us: int, until: Callable[[], bool]) -> None:
        """Everything arrives at once, states are fetched and rounds are completed, until then."""
        self.calm = True
        while self.now_us < stop_us and not until():
            while self.air:
                self._deliver(*self.air.pop(0))
            for device in self.devices:
                self._fetch(device)
                if self.now_us >= device.round_due_us:
                    self._propose(device)
                self._listen(device)
            if not self.air:
                rounds = [device.round_due_us for device in self.devices if device.alive and device.training]
                due = [due_us for due_us in [*self._due(), *rounds] if due_us > self.now_us]
                self._tick(min(due, default=stop_us))
        self.calm = False

    def _agreed(self) -> bool:
        """One plan, made of what every device knows now, is active on all; all are its members as they live, none has
        acked another, and none suspects one of them."""
        lives = [(device.name, device.life) for device in self.devices]
        plans = set()
        for device in self.devices:
            active = device.state.acks.active
            if active is None or active.view_digest != device.state.view.digest or device.training is None:
                return False
            if device.state.detector.probes_us:  # whose answer may be lost: then another plan follows
                return False
            if [(member.device, member.life) for member in active.plan.members] != lives:
                return False
            plans.add((active.generation, active.view_digest, active.plan_digest))
        return len(plans) == 1 and not self.air

    def teardown(self) -> None:
        """L1: once messages flow and membership rests, every member activates the same plan, and stays with it."""
        if not self.devices:
            return
        for device in list(self.devices):
            if not device.alive:
                device.muted = False
                self._boot(device, b"")
            self._mend(device)
        self._pass_calmly(self.now_us + HEALED_US, until=self._agreed)
        assert self._agreed(), f"L1: {[(device.name, device.state.acks.active) for device in self.devices]}"
        agreed = [device.state.acks.active for device in self.devices]
        rounds = self.checks.rounds_completed
        self._pass_calmly(self.now_us + CALM_US, until=lambda: False)
        assert [device.state.acks.active for device in self.devices] == agreed, "L1: they agreed, but not for long"
        assert self.checks.rounds_completed > rounds + len(self.devices), "L1: rounds do not go on"


def test_devices_agree_whatever_becomes_of_their_messages() -> None:
    run_state_machine_as_test(
        Agreement,
        settings=settings(
            max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


def test_a_device_whose_probe_was_lost_is_evicted_and_comes_back() -> None:
    # found by the machine: the last plan was still active on both while one of them waited for an answer in vain
    cluster = Agreement()
    cluster.devices_start(count=2, boots=[b"", b""], calm=True)
    one, other = cluster.devices
    agreed = one.state.acks.active
    assert agreed is not None
    cluster.an_old_will_is_spread(number=0)
    cluster.a_message_arrives(place=0)
    assert list(other.state.detector.probes_us) == [one.name]
    cluster.a_message_is_lost(place=0)
    cluster.teardown()
    assert one.state.acks.active == other.state.acks.active
    assert one.state.acks.active is not None
    assert one.state.acks.active.generation > agreed.generation


def test_two_devices_that_have_evicted_each_other_find_together_again() -> None:
    # found by the machine: both evictions were lost on the way, and each ignored the heartbeats of the other for ever
    cluster = Agreement()
    cluster.devices_start(count=2, boots=[b"", b""], calm=True)
    one, other = cluster.devices
    for device, suspect in ((one, other), (other, one)):
        cluster._step(device, events.StatusHeard(device=suspect.name, online=False))
    for _ in range(2):
        cluster.air.clear()
        cluster._tick(cluster.now_us + 2 * SECOND_US)
    cluster.air.clear()
    assert not one.state.view.is_living(other.name)
    assert not other.state.view.is_living(one.name)
    cluster.teardown()
