"""The trainer: local steps, encoded deltas, merged rounds, and the replicated state that they lead to.

Layout: messages and timers, a generation and its samples, local steps, an owner's side, completing a round, getting and
giving whole states, the end of a run. All torch work goes through `Compute`; the bookkeeping is in `Rounds`.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, assert_never

import anyio
import attrs
import structlog
import torch

from crowd.actors import inbox
from crowd.actors.inbox import DataMoverMessage, PlannerMessage, ProfilerMessage, TrainerMessage
from crowd.actors.probe import Probe
from crowd.actors.trainer.appraisal import Appraiser
from crowd.actors.trainer.attendance import Attendance
from crowd.actors.trainer.backlog import EARLY_MAX, Backlog, generation_of
from crowd.actors.trainer.effects import (
    AskForSlice,
    Begin,
    Complete,
    Effect,
    Fetch,
    Merge,
    MergedPart,
    ReportHeldUp,
    ReportSilence,
)
from crowd.actors.trainer.gossip import Gossip
from crowd.actors.trainer.lending import is_named, loans
from crowd.actors.trainer.local_round import PIECE_US, LocalRound, RoundInputs
from crowd.actors.trainer.metrics import RunMetrics
from crowd.actors.trainer.observations import Observation, RoundDone, RunFinished
from crowd.actors.trainer.owner import Owner, fate_of
from crowd.actors.trainer.rounds import Rounds
from crowd.agreement import events
from crowd.agreement.ack import StateProgress
from crowd.agreement.state import Active
from crowd.errors import MalformedMessage
from crowd.learning import replica
from crowd.learning.encoding import decode
from crowd.learning.ending import BILLION, after_round, is_evaluated, is_last
from crowd.learning.feedback import Fate, Feedback
from crowd.learning.merge import SliceMerge
from crowd.learning.pool import EpochSampler, TrainingPool
from crowd.learning.replica import ReplicaState
from crowd.learning.samples import SampleSet, seeded
from crowd.learning.shards import LentSamples, Ranges, Source, share_of
from crowd.learning.speed_test import measure_speed
from crowd.learning.task import Task
from crowd.learning.work import LocalTrainer, StepConfig, Work, starting_model
from crowd.planning.plan import PPM, Encoding, Plan, Sampling, SliceOwner
from crowd.ports import Compute, Traffic
from crowd.protocol import messages
from crowd.protocol.messages import Contribution, MergedSlice, SliceKey
from crowd.runtime import Actor, ActorRef
from crowd.runtime.clock import now_us, reached_us
from crowd.units import SECOND_US, Address, Channel, DeviceId, Life, ceil_div

BORROW_AGAIN_US = 5 * SECOND_US
FOLLOW_AFTER_ROUNDS = 3
FOLLOW_AFTER_US_MIN, FOLLOW_AFTER_US_MAX = SECOND_US // 5, 3 * SECOND_US
"""Wait after a result, which overtakes the last merged slices on their way: only a device that lacks them after so
long, or after what they may take, fetches."""
STANDSTILL_S = 5.0
"""Seconds that local steps may take to end when they are told to, before they are said to stand still: a piece takes a
fifth of a second."""

log = structlog.get_logger()


@attrs.frozen(kw_only=True, eq=False)
class _Proposal:
    """A round that could be completed, if the agreement allows it."""

    state: ReplicaState
    parts: tuple[MergedPart, ...]


@attrs.frozen(kw_only=True)
class _Wanted:
    """A state that is being fetched."""

    progress: StateProgress
    holders: tuple[DeviceId, ...]
    attempt: int = 0
    again_us: int
    since_us: int = 0
    """When it was first asked for, and what it takes over this device's link."""


class Trainer(Actor[TrainerMessage]):
    """Trains this device's part of the active plan.

    1. `BeginRun` makes the first state; `Activated` begins a generation, if need be by fetching its start.
    2. In each round it trains its samples (`LocalRound`), sends its delta to the slices' owners, merges its own slices,
       and proposes the round to the planner when all merged slices are here.
    3. `RoundAccepted` makes the proposed state the present one; `Freeze` ends all that.
    """

    def __init__(
        self,
        *,
        device: DeviceId,
        task: Task,
        work: Work,
        compute: Compute,
        planner: ActorRef[PlannerMessage],
        data_mover: ActorRef[DataMoverMessage],
        profiler: ActorRef[ProfilerMessage],
        observe: Callable[[Observation], None],
        traffic: Callable[[], Traffic],
        downlink_bytes_s: int,
        seed: int,
        probe: Probe,
    ) -> None:
        self._me = device
        self._task = task
        self._work = work
        self._facts = work.facts
        self._compute = compute
        self._planner = planner
        self._data_mover = data_mover
        self._profiler = profiler
        self._observe = observe
        self._traffic = traffic
        self._downlink_bytes_s = downlink_bytes_s
        self._seed = seed
        self._probe = probe
        self._speed_kflops = 0
        self._state: ReplicaState | None = None
        self._start: ReplicaState | None = None
        self._rounds = Rounds(device)
        self._evaluation = work.evaluation
        """This device's share of the evaluation set."""
        self._appraiser = Appraiser(work, compute)
        self._lent = LentSamples(work.store)
        self._borrowed: dict[Source, Ranges] = {}
        self._borrow_again_us: int | None = None
        self._lent_us = 0
        """When samples last came from a lender, or were first asked for."""
        self._pool: TrainingPool | None = None
        self._sampler: EpochSampler | None = None
        self._epochs_reported = 0
        self._local_round: LocalRound | None = None
        self._gossip: Gossip | None = None
        self._held_up = 0
        """The last round of which it was said that others hold it up."""
        self._proposal: _Proposal | None = None
        self._wanted: _Wanted | None = None
        self._finished_elsewhere: _Wanted | None = None
        self._early: deque[TrainerMessage] = deque(maxlen=EARLY_MAX)
        self._backlog = Backlog()
        self._attendance = Attendance()
        self._metrics = RunMetrics()
        self._owner = Owner(self._me, self._work.layout)

    # --- messages and timers ------------------------------------------------------------------------------------------

    async def started(self) -> None:
        await self._compute.run(self._make_tools)

    def _make_tools(self) -> None:
        """Make all that a large network makes too slow for the event loop, in a worker thread."""
        self._local = self._local_trainer(self._task.model())
        self._inner = self._local.snapshot()
        """The optimiser's state at the last complete round."""
        self._feedback = Feedback(self._work.layout)

    def _local_trainer(self, model: torch.nn.Module) -> LocalTrainer:
        return LocalTrainer(self._task, model, self._work.layout, executes=self._compute.executes)

    async def receive(self, message: TrainerMessage) -> None:
        await self._handle(message)
        while (kept := self._backlog.next()) is not None:
            await self._handle(kept)

    async def _handle(self, message: TrainerMessage) -> None:
        match message:
            case inbox.MeasureSpeed():
                self._speed_kflops = await measure_speed(self._task, self._work, self._compute)
                message.reply(self._speed_kflops)
            case inbox.BeginRun(run=run):
                await self._begin_run(run)
            case _ if self._state is None:
                log.debug("message_before_run", kind=type(message).__name__)  # of a former life of these actors
            case inbox.LinkUp():
                self._rounds.restart_clocks(now_us())
            case events.Freeze():
                self._freeze()
            case events.ShowProgress():
                await self._stop_steps()
                await self._planner.tell(events.Progressed())
            case inbox.Activated(active=active, rtt_us=rtt_us):
                await self._activate(active, rtt_us)
            case inbox.Trained(generation=generation, round=number):
                await self._contribute(generation, number)
            case inbox.Appraised():
                await self._tell_appraisal()
            case events.RoundAccepted(progress=progress):
                await self._complete(progress)
            case inbox.ContributionEnded(key=key):
                self._rounds.schedule.ended(key)
                await self._go_on()
            case _ if (of := generation_of(message)) is not None and self._rounds.is_ahead(of):
                self._early.append(message)
            case inbox.Arrived(sender=sender, cargo=cargo, data=data):
                await self._take(sender, cargo, data)
            case inbox.Heard(sender=sender, life=life, message=heard):
                await self._hear(sender, life, heard)
            case inbox.FinishedElsewhere(progress=progress, holders=holders):
                again_us = now_us() + self._follow_after_us()
                self._finished_elsewhere = _Wanted(progress=progress, holders=holders, again_us=again_us)
            case _:
                assert_never(message)

    async def _take(self, sender: DeviceId, cargo: messages.Cargo, data: bytes) -> None:
        match cargo:
            case Contribution() as header:
                await self._take_contribution(sender, header, data)
            case MergedSlice() as header:
                await self._carry_out(self._rounds.merged(sender, header, data, now_us()))
            case messages.Parameters() as header:
                if self._gossip is not None:
                    await self._gossip.take(sender, header, data)
            case messages.Samples() as header:
                await self._take_samples(sender, header, data)
            case messages.WholeState() as header:
                await self._take_state(sender, header, data)
            case _:
                assert_never(cargo)

    async def _hear(self, sender: DeviceId, life: Life, message: messages.ForTrainer) -> None:
        match message:
            case messages.NoSlice(key=key, over=True):
                await self._carry_out(self._rounds.over(sender, key))
            case messages.NoSlice(key=key):
                self._rounds.not_yet(sender, key, now_us())
            case messages.AskSamples() as ask:
                await self._lend(sender, ask)
            case messages.AskState(digest=digest):
                await self._give_state(sender, digest)
            case messages.Revoke():
                await self._give_back(sender, life)
            case _:
                assert_never(message)

    def deadline_us(self) -> int | None:
        due = [self._rounds.next_deadline_us(), self._borrow_again_us]
        due.extend(want.again_us for want in (self._wanted, self._finished_elsewhere) if want is not None)
        times = [time for time in due if time is not None]
        return min(times, default=None)

    def kept(self) -> Mapping[str, int]:
        return {"early messages": len(self._early), "late messages": len(self._backlog), **self._rounds.kept()}

    async def tick(self) -> None:
        now = reached_us()
        await self._follow(now)
        if self._wanted is not None and now >= self._wanted.again_us:
            wanted, ahead = self._wanted, self._rounds.ahead  # these have that state, or a later one
            holders = (*wanted.holders, *sorted(ahead.difference(wanted.holders, {self._me})))
            await self._ask_for_state(attrs.evolve(wanted, holders=holders, attempt=wanted.attempt + 1))
            if len(holders) == 1 and not ahead:  # of several one would have answered: it is the own link
                await self._planner.tell(events.HeldUp(devices=frozenset(holders), since_us=wanted.since_us, links=0))
        if self._borrow_again_us is not None and now >= self._borrow_again_us:
            await self._borrow(self._rounds.active)
            lenders = frozenset(
                source.device for source, ranges in self._borrowed.items() if self._lent.missing(source, ranges)
            )
            await self._planner.tell(events.HeldUp(devices=lenders, since_us=self._lent_us, links=0))
        await self._carry_out(self._rounds.tick(now))

    def _follow_after_us(self) -> int:
        active = self._rounds.active
        if not self._rounds.schedule.publishes:
            return 0  # no slices are on their way
        round_us = 0 if active is None else active.plan.round_us
        patience_us = max(FOLLOW_AFTER_US_MIN, FOLLOW_AFTER_ROUNDS * round_us)
        return max(min(patience_us, FOLLOW_AFTER_US_MAX), self._transfer_us)

    @property
    def _transfer_us(self) -> int:
        """Microseconds for a whole state over this device's link: four times what its bytes take."""
        return 16 * self._facts.state_elements * SECOND_US // max(1, self._downlink_bytes_s)

    async def _follow(self, now: int) -> None:
        """Fetch the final state that others hold, unless this device has reached it by itself meanwhile."""
        final = self._finished_elsewhere
        if final is None or now < final.again_us:
            return
        if self._wanted is not None:  # one state after the other
            self._finished_elsewhere = attrs.evolve(final, again_us=now + FOLLOW_AFTER_US_MIN)
            return
        self._finished_elsewhere = None
        if self._state is not None and final.progress > self._state.progress:
            await self._fetch(final.progress, final.holders)

    async def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Begin(round=number):
                    self._begin_round(number)
                case Fetch(progress=progress, holders=holders):
                    await self._fetch(progress, holders)
                case Merge(key=key, merge=merge, evaluation=evaluation):
                    await self._merge_slice(key, merge, evaluation)
                case Complete(parts=parts):
                    await self._propose(parts)
                case AskForSlice(owner=owner, key=key):
                    await self._send_to(owner, messages.AskSlice(key=key))
                case ReportSilence(device=device):
                    await self._planner.tell(events.OwnerSilent(device=device))
                case ReportHeldUp(devices=devices, since_us=since_us, links=links):
                    if self._rounds.in_hand != self._held_up:
                        self._held_up = self._rounds.in_hand
                        log.warning("round_held_up", by=sorted(devices), round=self._held_up)
                    await self._planner.tell(events.HeldUp(devices=devices, since_us=since_us, links=links))
                case _:
                    assert_never(effect)

    async def _send_to(self, device: DeviceId, message: messages.Message) -> None:
        address = Address(channel=Channel.TO, source=self._me, destination=device)
        await self._data_mover.tell(inbox.Send(address=address, message=message))

    # --- a generation and its samples ---------------------------------------------------------------------------------

    async def _begin_run(self, run: int) -> None:
        await self._halt()
        await self._appraiser.stop()

        def work() -> tuple[ReplicaState, LocalTrainer]:
            model = starting_model(self._task, seed=self._seed, run=run)
            state = replica.initial(model, run, self._work.layout)
            _ = state.digest  # computed here, away from the event loop
            return state, self._local_trainer(model)

        state, self._local = await self._compute.run(work)
        self._inner = self._local.snapshot()
        await self._drop_residual()
        self._metrics = RunMetrics()
        self._owner = Owner(self._me, self._work.layout)
        self._wanted = self._start = self._pool = None
        self._rounds = Rounds(self._me)
        self._state = state
        self._probe.state_replaced(state, self._feedback.residual)
        self._rounds.reset(state.progress)
        await self._planner.tell(events.StateReached(progress=state.progress))

    async def _activate(self, active: Active, rtt_us: int) -> None:
        assert self._state is not None
        await self._halt()
        await self._appraiser.stop()
        self._feedback.abandon()
        self._probe.round_abandoned(self._feedback.residual)
        self._owner.plan_begun()
        self._gossip = None
        self._wanted = None
        self._start = self._state if self._state.progress == active.start else None
        self._metrics.generations += 1
        await self._data_mover.tell(inbox.Forget(generation=active.generation))
        if active.plan.has_work:
            self._metrics.begin(now_us(), self._traffic())
        self._borrowed, self._borrow_again_us, self._pool = {}, None, None
        if active.plan.has_work and not active.start.finished:
            await self._compute.run(partial(self._assign, active))
            self._probe.order_drawn(active.generation)
            self._lent_us = now_us()
            await self._borrow(active)
        else:
            await self._compute.run(partial(self._lent.keep_only, {}))
        await self._carry_out(self._rounds.activate(active, now_us(), rtt_us=rtt_us))
        early, self._early = self._early, deque(maxlen=EARLY_MAX)
        for message in early:
            await self.receive(message)

    def _assign(self, active: Active) -> None:
        """Take over everything that the plan names for this device, in a worker thread."""
        plan = active.plan
        self._local.restore(self._inner)
        own, self._borrowed = share_of(plan, self._me, {member.device: member.data_epoch for member in plan.members})
        self._lent.keep_only(self._borrowed)
        self._pool = TrainingPool(self._work.store, self._lent, own, self._borrowed)
        self._sampler = EpochSampler(len(self._pool), seed=plan.seed, generation=active.generation, device=self._me)
        self._epochs_reported = 0
        self._chance = seeded("importance", plan.seed, active.generation, self._me)
        if plan.mixing is not None:
            self._gossip = Gossip(
                self._me, plan.mixing, active, self._work.layout, self._compute, self._send_parameters
            )
        part, share = plan.trainer(self._me), self._work.evaluation
        if part is not None and self._facts.evaluation_samples:
            start, stop = part.evaluation
            share = SampleSet(share.inputs[start:stop], share.labels[start:stop])
        self._evaluation = share

    async def _borrow(self, active: Active | None) -> None:
        """Ask every lender for the samples that have not come yet."""
        self._borrow_again_us = None
        for source, ranges in self._borrowed.items():
            missing = self._lent.missing(source, ranges)
            if not missing:
                continue
            self._borrow_again_us = now_us() + BORROW_AGAIN_US
            if active is not None:
                ask = messages.AskSamples(
                    generation=active.generation,
                    plan_digest=active.plan_digest,
                    data_epoch=source.data_epoch,
                    ranges=missing,
                )
                await self._send_to(source.device, ask)

    async def _take_samples(self, lender: DeviceId, header: messages.Samples, data: bytes) -> None:
        if header.lender != lender or not any(source.device == lender for source in self._borrowed):
            return
        try:
            await self._compute.run(partial(self._lent.add, header, data))
        except MalformedMessage as error:
            log.warning("samples_refused", lender=lender, error=str(error))
            return
        self._lent_us = now_us()
        if self._borrow_again_us is not None:
            missing = any(self._lent.missing(source, ranges) for source, ranges in self._borrowed.items())
            self._borrow_again_us = now_us() + BORROW_AGAIN_US if missing else None
        if self._local_round is not None:
            self._local_round.samples_arrived()

    async def _give_back(self, lender: DeviceId, life: Life) -> None:
        """Delete what a lender has lent by then, in that life or before, as it asks: not one step more with it."""
        revoked = {source for source in self._borrowed if source.device == lender and source.life <= life}
        if not revoked:
            return
        await self._stop_steps()
        self._borrowed = {source: ranges for source, ranges in self._borrowed.items() if source not in revoked}
        await self._compute.run(partial(self._lent.drop, lender, life))
        self._pool = None
        log.info("samples_given_back", lender=lender)

    async def _lend(self, borrower: DeviceId, ask: messages.AskSamples) -> None:
        """Send the samples that the active plan lends to this borrower, and nothing else."""
        active = self._rounds.active
        if active is None or (ask.generation, ask.plan_digest) != (active.generation, active.plan_digest):
            return
        if not is_named(active.plan, self._me, borrower, ask):
            log.warning("lending_refused", borrower=borrower, reason="the plan does not name these samples")
            return
        store = self._work.store
        for header in loans(active.plan, self._me, ask, store.format):
            data = await self._compute.run(partial(store.to_bytes, header.ranges))
            await self._data_mover.tell(inbox.SendCargo(destination=borrower, cargo=header, data=data))

    # --- local steps --------------------------------------------------------------------------------------------------

    async def _halt(self) -> None:
        """Stop the local steps, wait until they have, and forget them and the round that was proposed."""
        await self._stop_steps()
        self._local_round = self._proposal = None

    async def _stop_steps(self) -> None:
        """Stop local steps that go on. What has been handed in stays this device's part of the round."""
        if self._local_round is not None and not self._local_round.ended.is_set():
            self._local_round.stop()
            await self._wait_for_end(self._local_round)
            self._local_round = None

    async def _wait_for_end(self, steps: LocalRound) -> None:
        """Wait until these local steps have ended. If they stand still, keep what is told meanwhile, so that nobody
        waits for this actor, and let a later plan freeze the round in hand at once."""
        with anyio.move_on_after(STANDSTILL_S):
            await steps.ended.wait()
            return
        log.warning("training_stands_still", round=steps.number, seconds=STANDSTILL_S)

        def keep(message: TrainerMessage) -> None:
            if isinstance(message, events.Freeze):
                self._freeze()
            self._backlog.put(message)  # a freeze too: a plan that is kept before it may be the one that it ends

        await self.listen_until(steps.ended, keep)
        log.info("training_goes_on", round=steps.number)

    def _freeze(self) -> None:
        self._rounds.freeze()
        self._wanted = None
        if self._local_round is not None:
            self._local_round.stop()

    def _begin_round(self, number: int) -> None:
        active = self._rounds.active
        assert active is not None
        assert self._state is not None
        plan, schedule = active.plan, self._rounds.schedule
        part = plan.trainer(self._me)
        if part is None:
            appraisal = self._appraiser.begin(active, self._state, number, self._local, self._speed_kflops)
            if appraisal is not None:
                self.spawn(appraisal.run, partial(self.ref.tell_nowait, inbox.Appraised()))
            return
        if self._pool is None or self._sampler is None or not self._rounds.schedule.is_free:
            return
        if self._local_round is not None:
            return  # the local steps in hand are not cut short
        trains = not (self._state.closing or is_last(plan, self._state))
        batch = part.batch_size or self._facts.batch_size
        piece_samples = self._speed_kflops * PIECE_US // 1000 // self._facts.flops_per_sample
        self._local_round = LocalRound(
            RoundInputs(
                local=self._local,
                state=self._state,
                offset=schedule.offset(self._feedback.residual),
                step_config=StepConfig(
                    batch_size=batch,
                    proximal=plan.proximal_ppm / PPM,
                    chance=self._chance if plan.sampling is Sampling.IMPORTANCE else None,
                ),
                sampling=plan.sampling,
                pool=self._pool,
                sampler=self._sampler,
                facts=self._facts,
                evaluation=self._due_evaluation(number, active, self._state),
                samples=part.round_samples if trains else 0,
                piece_samples=max(1, piece_samples // batch) * batch,
                gossip=self._gossip if trains else None,
            ),
            self._compute,
            number,
            self._timed,
        )
        done = inbox.Trained(generation=active.generation, round=number)
        self.spawn(self._local_round.run, partial(self.ref.tell_nowait, done))

    async def _tell_appraisal(self) -> None:
        """Tell the owner of slice 0 what came of an evaluation beside the rounds, and begin the next that is due."""
        appraisal, active, state = self._appraiser.take(), self._rounds.active, self._state
        if appraisal is None or active is None or state is None or state.finished or self._rounds.lineage == (0, b""):
            return
        header = appraisal.contribution
        if header is not None:
            self._probe.contributed(header, b"")
            await self._hand_in(header, b"", active.plan.slices[0].owner)
        if not self._rounds.frozen:
            self._begin_round(self._rounds.in_hand)

    async def _hand_in(self, header: Contribution, data: bytes, owner: DeviceId) -> None:
        if owner == self._me:
            await self._take_contribution(self._me, header, data)
        else:
            await self._data_mover.tell(inbox.SendCargo(destination=owner, cargo=header, data=data))

    def _due_evaluation(self, number: int, active: Active, state: ReplicaState) -> SampleSet:
        """This device's share of the evaluation set, empty if round `number`, after `state`, is not to be evaluated."""
        share, due = self._evaluation, self._rounds.schedule.is_due(number, state)
        return share if due or is_evaluated(active.plan, state) else SampleSet(share.inputs[:0], share.labels[:0])

    async def _go_on(self) -> None:
        """Begin the next local steps where these do not wait for rounds, if nothing of the last ones is on its way."""
        schedule = self._rounds.schedule
        if not schedule.detached or self._rounds.frozen or self._rounds.progress.finished:
            return
        if self._local_round is None and schedule.is_free:
            await self._carry_out(self._rounds.renew())

    async def _send_parameters(self, neighbour: DeviceId, header: messages.Parameters, data: bytes) -> None:
        await self._data_mover.tell(inbox.SendCargo(destination=neighbour, cargo=header, data=data))

    async def _timed(self, samples: int, flops: int, elapsed_us: int) -> None:
        self._metrics.samples_trained += samples
        self._metrics.busy_us += elapsed_us
        self._speed_kflops = flops * 1000 // max(1, elapsed_us)
        await self._profiler.tell(inbox.StepsTimed(flops=flops, elapsed_us=elapsed_us))

    async def _contribute(self, generation: int, number: int) -> None:
        """Send the trained delta to the owners of the slices."""
        active, inputs, state = self._rounds.active, self._local_round, self._state
        if active is None or state is None or inputs is None or self._rounds.frozen:
            return
        plan = active.plan
        if generation != active.generation or number != inputs.number:
            return
        schedule = self._rounds.schedule
        if number != self._rounds.in_hand and not schedule.detached:
            return
        encoding = schedule.encoding(state)

        def work() -> tuple[list[bytes], tuple[int, ...]]:
            delta = inputs.delta = self._local.delta()
            encoded = [self._feedback.contribute(delta, span.start, span.stop, encoding) for span in plan.slices]
            if schedule.detached:  # some round will take it; which one is all the same to the residual
                self._feedback.commit(delta, {(span.start, span.stop): Fate.MERGED for span in plan.slices})
                self._inner = self._local.snapshot()
            return encoded, self._local.counters()

        encoded, counters = await self._compute.run(work)
        self._rounds.trained(number)
        headers = [
            Contribution(
                key=SliceKey(generation=generation, plan_digest=active.plan_digest, round=number, index=index),
                encoding=encoding,
                samples=inputs.samples,
                counters=() if index else counters,
                correct=0 if index else inputs.correct,
                evaluated=0 if index else inputs.evaluated,
            )
            for index in range(len(plan.slices))
        ]
        if schedule.detached:
            self._local_round = None
        schedule.sent(frozenset(h.key for h in headers if plan.slices[h.key.index].owner != self._me))
        for header, data in zip(headers, encoded, strict=True):
            self._probe.contributed(header, data)
        for header, span, data in zip(headers, plan.slices, encoded, strict=True):
            await self._hand_in(header, data, span.owner)
        await self._go_on()

    # --- an owner's side ----------------------------------------------------------------------------------------------

    async def _take_contribution(self, sender: DeviceId, header: Contribution, data: bytes) -> None:
        active = self._rounds.active
        if active is None:
            return
        try:
            if active.plan.trainer(sender) is None:
                await self._carry_out(self._rounds.evaluated(sender, header, now_us()))
                return
            if not self._rounds.is_mine(header.key):
                return
            span = active.plan.slices[header.key.index]
            delta = await self._compute.run(partial(self._decoded, data, header.encoding, span))
            effects = self._rounds.contribute(sender, header, delta, now_us())
        except MalformedMessage as error:
            log.warning("contribution_refused", sender=sender, error=str(error))
            return
        await self._carry_out(effects)

    def _decoded(self, data: bytes, encoding: Encoding, span: SliceOwner) -> torch.Tensor:
        """The delta of a slice, (stop - start,) float32. Raises `MalformedMessage`."""
        return decode(data, encoding, self._work.layout.pieces(span.start, span.stop))

    async def _merge_slice(self, key: SliceKey, merge: SliceMerge, evaluation: tuple[int, int] | None) -> None:
        """Average a slice, encode it with what earlier encodings lost, and publish it once, for everybody to apply."""
        active = self._rounds.active
        assert active is not None
        assert self._state is not None
        encoding = self._rounds.schedule.encoding(self._state)
        work = partial(self._owner.merged_slice, key, active.plan.slices[key.index], merge, encoding, evaluation)
        header, data = await self._compute.run(work)
        self._probe.merged(active, header, data)
        await self._tell_merged(active, header, data)
        await self._carry_out(self._rounds.merged(self._me, header, data, now_us()))

    async def _tell_merged(self, active: Active, header: MergedSlice, data: bytes) -> None:
        """Publish a merged slice to all that follow the rounds: nobody does where this device is alone, or where
        whoever needs a state asks for it."""
        if len(active.plan.members) > 1 and self._rounds.schedule.publishes:
            await self._data_mover.tell(inbox.SendCargo(destination=None, cargo=header, data=data))

    # --- completing a round -------------------------------------------------------------------------------------------

    async def _propose(self, parts: tuple[MergedPart, ...]) -> None:
        """Compute the next state, and ask whether it may become the present one."""
        active, state = self._rounds.active, self._state
        assert active is not None
        assert state is not None
        try:
            proposed = await self._compute.run(partial(self._next_state, state, active, parts))
        except MalformedMessage as error:
            log.warning("merged_slice_refused", round=self._rounds.in_hand, error=str(error))
            for index in range(len(parts)):
                self._rounds.reject(self._rounds.in_hand, index)
            return
        self._proposal = _Proposal(state=proposed, parts=parts)
        senders = frozenset(parts[0].header.senders)
        ready = events.RoundReady(generation=active.generation, progress=proposed.progress, senders=senders)
        await self._planner.tell(ready)

    def _next_state(self, state: ReplicaState, active: Active, parts: tuple[MergedPart, ...]) -> ReplicaState:
        plan, first = active.plan, parts[0].header
        deltas = [
            self._decoded(part.data, part.header.encoding, span) for part, span in zip(parts, plan.slices, strict=True)
        ]
        samples = sum(first.senders.values())
        epochs_ppb = ceil_div(samples * BILLION, plan.samples_total)
        outcome = after_round(
            plan,
            state,
            senders=first.senders,
            correct=first.correct,
            evaluated=first.evaluated,
            epochs_ppb=state.epochs_ppb + epochs_ppb,
            target=self._task.target_accuracy,
        )
        if outcome.stays:
            proposed = replica.unchanged(state, streak=outcome.streak, finished=outcome.finished)
        else:
            proposed = replica.apply(
                state,
                plan.outer,
                torch.cat(deltas),
                samples=samples,
                epochs_ppb=epochs_ppb,
                counters=first.counters or state.counters,
                streak=outcome.streak,
                closing=outcome.closing,
                finished=outcome.finished,
            )
        _ = proposed.digest  # computed here, away from the event loop
        return proposed

    async def _complete(self, progress: StateProgress) -> None:
        proposal, active, state = self._proposal, self._rounds.active, self._state
        if proposal is None or active is None or state is None or proposal.state.progress != progress:
            return
        schedule = self._rounds.schedule
        inputs = None if schedule.detached else self._local_round
        if schedule.detached and not proposal.state.finished:
            self._proposal = None
        else:
            await self._halt()
        self._wanted = None
        encoding = schedule.encoding(state)
        fates = {
            (span.start, span.stop): fate_of(self._me, part.header)
            for span, part in zip(active.plan.slices, proposal.parts, strict=True)
        }

        def work() -> tuple[torch.Tensor | None, dict[str, Any]]:
            delta = None
            if proposal.state.finished and proposal.state.vector is state.vector:
                return delta, self._inner  # what was trained in this round counts for nothing
            if inputs is not None and inputs.samples:
                delta = inputs.delta if inputs.delta is not None else self._local.delta()
            self._feedback.commit(delta, fates, apart=encoding is Encoding.NONE)
            return delta, self._local.snapshot()

        trained = None
        if not schedule.detached:
            trained, self._inner = await self._compute.run(work)
        self._report_epoch(active)
        self._state = proposal.state
        self._probe.completed(
            active, before=state, after=proposal.state, trained=trained, residual=self._feedback.residual
        )
        self._observe_round(proposal, active.plan)
        self._owner.completed(part.header for part in proposal.parts)
        if proposal.state.finished:
            await self._finish(proposal.state, self._feedback.residual if schedule.ends_apart else None)
        await self._carry_out(self._rounds.accepted(progress, now_us(), closing=proposal.state.closing))
        for device in schedule.waiting():
            await self._give_state(device, b"")

    def _report_epoch(self, active: Active) -> None:
        """Log, once for each epoch, whose samples have all been trained here."""
        sampler, pool = self._sampler, self._pool
        if sampler is None or pool is None or not len(pool):
            return
        complete = sampler.epoch + (sampler.trained_in_epoch == len(pool))
        if complete > self._epochs_reported:
            self._epochs_reported = complete
            trained = {
                assignment.lender: assignment.samples
                for assignment in active.plan.assignments
                if assignment.trainer == self._me
            }
            log.info(
                "epoch_complete",
                generation=active.generation,
                epoch=complete,
                trained=trained,
                trainers=len(active.plan.trainers),
            )

    def _observe_round(self, proposal: _Proposal, plan: Plan) -> None:
        first = proposal.parts[0].header
        if not plan.quorum:
            planned = [trainer.device for trainer in plan.trainers]
            for absent in self._attendance.note(planned, first.senders, now_us()):
                log.warning("trainer_absent", absent=absent, round=proposal.state.round)
        point = self._metrics.round_done(proposal.state.round, first, now_us(), self._traffic())
        log.info(
            "round_complete",
            round=point.round,
            accuracy=round(point.correct / point.evaluated, 4) if point.evaluated else None,
            trainers=sorted(first.senders),
            digest=proposal.state.digest.hex()[:8],
        )
        self._observe(
            RoundDone(
                progress=proposal.state.progress,
                point=point,
                samples_trained=self._metrics.samples_trained,
                generations=self._metrics.generations,
            )
        )

    # --- whole states -------------------------------------------------------------------------------------------------

    async def _fetch(self, progress: StateProgress, holders: tuple[DeviceId, ...]) -> None:
        others = tuple(holder for holder in holders if holder != self._me)
        assert others, "this device is said to be the only one that holds a state which it lacks"
        log.info("state_wanted", round=progress.round, holders=list(others))
        await self._ask_for_state(
            _Wanted(progress=progress, holders=others, again_us=0, since_us=now_us() + self._transfer_us)
        )

    async def _ask_for_state(self, wanted: _Wanted) -> None:
        self._wanted = attrs.evolve(wanted, again_us=now_us() + 3 * SECOND_US + self._transfer_us)
        holder = wanted.holders[wanted.attempt % len(wanted.holders)]
        await self._send_to(holder, messages.AskState(digest=wanted.progress.digest))

    async def _give_state(self, device: DeviceId, digest: bytes) -> None:
        """Send the state that is asked for; the present one, a round further, if it is gone already; or the next one,
        when it has come."""
        if not digest and self._rounds.keeps_waiting(device):
            self._rounds.schedule.keep_waiting(device)
            return
        state = self._state
        if self._start is not None and self._start.digest == digest:
            state = self._start
        if state is not None:
            data = await self._compute.run(partial(replica.to_bytes, state))
            generation, plan_digest = self._rounds.lineage
            cargo = messages.WholeState(progress=state.progress, generation=generation, plan_digest=plan_digest)
            await self._data_mover.tell(inbox.SendCargo(destination=device, cargo=cargo, data=data))

    async def _take_state(self, sender: DeviceId, header: messages.WholeState, data: bytes) -> None:
        wanted = self._wanted
        if wanted is None or self._state is None or not self._rounds.serves(header, wanted.progress):
            return
        counters = len(self._state.counters)
        try:
            state = await self._compute.run(partial(replica.from_bytes, data, self._work.layout, counters))
        except MalformedMessage as error:
            log.warning("state_refused", sender=sender, error=str(error))
            return
        if state.progress != header.progress:
            log.warning("state_refused", sender=sender, error="it is another state than its header says")
            return
        await self._halt()
        self._wanted = None
        await self._drop_residual()
        self._state = state
        self._start = state
        self._probe.state_replaced(state, self._feedback.residual)
        log.info("state_fetched", round=state.round, holder=sender, digest=state.digest.hex()[:8])
        await self._planner.tell(events.StateReached(progress=state.progress))
        if state.finished:
            await self._finish(state, None)
        await self._carry_out(self._rounds.fetched(state.progress, now_us(), closing=state.closing))

    async def _drop_residual(self) -> None:
        await self._compute.run(self._feedback.drop)
        self._probe.residual_dropped()

    # --- the end of a run ---------------------------------------------------------------------------------------------

    async def _finish(self, state: ReplicaState, offset: torch.Tensor | None) -> None:
        """End the run with `state`; this device keeps it, or parameters of its own at `offset` (elements,) from it."""
        kept = await self._compute.run(partial(replica.moved, state, offset))
        self._metrics.speed_kflops = self._speed_kflops
        result = self._metrics.result(state, kept, now_us(), self._traffic())
        log.info("run_finished", round=state.round, reached=result.reached, digest=state.digest.hex())
        # in a worker thread, as it writes the model to a file
        await self._compute.run(partial(self._observe, RunFinished(state=kept, result=result)))
        await self._planner.tell(inbox.OwnResult(result=result))
