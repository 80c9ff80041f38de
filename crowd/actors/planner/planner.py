"""The planner: feeds the pure agreement with events, and carries out its effects."""

import functools
from collections.abc import Callable, Mapping
from typing import TypeAlias, assert_never

import attrs
import structlog

from crowd.actors import inbox
from crowd.actors.advice import warn_of_left_out, warn_of_settings
from crowd.actors.inbox import DataMoverMessage, PlannerMessage, TrainerMessage
from crowd.actors.lives import Lives
from crowd.actors.probe import Probe
from crowd.agreement import events
from crowd.agreement.predicates import is_former_life
from crowd.agreement.state import Active, Decision, Own, State, Timing
from crowd.agreement.step import Notable, next_deadline_us, note, note_beat, step
from crowd.agreement.view import View
from crowd.errors import InfeasiblePlan
from crowd.planning.check import violations
from crowd.planning.plan import SUSPENDED, Plan, plan_digest
from crowd.planning.policy import Policy, decide
from crowd.planning.profile import Profile
from crowd.ports import Compute
from crowd.protocol import messages
from crowd.runtime import Actor, ActorRef
from crowd.runtime.clock import now_us, reached_us
from crowd.units import SECOND_US, Address, Channel, DeviceId, Life

SETTLE_US = SECOND_US // 2
"""Wait after connecting for retained messages, before this device introduces itself."""

MEMO_MAX = 16

UNFINISHED_LINKS = 4
"""A device that has not finished may fetch the final state from several others in turn, each for as long as one may
keep the others waiting."""

log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class PlanActivated:
    """The node's observers are told that a new generation has begun."""

    active: Active


@attrs.frozen(kw_only=True)
class ResultKnown:
    """The node's observers are told that a device has published the result of its run."""

    device: DeviceId
    result: messages.ResultMessage


@attrs.frozen(kw_only=True)
class RunOver:
    """The node's observers are told that every living member has published the result of this run."""

    run: int


@attrs.frozen(kw_only=True)
class DeviceLeftOut:
    """The node's observers are told that the others plan without this device; the plan says why."""

    plan: Plan


Observation: TypeAlias = DeviceLeftOut | PlanActivated | ResultKnown | RunOver


class _Undecided(Exception):
    """A step needs a plan that has not been computed yet.

    Raised by `Planner._decide` through the agreement, which is pure: the step is dropped, the plan computed outside of
    the event loop, and the step made anew with the same state and event.
    """

    def __init__(self, view: View) -> None:
        self.view = view


class Planner(Actor[PlannerMessage]):
    """Runs the agreement of one device.

    1. Waits for the profiler's first profile and for what the broker has retained.
    2. From then on every message, and the passing of time, is one `step` of the agreement.
    """

    def __init__(
        self,
        *,
        device: DeviceId,
        life: Life,
        lives: Lives,
        policies: Mapping[str, Policy],
        compute: Compute,
        trainer: ActorRef[TrainerMessage],
        data_mover: ActorRef[DataMoverMessage],
        observe: Callable[[Observation], None],
        timing: Timing,
        probe: Probe,
    ) -> None:
        self._me = device
        self._life = life
        self._lives = lives
        self._policies = policies
        self._compute = compute
        self._trainer = trainer
        self._data_mover = data_mover
        self._observe = observe
        self._timing = timing
        self._probe = probe
        self._state: State | None = None
        self._own: Profile | None = None
        self._due_state: State | None = None
        """The state whose deadline `_due_us` is, kept because it is asked for again and again."""
        self._due_us: int | None = None
        self._settled_us: int | None = None
        self._early: list[events.Event] = []
        self._memo: dict[bytes, Decision] = {}
        self._envelopes: dict[DeviceId, tuple[Profile, bytes]] = {}
        self._results: dict[DeviceId, messages.ResultMessage] = {}
        self._result_lives: dict[DeviceId, Life] = {}
        self._followed: DeviceId | None = None
        """The device that was last named to the trainer as holder of the final state."""
        self._watched: tuple[DeviceId, ...] = ()
        self._nonce = 0
        self._over_run, self._has_ended = 0, False  # has_ended: it has told so in this life

    # --- messages -----------------------------------------------------------------------------------------------------

    async def receive(self, message: PlannerMessage) -> None:
        match message:
            case inbox.AgreementMessage():
                await self._hear(message)
            case events.Connected():
                if self._state is None and self._settled_us is None:
                    self._settled_us = now_us() + SETTLE_US
                await self._step(message)
            case events.OwnProfile(profile=profile):
                self._own = profile if self._own is None else attrs.evolve(profile, run=self._own.run)
                if self._state is not None:
                    await self._step(events.OwnProfile(profile=self._own))
            case inbox.OwnResult(result=result):
                self._results[self._me], self._has_ended = result, True
                await self._send(Address(channel=Channel.RESULT, source=self._me), result, retain=True)
                self._observe(ResultKnown(device=self._me, result=result))
                self._check_over()
            case _:
                await self._step(message)
        await self._begin_if_settled()

    def absorb(self, message: PlannerMessage) -> bool:
        """Whether the message was noted at once: nearly all messages of a large cluster are acks from which nothing
        follows yet, heartbeats, and repeated signs that a device is online."""
        match message:
            case inbox.AgreementMessage(sender=sender, message=messages.AckMessage(ack=ack)) if ack.device == sender:
                return self._has_noted(events.AckHeard(ack=ack))
            case inbox.AgreementMessage(message=messages.Beat() as beat):
                return self._has_noted(_beat_heard(message, beat))
            case events.StatusHeard():
                return self._has_noted(message)
            case _:
                return False

    def deadline_us(self) -> int | None:
        if self._state is None:
            return None if self._own is None else self._settled_us
        if self._state is not self._due_state:
            self._due_state, self._due_us = self._state, next_deadline_us(self._state)
        return self._due_us

    def kept(self) -> Mapping[str, int]:
        state = self._state
        held = {} if state is None else {"acks": len(state.acks.latest), "tombstones": len(state.view.tombstones)}
        return {"plans": len(self._memo), **held}

    async def tick(self) -> None:
        await self._begin_if_settled()
        await self._step(events.Tick(), at_least_us=self._due_us)
        await self._report_unfinished()

    async def _begin_if_settled(self) -> None:
        if self._state is not None or self._own is None or self._settled_us is None or reached_us() < self._settled_us:
            return
        run = self._first_run()
        # the mailbox may hold a profile of a former life of these actors
        self._own = attrs.evolve(self._own, run=run, life=self._life)
        self._state = State(own=Own(profile=self._own), timing=self._timing, now_us=now_us())
        self._probe.agreement_moved(self._state)
        await self._trainer.tell(inbox.BeginRun(run=run))
        # messages of the others come first: this device may have to introduce itself in another life
        early = sorted(self._early, key=lambda event: isinstance(event, events.Connected | events.Disconnected))
        self._early = []
        for event in early:
            await self._step(event)

    def _first_run(self) -> int:
        """The run of the devices that are here; without any, the one after the last that is known to have ended."""
        offline = {event.device for event in self._early if isinstance(event, events.StatusHeard) and not event.online}
        runs = [
            profile.run
            for event in self._early
            if isinstance(event, events.Learned)
            for profile in event.profiles
            if profile.device not in offline and profile.device != self._me
        ]
        ended = [result.progress.run for result in self._results.values()]
        return max(runs) if runs else 1 + max(ended, default=0)

    async def _hear(self, heard: inbox.AgreementMessage) -> None:
        sender = heard.sender
        if self._state is not None and is_former_life(self._state, sender, heard.life):
            await self._step(events.FormerLifeHeard(device=sender))
            return
        match heard.message:
            case messages.AckMessage(ack=ack):
                if ack.device == sender:
                    await self._step(events.AckHeard(ack=ack))
            case messages.ProfileMessage(profile=profile):
                if profile.device == sender:
                    known = self._envelopes.get(sender)
                    if known is None or profile.version > known[0].version:
                        self._envelopes[sender] = (profile, heard.envelope)
                    await self._step(events.Learned(profiles=(profile,), source=sender))
            case messages.Beat() as beat:
                await self._step(_beat_heard(heard, beat))
            case messages.Evictions(lives=lives):
                await self._step(events.Learned(tombstones=lives, source=sender))
            case messages.Suspensions(devices=suspensions):
                await self._step(events.Learned(suspensions=suspensions, source=sender))
            case messages.ViewReply(tombstones=tombstones, suspended=suspensions):
                await self._step(events.Learned(tombstones=tombstones, suspensions=suspensions, source=sender))
            case messages.ViewRequest():
                await self._step(_view_requested(sender, heard.message))
            case messages.ProbeRequest(nonce=nonce):
                if self._state is not None and self._state.own.returns_us is None:
                    await self._send_to(sender, messages.ProbeAnswer(nonce=nonce, life=self._state.own.profile.life))
            case messages.ProbeAnswer(life=life):
                await self._step(events.ProbeAnswered(device=sender, life=life))
            case messages.ResultMessage() as result:
                self._result_lives[sender] = heard.life
                await self._hear_result(sender, result)
            case _:
                assert_never(heard.message)

    def _has_noted(self, heard: Notable | events.BeatHeard) -> bool:
        """Whether `heard` is taken in without anything else to do, and with nothing due earlier than it was."""
        if self._state is None:
            return False
        if isinstance(heard, events.BeatHeard):
            noted = note_beat(self._state, heard, now_us=now_us())
        else:
            noted = note(self._state, heard)
        if noted is None:
            return False
        if self._due_state is self._state:
            self._due_state = noted
        self._state = noted
        self._probe.agreement_moved(noted)
        return True

    async def _hear_result(self, sender: DeviceId, result: messages.ResultMessage) -> None:
        self._results[sender] = result
        self._observe(ResultKnown(device=sender, result=result))
        await self._follow_result(sender)
        self._check_over()

    async def _follow_result(self, device: DeviceId) -> None:
        """Fetch the final state of the device that has published a result, instead of redoing its rounds."""
        state, result = self._state, self._results[device]
        if device == self._me:
            return  # a former life's, and its state has gone with it
        if (
            state is None
            or state.own.progress.finished
            or not any(profile.device == device for profile in self._peers())
        ):
            return
        told_in = self._result_lives.get(device)
        if told_in is None or state.view.profiles[device].life.boot != told_in.boot:
            return  # its process has ended since, and the state with it
        if self._followed is not None and any(profile.device == self._followed for profile in self._peers()):
            return
        if result.progress.run == state.own.profile.run and result.progress > state.own.progress:
            self._followed = device
            await self._trainer.tell(inbox.FinishedElsewhere(progress=result.progress, holders=(device,)))

    def _peers(self) -> tuple[Profile, ...]:
        """The living devices with this very task whose work does not stand still: another's state is of no use here,
        and a device that is left out for its task never has the result of this run."""
        assert self._state is not None
        own, view = self._state.own.profile.task.fingerprint, self._state.view
        return tuple(
            profile
            for profile in view.living
            if profile.task.fingerprint == own and profile.device not in view.suspended
        )

    def _check_over(self) -> None:
        state = self._state
        if not self._has_ended or state is None or not state.own.progress.finished:
            return  # what the broker has kept of this device is a former life's, and its model has gone with that
        if state.own.profile.run <= self._over_run:
            return
        # this device too, though others have evicted it and it is no peer at the moment
        if not all(map(self._has_finished, {self._me, *(profile.device for profile in self._peers())})):
            return  # one is still on its way to the same final state
        self._over_run = state.own.profile.run
        self._observe(RunOver(run=self._over_run))

    async def _report_unfinished(self) -> None:
        """Let the agreement know for whose results the end of the run waits."""
        state = self._state
        if state is None or state.own.finished_us is None or self._over_run >= state.own.profile.run:
            return
        without = {profile.device for profile in self._peers() if not self._has_finished(profile.device)} - {self._me}
        if without:
            since_us = max(state.own.finished_us, state.view_changed_us, state.stalls.began_us)
            links = UNFINISHED_LINKS
            await self._step(events.HeldUp(devices=frozenset(without), since_us=since_us, links=links))

    def _has_finished(self, device: DeviceId) -> bool:
        """Whether the device has published the result that this one has reached."""
        assert self._state is not None
        result = self._results.get(device)
        return result is not None and result.progress == self._state.own.progress

    # --- the agreement ------------------------------------------------------------------------------------------------

    async def _step(self, event: events.Event, *, at_least_us: int | None = None) -> None:
        if self._state is None:
            self._early.append(event)
            return
        now = now_us()
        time_us = max(now, min(at_least_us or 0, now + 1_000))
        while True:
            try:
                stepped = step(self._state, event, self._decide, now_us=time_us)
                break
            except _Undecided as needed:
                await self._work_out(needed.view)
        before, (self._state, effects) = self._state, stepped
        self._probe.agreement_moved(self._state)
        for effect in effects:
            await self._carry_out(effect)
        if self._state.view is not before.view:
            await self._after_view_change()
        self._check_over()

    def _decide(self, view: View) -> Decision:
        if view.digest not in self._memo:
            raise _Undecided(view)
        return self._memo[view.digest]

    async def _work_out(self, view: View) -> None:
        def work() -> Decision:
            plan = decide(view.living, self._policies, view.suspended)
            broken = violations(plan, view.living)
            if broken:
                raise InfeasiblePlan(f"the policy made a plan that cannot be carried out: {broken[0]}")
            return Decision(plan=plan, plan_digest=plan_digest(plan))

        while len(self._memo) >= MEMO_MAX:
            del self._memo[next(iter(self._memo))]
        self._memo[view.digest] = await self._compute.run(work)

    async def _after_view_change(self) -> None:
        assert self._state is not None
        state = self._state
        if state.watched != self._watched:
            self._watched = state.watched
            await self._data_mover.tell(inbox.WatchBeats(devices=self._watched))
        if self._own is not None and state.view.run > state.own.profile.run:
            self._own = attrs.evolve(self._own, run=state.view.run)
            self._followed = None
            await self._trainer.tell(inbox.BeginRun(run=state.view.run))
            await self._step(events.OwnProfile(profile=self._own))
        for device in list(self._results):
            await self._follow_result(device)

    async def _carry_out(self, effect: events.Effect) -> None:
        assert self._state is not None
        match effect:
            case events.PublishProfile(profile=profile):
                if not self._lives.has_reached(profile.life.incarnation):
                    await self._compute.run(functools.partial(self._lives.reach, profile.life.incarnation))
                await self._data_mover.tell(inbox.NewLife(life=profile.life))
                address = Address(channel=Channel.PROFILE, source=self._me)
                await self._send(address, messages.ProfileMessage(profile=profile), retain=True)
            case events.PublishAck(ack=ack):
                self._probe.promised(ack)
                log.debug("plan_acknowledged", generation=ack.generation, round=ack.progress.round)
                await self._send(
                    Address(channel=Channel.ACK, source=self._me), messages.AckMessage(ack=ack), retain=True
                )
            case events.SendAck(device=device, ack=ack):
                self._probe.promised(ack)
                await self._send_to(device, messages.AckMessage(ack=ack))
            case events.PublishEvictions(lives=lives):
                address = Address(channel=Channel.ALL, source=self._me)
                await self._send(address, messages.Evictions(lives=dict(lives)))
            case events.SendBeat(view_digest=view_digest, generation=generation):
                beat = messages.Beat(life=self._state.own.profile.life, view_digest=view_digest, generation=generation)
                await self._send(Address(channel=Channel.BEAT, source=self._me), beat)
            case events.AskView(device=device):
                await self._send_to(device, self._view_request())
            case events.PublishSuspensions(suspensions=suspensions):
                for device in sorted(suspensions.keys() - {self._me}):
                    self._probe.suspended(device)
                address = Address(channel=Channel.ALL, source=self._me)
                await self._send(address, messages.Suspensions(devices=dict(suspensions)))
            case events.ShowProgress() | events.Freeze():
                self._trainer.tell_nowait(effect)
            case events.SendView():
                await self._send_view(effect)
            case events.SendProbe(device=device):
                self._probe.probed(device)
                self._nonce += 1
                await self._send_to(device, messages.ProbeRequest(nonce=self._nonce))
            case events.Activate(active=active):
                self._report_activation(active)
                warn_of_settings(active.plan, self._state.view.profiles)
                await self._data_mover.tell(self._plan_begun(active.plan))
                self._trainer.tell_nowait(inbox.Activated(active=active, rtt_us=self._state.detector.rtt_us))
                self._probe.activated(active)
                self._observe(PlanActivated(active=active))
            case events.RoundAccepted(progress=progress):
                self._probe.accepted(progress)
                self._trainer.tell_nowait(effect)
            case events.Excluded(plan=plan):
                warn_of_left_out(plan)
                self._observe(DeviceLeftOut(plan=plan))
            case events.Evicted(device=device, reason=reason):
                self._probe.evicted(device, reason)
                log.warning("device_evicted", departed=device, reason=reason)
            case events.Suspended(device=device):
                log.warning("device_suspended", suspended=device, reason=SUSPENDED)
            case events.Resumed(device=device):
                log.info("device_resumed", resumed=device)
            case _:
                assert_never(effect)

    def _report_activation(self, active: Active) -> None:
        log.info(
            "plan_activated",
            generation=active.generation,
            plan=active.plan_digest.hex()[:8],
            members=[member.device for member in active.plan.members],
            start_round=active.start.round,
            why=active.plan.why,
        )
        warn_of_left_out(active.plan)

    def _plan_begun(self, plan: Plan) -> inbox.PlanBegun:
        assert self._state is not None
        profiles = self._state.view.profiles
        return inbox.PlanBegun(
            uplink_bytes_s=profiles[self._me].uplink_bytes_s,
            downlinks_bytes_s={member.device: profiles[member.device].downlink_bytes_s for member in plan.members},
            round_us=plan.round_us,
        )

    def _view_request(self) -> messages.ViewRequest:
        assert self._state is not None
        view = self._state.view
        return messages.ViewRequest(
            versions={
                device: messages.Version(life=profile.life, revision=profile.revision)
                for device, profile in view.profiles.items()
            },
            tombstones=dict(view.tombstones),
            suspended=dict(view.suspensions),
        )

    async def _send_view(self, told: events.SendView) -> None:
        assert self._state is not None
        if self._me in told.profiles:
            await self._send_to(told.device, messages.ProfileMessage(profile=self._state.own.profile))
        envelopes = tuple(self._envelopes[name][1] for name in told.profiles if name in self._envelopes)
        reply = messages.ViewReply(
            envelopes=envelopes, tombstones=dict(told.tombstones), suspended=dict(told.suspensions)
        )
        if reply.envelopes or reply.tombstones or reply.suspended:
            await self._send_to(told.device, reply)

    async def _send_to(self, device: DeviceId, message: messages.Message) -> None:
        await self._send(Address(channel=Channel.TO, source=self._me, destination=device), message)

    async def _send(self, address: Address, message: messages.Message, *, retain: bool = False) -> None:
        await self._data_mover.tell(inbox.Send(address=address, message=message, retain=retain))


def _view_requested(sender: DeviceId, request: messages.ViewRequest) -> events.ViewRequested:
    return events.ViewRequested(
        device=sender,
        versions={device: (version.life, version.revision) for device, version in request.versions.items()},
        tombstones=request.tombstones,
        suspensions=request.suspended,
    )


def _beat_heard(heard: inbox.AgreementMessage, beat: messages.Beat) -> events.BeatHeard:
    return events.BeatHeard(
        device=heard.sender,
        life=beat.life,
        view_digest=beat.view_digest,
        generation=beat.generation,
        rtt_us=heard.rtt_us,
    )
