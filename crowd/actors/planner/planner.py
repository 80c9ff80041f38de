"""The planner: feeds the pure agreement with events, and carries out its effects."""

import functools
from collections.abc import Callable, Mapping

import attrs
import structlog

from crowd.actors import inbox
from crowd.actors.advice import tell_of_plan, warn_of_left_out, warn_of_settings
from crowd.actors.inbox import DataMoverMessage, PlannerMessage, TrainerMessage
from crowd.actors.lives import Lives
from crowd.actors.planner.decisions import Decisions, Undecided
from crowd.actors.planner.hearing import beat_heard, event_of
from crowd.actors.planner.notices import Notices
from crowd.actors.planner.observations import DeviceLeftOut, Observation, PlanActivated, RunBegun
from crowd.actors.planner.results import Results
from crowd.actors.planner.runs import Runs
from crowd.actors.planner.voice import Voice
from crowd.actors.probe import Probe
from crowd.agreement import events
from crowd.agreement.predicates import is_former_life
from crowd.agreement.state import Active, Own, State, Timing
from crowd.agreement.step import Notable, next_deadline_us, note, note_beat, step
from crowd.planning.plan import SUSPENDED
from crowd.planning.policy import Policy
from crowd.planning.profile import Profile
from crowd.ports import Compute
from crowd.protocol import messages
from crowd.runtime import Actor, ActorRef
from crowd.runtime.clock import now_us, reached_us
from crowd.units import SECOND_US, DeviceId, Life

SETTLE_US = SECOND_US // 2
"""Wait after connecting for retained messages, before this device introduces itself."""

log = structlog.get_logger()


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
        results: Results,
        runs: Runs,
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
        self._watched: tuple[DeviceId, ...] = ()
        self._decisions = Decisions(policies)
        self._voice = Voice(device=device, lives=lives, compute=compute, data_mover=data_mover, probe=probe)
        self._results = results
        self._runs = runs
        self._notices = Notices()

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
            case inbox.BeginNextRun():
                message.reply(await self._begin_next_run(message))
            case inbox.OwnResult(result=result):
                await self._voice.publish_result(result)
                self._results.note_own(result)
                self._results.check_over(self._state)
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
                return self._has_noted(beat_heard(message, beat))
            case events.StatusHeard():
                return self._has_noted(message)
            case _:
                return False

    def deadline_us(self) -> int | None:
        if self._state is None:
            return None if self._own is None else self._settled_us
        if self._state is not self._due_state:
            self._due_state, self._due_us = self._state, next_deadline_us(self._state)
        look_us = self._runs.look_us(self._state)
        if look_us is None or self._due_us is None:
            return self._due_us if look_us is None else look_us
        return min(look_us, self._due_us)

    def kept(self) -> Mapping[str, int]:
        state = self._state
        held = {} if state is None else {"acks": len(state.acks.latest), "tombstones": len(state.view.tombstones)}
        return {"plans": len(self._decisions), **held}

    async def tick(self) -> None:
        await self._begin_if_settled()
        await self._step(events.Tick(), at_least_us=self._due_us)
        unfinished = self._results.unfinished(self._state)
        if unfinished is not None:
            await self._step(unfinished)
        if self._runs.is_due(self._state, reached_us()):
            await self._begin_next_run(inbox.BeginNextRun())

    async def _begin_if_settled(self) -> None:
        if self._state is not None or self._own is None or self._settled_us is None or reached_us() < self._settled_us:
            return
        run = self._runs.first(self._early)
        # the mailbox may hold a profile of a former life of these actors
        self._own = attrs.evolve(self._own, run=run, life=self._life)
        self._state = State(own=Own(profile=self._own), timing=self._timing, now_us=now_us())
        self._probe.agreement_moved(self._state)
        await self._trainer.tell(inbox.BeginRun(run=run))
        self._observe(RunBegun(run=run))
        # messages of the others come first: this device may have to introduce itself in another life
        early = sorted(self._early, key=lambda event: isinstance(event, events.Connected | events.Disconnected))
        self._early = []
        for event in early:
            await self._step(event)

    async def _begin_next_run(self, asked: inbox.BeginNextRun) -> inbox.RunAsked:
        answer = self._runs.answer(asked, self._state)
        if answer.run is not None and self._own is not None and answer.run > self._own.run:
            await self._begin_run(answer.run, fresh=asked.fresh)
        return answer

    async def _begin_run(self, run: int, *, fresh: bool = False) -> None:
        """Take part in this run: whoever sees that from this device's profile does the same."""
        assert self._own is not None
        self._own = attrs.evolve(self._own, run=run)
        self._results.begin_run()
        log.info("run_begins", run=run)
        await self._trainer.tell(inbox.BeginRun(run=run, fresh=fresh))
        self._observe(RunBegun(run=run))
        await self._step(events.OwnProfile(profile=self._own))

    async def _hear(self, heard: inbox.AgreementMessage) -> None:
        sender = heard.sender
        if self._state is not None and is_former_life(self._state, sender, heard.life):
            self._notices.former_life(sender, heard.message)
            await self._step(events.FormerLifeHeard(device=sender))
            return
        match heard.message:
            case messages.ProbeRequest(nonce=nonce):
                if self._state is not None and self._state.own.returns_us is None:
                    await self._voice.send(sender, messages.ProbeAnswer(nonce=nonce, life=self._state.own.profile.life))
            case messages.ResultMessage() as result:
                await self._results.hear(sender, heard.life, result, self._state)
                self._results.check_over(self._state)
            case message if (event := event_of(heard)) is not None:
                if isinstance(message, messages.ProfileMessage):
                    self._voice.keep(message.profile, heard.envelope)
                await self._step(event)
            case _:
                pass

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

    # --- the agreement ------------------------------------------------------------------------------------------------

    async def _step(self, event: events.Event, *, at_least_us: int | None = None) -> None:
        if self._state is None:
            self._early.append(event)
            return
        now = now_us()
        time_us = max(now, min(at_least_us or 0, now + 1_000))
        while True:
            try:
                stepped = step(self._state, event, self._decisions.known, now_us=time_us)
                break
            except Undecided as needed:
                decision = await self._compute.run(functools.partial(self._decisions.work_out, needed.view))
                self._decisions.keep(needed.view, decision)
        before, (self._state, effects) = self._state, stepped
        self._probe.agreement_moved(self._state)
        for effect in effects:
            await self._carry_out(effect)
        if self._state.view is not before.view:
            await self._after_view_change()
        self._results.check_over(self._state)

    async def _after_view_change(self) -> None:
        assert self._state is not None
        state = self._state
        if state.watched != self._watched:
            self._watched = state.watched
            await self._data_mover.tell(inbox.WatchBeats(devices=self._watched))
        if self._own is not None and state.view.run > state.own.profile.run:
            await self._begin_run(state.view.run)
        await self._results.follow(self._state)

    async def _carry_out(self, effect: events.Effect) -> None:
        assert self._state is not None
        match effect:
            case events.ShowProgress() | events.Freeze():
                self._trainer.tell_nowait(effect)
            case events.Activate(active=active):
                await self._activate(active)
            case events.RoundAccepted(progress=progress):
                self._probe.accepted(progress)
                self._trainer.tell_nowait(effect)
            case events.Excluded(plan=plan):
                warn_of_left_out(plan)
                self._observe(DeviceLeftOut(plan=plan))
            case events.Evicted(device=device, reason=reason):
                self._probe.evicted(device, reason)
                self._notices.gone(device, reason=reason)
            case events.Departed(device=device, told_by=told_by):
                self._notices.gone(device, told_by=told_by)
            case events.Suspended(device=device):
                log.warning("device_suspended", suspended=device, reason=SUSPENDED)
            case events.Resumed(device=device):
                log.info("device_resumed", resumed=device)
            case _:
                await self._voice.say(effect, self._state)

    async def _activate(self, active: Active) -> None:
        """Every member has promised the plan: it begins."""
        assert self._state is not None
        plan, profiles = active.plan, self._state.view.profiles
        tell_of_plan(active)
        warn_of_left_out(plan)
        warn_of_settings(plan, profiles)
        begun = inbox.PlanBegun(
            uplink_bytes_s=profiles[self._me].uplink_bytes_s,
            downlinks_bytes_s={member.device: profiles[member.device].downlink_bytes_s for member in plan.members},
            round_us=plan.round_us,
        )
        await self._data_mover.tell(begun)
        rtt_us, memory_bytes = self._state.detector.rtt_us, profiles[self._me].memory_bytes
        self._trainer.tell_nowait(inbox.Activated(active=active, rtt_us=rtt_us, memory_bytes=memory_bytes))
        self._probe.activated(active)
        self._observe(PlanActivated(active=active))
