"""The parts of a trainer at work together: `Training`."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import assert_never

import anyio
import structlog

from crowd.actors import inbox
from crowd.actors.trainer.appraisal import Appraiser
from crowd.actors.trainer.beside import Beside
from crowd.actors.trainer.checkpoint import Checkpoint
from crowd.actors.trainer.checkpoints import Checkpoints
from crowd.actors.trainer.completion import Completion
from crowd.actors.trainer.effects import (
    AskForSlice,
    Begin,
    Complete,
    Effect,
    Fetch,
    Merge,
    ReportHeldUp,
    ReportSilence,
)
from crowd.actors.trainer.learner import Beginning, Learner
from crowd.actors.trainer.local_steps import LocalSteps
from crowd.actors.trainer.merging import Merging
from crowd.actors.trainer.outside import Outside
from crowd.actors.trainer.report import Report
from crowd.actors.trainer.rounds import Rounds
from crowd.actors.trainer.samples_on_loan import SamplesOnLoan
from crowd.actors.trainer.unused_speed import UnusedSpeed
from crowd.actors.trainer.whole_states import WholeStates
from crowd.agreement import events
from crowd.agreement.ack import StateProgress
from crowd.learning.ending import Goal
from crowd.learning.merge import SliceMerge
from crowd.learning.speed_test import measure_speed
from crowd.learning.task import Task
from crowd.learning.warm_start import WarmStart
from crowd.learning.work import Work
from crowd.planning.estimate import samples_spare
from crowd.protocol.messages import AskSlice, WholeState
from crowd.runtime.clock import now_us
from crowd.units import DeviceId

log = structlog.get_logger()


class Training:
    """What concerns several parts: a run, its plans, and what follows from what for rounds. What concerns one is said
    to that part."""

    def __init__(
        self,
        *,
        task: Task,
        work: Work,
        outside: Outside,
        seed: int,
        checkpoints: Checkpoints,
        supplied: WarmStart | None,
        beside: Beside,
        listen_until: Callable[[anyio.Event], Awaitable[None]],
    ) -> None:
        """For `beside` and `listen_until` see `LocalSteps`."""
        self._task = task
        self._work = work
        self._outside = outside
        self._seed = seed
        self._checkpoints = checkpoints
        self._resumed: Checkpoint | None = None
        """What a former life has saved, until the first plan says whether the run goes on from there."""
        self.rounds = rounds = Rounds(outside.device, SliceMerge)
        self._report = Report(outside, has_target=task.target is not None)
        self._learner = Learner(task, work, outside.compute, supplied)
        self.samples = SamplesOnLoan(work.own, outside)
        self.states = WholeStates(work.layout, outside, rounds)
        self.steps = LocalSteps(
            work=work,
            outside=outside,
            rounds=rounds,
            learner=self._learner,
            samples=self.samples,
            report=self._report,
            beside=beside,
            listen_until=listen_until,
        )
        self._appraiser = Appraiser(work, outside.compute, rounds, self._learner, beside)
        self.merging = Merging(work, outside, rounds)
        self._unused = UnusedSpeed(task, work, outside, rounds, self._appraiser)
        self._completion = Completion(
            layout=work.layout,
            goal=Goal.of(task),
            outside=outside,
            rounds=rounds,
            states=self.states,
            steps=self.steps,
            report=self._report,
        )

    async def start(self) -> None:
        # in a worker thread, as a large network makes it too slow for the event loop
        await self._outside.compute.run(self._learner.make)

    async def measure_speed(self) -> int:
        """Time some training steps; the speed in kFLOP/s."""
        self._learner.speed_kflops = await measure_speed(self._task, self._work, self._outside.compute)
        return self._learner.speed_kflops

    async def measure_unused(self) -> None:
        """The same beside the trainer, if this device has no part in the training."""
        await self._unused.measure(self._learner)

    # --- a run and its plans ------------------------------------------------------------------------------------------

    async def begin_run(self, run: int, *, fresh: bool) -> None:
        """Make the first state of the run: `fresh`, or from the model of the run before, if this device has one."""
        await self._halt()
        await self._appraiser.stop()
        has_begun, compute = self.states.has_begun, self._outside.compute
        saved = None if has_begun else await compute.run(self._checkpoints.take)
        resumed = saved if saved is not None and saved.state.run == run else None
        present = self.states.present if has_begun else None if saved is None else saved.state
        beginning = Beginning(run=run, fresh=fresh, present=present)
        state = await compute.run(partial(self._learner.begin_run, self._seed, beginning))
        self._resumed = resumed
        await self.steps.drop_residual()
        self._report.begin_run()
        self.merging.begin_run()
        self.samples.begin_run()
        self.states.begin_run(state)
        self._outside.probe.state_replaced(state, self._learner.residual)
        self.rounds.reset(state)
        if resumed is not None:
            log.info("run_resumed", run=run, round=state.round, digest=state.digest.hex()[:8])
        await self._outside.planner.tell(events.StateReached(progress=state.progress))
        if state.finished:
            await self._report.finish(state, None, self._learner.speed_kflops)

    async def begin_plan(self, activated: inbox.Activated) -> None:
        """Begin a generation; not if it is of an earlier run than the present one, which had not begun here when the
        plan was promised: another plan follows."""
        active, plan = activated.active, activated.active.plan
        if active.start.run < self.states.present.run:
            return
        spare = samples_spare(plan, self._work.facts, self._outside.device, activated.memory_bytes)
        await self._halt()
        await self._appraiser.stop()
        self._learner.abandon()
        self._outside.probe.round_abandoned(self._learner.residual)
        self.merging.begin_plan()
        self.steps.begin_plan()
        self.states.begin_plan(active)
        await self._outside.data_mover.tell(inbox.Forget(generation=active.generation))
        if self._resumed is not None and self._resumed.state.progress == active.start:
            self._learner.resume(self._resumed)
            self._outside.probe.resumed(self._resumed.state, self._learner.residual)
        self._resumed = None
        self._report.begin_plan(plan)
        self.samples.begin_plan()
        if plan.has_work and not active.start.finished:
            await self._outside.compute.run(lambda: self.steps.assign(active, self.samples.assign(plan, spare)))
            self._outside.probe.order_drawn(active.generation)
            await self.samples.borrow(active)
        else:
            spare += plan.samples_borrowed(self._outside.device)  # nothing takes their room yet
            await self._outside.compute.run(partial(self.samples.assign_none, plan, spare))
        await self.carry_out(self.rounds.activate(active, now_us(), rtt_us=activated.rtt_us))

    def freeze(self) -> None:
        """Complete no more rounds, as a later plan is promised."""
        self.rounds.freeze()
        self.states.stop_fetching()
        self.steps.stop_soon()

    async def _halt(self) -> None:
        """Stop the local steps, wait until they have, and forget them and the round that was proposed."""
        await self.steps.halt()
        self._completion.withdraw()

    async def carry_out(self, effects: Sequence[Effect]) -> None:
        """Do what the bookkeeping of rounds wants done."""
        for effect in effects:
            match effect:
                case Begin(round=number):
                    self._begin_round(number)
                case Fetch(progress=progress, holders=holders):
                    await self.states.fetch(progress, holders)
                case Merge():
                    await self.carry_out(await self.merging.merge(effect))
                case Complete(parts=parts):
                    await self._completion.propose(parts)
                case AskForSlice(owner=owner, key=key):
                    await self._outside.say(owner, AskSlice(key=key))
                case ReportSilence(device=device):
                    await self._outside.planner.tell(events.OwnerSilent(device=device))
                case ReportHeldUp(devices=devices, since_us=since_us, links=links):
                    self._report.held_up(self.rounds.in_hand, devices)
                    held_up = events.HeldUp(devices=devices, since_us=since_us, links=links)
                    await self._outside.planner.tell(held_up)
                case _:
                    assert_never(effect)

    # --- rounds -------------------------------------------------------------------------------------------------------

    def _begin_round(self, number: int) -> None:
        active, state = self.rounds.active, self.states.present
        assert active is not None
        part = active.plan.trainer(self._outside.device)
        if part is None:
            self._appraiser.begin(number, active, state)
        else:
            self.steps.begin(number, active, state, part)

    async def contribute(self, generation: int, number: int) -> None:
        """Send the trained delta to the owners of the slices."""
        parts = await self.steps.contribute(generation, number)
        for part in parts:
            await self.carry_out(await self.merging.hand_in(part.owner, part.header, part.data))
        if parts:
            await self.go_on()

    async def go_on(self) -> None:
        """Begin the next local steps where these do not wait for rounds."""
        if not self.steps.are_in_hand:
            await self.carry_out(self.rounds.renew())

    async def tell_appraisal(self) -> None:
        """Tell the owner of slice 0 what came of an evaluation beside the rounds, and begin the next that is due."""
        appraisal, active = self._appraiser.take(), self.rounds.active
        if appraisal is None or active is None or self.states.present.finished or self.rounds.lineage == (0, b""):
            return
        header = appraisal.contribution
        if header is not None:
            self._outside.probe.contributed(header, b"")
            await self.carry_out(await self.merging.hand_in(self.rounds.round_plan.slices[0].owner, header, b""))
        if not self.rounds.frozen:
            self._begin_round(self.rounds.in_hand)

    async def complete(self, progress: StateProgress) -> None:
        """The agreement allows it: make the state that is proposed there the present one, and go on from it."""
        if not self._completion.has_proposed(progress):
            return
        state = await self._completion.complete()
        await self.carry_out(self.rounds.accepted(state, now_us()))
        for device in self.rounds.schedule.waiting():
            await self.states.give(device, b"")

    # --- what outlives the process ------------------------------------------------------------------------------------

    @property
    def checkpoint_is_due(self) -> bool:
        return self.states.has_begun and self._checkpoints.is_due(self.states.present.progress)

    async def save(self) -> None:
        """Save the present state, and what this device needs beside it to go on from there."""
        state = self.states.present
        if await self._checkpoints.save(self._learner.checkpoint(state), self._outside.compute):
            self._outside.probe.saved(state.progress)

    async def save_last(self) -> None:
        """The same at the end of this life, unless that state is saved."""
        if (
            self.states.has_begun
            and self.states.present.round
            and self.states.present.progress != self._checkpoints.saved
        ):
            await self.save()

    async def take_state(self, sender: DeviceId, header: WholeState, data: bytes) -> None:
        """Go on from the state that has come, if it was wanted."""
        state = await self.states.opened(sender, header, data)
        if state is None:
            return
        await self._halt()
        await self.steps.drop_residual()
        self._learner.replaced(state)
        self.states.replace(state)
        self._outside.probe.state_replaced(state, self._learner.residual)
        log.info("state_fetched", round=state.round, holder=sender, digest=state.digest.hex()[:8])
        await self._outside.planner.tell(events.StateReached(progress=state.progress))
        if state.finished:
            await self._report.finish(state, None, self._learner.speed_kflops)
        await self.carry_out(self.rounds.fetched(state, now_us()))
