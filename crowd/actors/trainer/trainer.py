"""The trainer: the actor that trains and merges. It hears what there is to do, and lets its parts do it.

No part hears messages or knows this actor. All torch work goes through `Compute`; the bookkeeping is in `Rounds`.
"""

from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import assert_never

import anyio
import structlog

from crowd.actors import inbox
from crowd.actors.inbox import TrainerMessage
from crowd.actors.trainer import beside
from crowd.actors.trainer.backlog import EARLY_MAX, Backlog, place_of
from crowd.actors.trainer.checkpoints import Checkpoints
from crowd.actors.trainer.outside import Outside
from crowd.actors.trainer.training import Training
from crowd.agreement import events
from crowd.learning.task import Task
from crowd.learning.warm_start import WarmStart
from crowd.learning.work import Work
from crowd.protocol import messages
from crowd.runtime import Actor
from crowd.runtime.clock import now_us, reached_us
from crowd.units import DeviceId, Life

log = structlog.get_logger()


class Trainer(Actor[TrainerMessage]):
    """Trains this device's part of the active plan.

    1. `BeginRun` makes the first state; `Activated` begins a generation, if need be by fetching its start.
    2. In each round it trains its samples (`LocalSteps`), sends its delta to the slices' owners, merges its own slices
       (`Merging`), and proposes the round to the planner when all merged slices are here (`Completion`).
    3. `RoundAccepted` makes the proposed state the present one; `Freeze` ends all that.
    """

    def __init__(
        self,
        *,
        task: Task,
        work: Work,
        outside: Outside,
        seed: int,
        checkpoints: Checkpoints,
        supplied: WarmStart | None,
    ) -> None:
        """`supplied`: parameters with which the first run begins, unless this device has a state already."""
        self._outside = outside
        self._early: deque[TrainerMessage] = deque(maxlen=EARLY_MAX)
        self._backlog = Backlog()
        self._training = Training(
            task=task,
            work=work,
            outside=outside,
            seed=seed,
            checkpoints=checkpoints,
            supplied=supplied,
            beside=self._run_beside,
            listen_until=self._keep_until,
        )
        self._rounds = self._training.rounds

    async def started(self) -> None:
        await self._training.start()

    async def stopped(self) -> None:
        await self._training.save_last()

    async def receive(self, message: TrainerMessage) -> None:
        await self._handle(message)
        while (kept := self._backlog.next()) is not None:
            await self._handle(kept)

    async def _handle(self, message: TrainerMessage) -> None:
        training = self._training
        match message:
            case inbox.MeasureSpeed():
                message.reply(await training.measure_speed())
            case inbox.BeginRun(run=run, fresh=fresh):
                await training.begin_run(run, fresh=fresh)
            case _ if not training.states.has_begun:
                log.debug("message_before_run", kind=type(message).__name__)  # of a former life of these actors
            case inbox.MeasureUnused():
                self.spawn(training.measure_unused)
            case inbox.LinkUp():
                self._rounds.restart_clocks(now_us())
            case events.Freeze():
                training.freeze()
            case events.ShowProgress():
                await training.steps.stop()
                await self._outside.planner.tell(events.Progressed())
            case inbox.Activated():
                await training.begin_plan(message)
                await self._hear_early()
            case inbox.Trained(generation=generation, round=number):
                await training.contribute(generation, number)
            case inbox.Appraised():
                await training.tell_appraisal()
            case events.RoundAccepted(progress=progress):
                await training.complete(progress)
                self._save_if_due()
                await self._hear_early()
            case inbox.ContributionEnded(key=key):
                self._rounds.schedule.ended(key)
                await training.go_on()
            case _ if (place := place_of(message)) is not None and self._rounds.is_ahead(*place):
                self._early.append(message)
            case inbox.Arrived(sender=sender, cargo=cargo, data=data):
                await self._take(sender, cargo, data)
            case inbox.Heard(sender=sender, life=life, message=heard):
                await self._hear(sender, life, heard)
            case inbox.FinishedElsewhere(progress=progress, holders=holders):
                training.states.follow(progress, holders)
            case _:
                assert_never(message)

    async def _take(self, sender: DeviceId, cargo: messages.Cargo, data: bytes) -> None:
        training = self._training
        match cargo:
            case messages.Contribution() as header:
                await training.carry_out(await training.merging.take(sender, header, data))
            case messages.MergedSlice() as header:
                await training.carry_out(self._rounds.merged(sender, header, data, now_us()))
            case messages.Parameters() as header:
                await training.steps.take_parameters(sender, header, data)
            case messages.Samples() as header:
                if await training.samples.take(sender, header, data):
                    training.steps.samples_arrived()
            case messages.SampleNames() as header:
                if await training.samples.take_names(sender, header, data, self._rounds.active):
                    training.steps.samples_arrived()
            case messages.WholeState() as header:
                await training.take_state(sender, header, data)
                self._save_if_due()
                await self._hear_early()
            case _:
                assert_never(cargo)

    async def _hear(self, sender: DeviceId, life: Life, message: messages.ForTrainer) -> None:
        training = self._training
        match message:
            case messages.NoSlice(key=key, over=True):
                await training.carry_out(self._rounds.over(sender, key))
            case messages.NoSlice(key=key):
                self._rounds.not_yet(sender, key, now_us())
            case messages.AskSamples() as ask:
                await training.samples.lend(sender, ask, self._rounds.active)
            case messages.AskState(digest=digest):
                await training.states.give(sender, digest)
            case messages.Revoke():
                if training.samples.has_borrowed(sender, life):
                    await training.steps.stop()  # not one step more with them
                await training.samples.give_back(sender, life)
            case _:
                assert_never(message)

    def deadline_us(self) -> int | None:
        samples, states = self._training.samples, self._training.states
        due = (self._rounds.next_deadline_us(), samples.deadline_us(), states.deadline_us())
        return min((time for time in due if time is not None), default=None)

    async def tick(self) -> None:
        now, training = reached_us(), self._training
        await training.states.tick(now)
        await training.samples.tick(now, self._rounds.active)
        await training.carry_out(self._rounds.tick(now))

    def kept(self) -> Mapping[str, int]:
        return {"early messages": len(self._early), "late messages": len(self._backlog), **self._rounds.kept()}

    async def _hear_early(self) -> None:
        """Handle what was told of a generation, or of a round, before it began here."""
        early, self._early = self._early, deque(maxlen=EARLY_MAX)
        for message in early:
            await self.receive(message)

    def _save_if_due(self) -> None:
        if self._training.checkpoint_is_due:
            self.spawn(self._training.save)

    def _run_beside(self, job: beside.Job, message: TrainerMessage) -> None:
        self.spawn(job, partial(self.ref.tell_nowait, message))

    async def _keep_until(self, event: anyio.Event) -> None:
        """Keep what is told until `event`, so that nobody waits for this actor, and let a later plan freeze the round
        in hand at once."""

        def keep(message: TrainerMessage) -> None:
            if isinstance(message, events.Freeze):
                self._training.freeze()
            self._backlog.put(message)  # a freeze too: a plan that is kept before it may be the one that it ends

        await self.listen_until(event, keep)
