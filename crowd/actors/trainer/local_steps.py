"""The round being trained on this device: `LocalSteps`."""

from collections.abc import Awaitable, Callable, Mapping

import anyio
import attrs
import numpy as np
import structlog
import torch

from crowd.actors import inbox
from crowd.actors.trainer.beside import Beside
from crowd.actors.trainer.gossip import Gossip
from crowd.actors.trainer.learner import Learner
from crowd.actors.trainer.local_round import PIECE_US, LocalRound, RoundInputs
from crowd.actors.trainer.outside import Outside
from crowd.actors.trainer.report import Report
from crowd.actors.trainer.rounds import Rounds
from crowd.actors.trainer.samples_on_loan import SamplesOnLoan
from crowd.agreement.state import Active
from crowd.learning.fate import Fate
from crowd.learning.pool import EpochSampler, TrainingPool
from crowd.learning.replica import ReplicaState
from crowd.learning.samples import SampleSet, seeded
from crowd.learning.work import StepConfig, Work
from crowd.planning.plan import PPM, Encoding, Sampling, TrainerRole
from crowd.planning.round_plan import RoundPlan
from crowd.protocol.messages import Contribution, Parameters, SliceKey
from crowd.units import DeviceId

STANDSTILL_S = 5.0
"""Seconds that local steps may take to end when they are told to, before they are said to stand still: a piece takes a
fifth of a second."""

log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class TrainedPart:
    """What a slice's owner is sent of a delta."""

    owner: DeviceId
    header: Contribution
    data: bytes


class LocalSteps:
    """Takes the local steps of one round after the other, and says what the owners of the slices get of them."""

    def __init__(
        self,
        *,
        work: Work,
        outside: Outside,
        rounds: Rounds,
        learner: Learner,
        samples: SamplesOnLoan,
        report: Report,
        beside: Beside,
        listen_until: Callable[[anyio.Event], Awaitable[None]],
    ) -> None:
        """`listen_until` keeps the trainer's mailbox from filling until the event is set."""
        self._facts = work.facts
        self._layout = work.layout
        self._own = work.own
        self._evaluation = work.own.present.evaluation
        """This device's share of the evaluation set."""
        self._outside = outside
        self._rounds = rounds
        self._learner = learner
        self._samples = samples
        self._report = report
        self._beside = beside
        self._listen_until = listen_until
        self._sampler: EpochSampler | None = None
        self._chance: np.random.Generator | None = None
        self._gossip: Gossip | None = None
        self._round: LocalRound | None = None

    @property
    def are_in_hand(self) -> bool:
        """Whether local steps go on, or have been handed in for a round that is not complete."""
        return self._round is not None

    @property
    def speed_kflops(self) -> int:
        """How fast this device trains, by its last steps."""
        return self._learner.speed_kflops

    @property
    def residual(self) -> torch.Tensor:
        """What is left of earlier deltas, (elements,) float32; not to be written to."""
        return self._learner.residual

    # --- a plan -------------------------------------------------------------------------------------------------------

    def begin_plan(self) -> None:
        """Nothing is to be trained yet."""
        self._gossip = None

    def assign(self, active: Active, pool: TrainingPool | None) -> None:
        """Take over this device's part of the plan, which trains `pool`, in a worker thread; `None`: nothing."""
        plan, me, generation, start = active.plan, self._outside.device, active.generation, active.start.round
        self._learner.restore()
        count = 0 if pool is None else len(pool)
        self._sampler = EpochSampler(count, seed=plan.seed, generation=generation, round=start, device=me)
        self._chance = seeded("importance", plan.seed, generation, start, me)
        if plan.mixing is not None:
            outside = self._outside
            self._gossip = Gossip(me, plan.mixing, active, self._layout, outside.compute, outside.send)
        part, share = plan.trainer(me), self._own.present.evaluation
        if part is not None and self._facts.evaluation_samples:
            start, stop = part.evaluation
            share = SampleSet(share.inputs[start:stop], share.labels[start:stop])
        self._evaluation = share

    # --- steps --------------------------------------------------------------------------------------------------------

    def begin(self, number: int, active: Active, state: ReplicaState, part: TrainerRole) -> None:
        """Begin the local steps of round `number` in `state`; not without samples, while contributions must arrive
        first, or in the middle of others."""
        pool, sampler = self._samples.pool, self._sampler
        if pool is None or sampler is None or not self._rounds.schedule.is_free or self._round is not None:
            return
        plan, facts, round_plan = active.plan, self._facts, self._rounds.round_plan
        batch_size = part.batch_size or facts.batch_size
        piece_samples = self._learner.speed_kflops * PIECE_US // 1000 // facts.flops_per_sample
        inputs = RoundInputs(
            local=self._learner.local,
            state=state,
            offset=self._learner.residual if self._rounds.schedule.begins_apart else None,
            step_config=StepConfig(
                proximal=plan.proximal_ppm / PPM,
                chance=self._chance if plan.sampling is Sampling.IMPORTANCE else None,
            ),
            sampling=plan.sampling,
            pool=pool,
            sampler=sampler,
            facts=facts,
            evaluation=self._due_evaluation(round_plan),
            samples=round_plan.quotas[part.device] if round_plan.trains else 0,
            batch_size=batch_size,
            piece_steps=max(1, piece_samples // batch_size),
            gossip=self._gossip if round_plan.trains else None,
        )
        self._round = LocalRound(inputs, self._outside.compute, number, self._timed)
        self._beside(self._round.run, inbox.Trained(generation=active.generation, round=number))

    def _due_evaluation(self, round_plan: RoundPlan) -> SampleSet:
        """This device's share of the evaluation set; empty if the local steps of this round begin without."""
        share, due = self._evaluation, self._rounds.schedule.is_due(round_plan)
        return share if due else SampleSet(share.inputs[:0], share.labels[:0])

    async def _timed(self, samples: int, flops: int, elapsed_us: int) -> None:
        self._report.trained(samples, elapsed_us)
        self._learner.speed_kflops = flops * 1000 // max(1, elapsed_us)
        await self._outside.profiler.tell(inbox.StepsTimed(flops=flops, elapsed_us=elapsed_us))

    def samples_arrived(self) -> None:
        """Look again at the pool: borrowed samples have come."""
        if self._round is not None:
            self._round.samples_arrived()

    async def take_parameters(self, sender: DeviceId, header: Parameters, data: bytes) -> None:
        """A neighbour's parameters have come."""
        if self._gossip is not None:
            await self._gossip.take(sender, header, data)

    # --- their end ----------------------------------------------------------------------------------------------------

    async def halt(self) -> None:
        """Stop the local steps, wait until they have, and forget them."""
        await self.stop()
        self._round = None

    async def stop(self) -> None:
        """Stop local steps that go on. What has been handed in stays this device's part of the round."""
        if self._round is not None and not self._round.ended.is_set():
            self._round.stop()
            await self._wait_for_end(self._round)
            self._round = None

    async def _wait_for_end(self, steps: LocalRound) -> None:
        """Wait until these local steps have ended; if they stand still, so that nobody waits for the trainer."""
        with anyio.move_on_after(STANDSTILL_S):
            await steps.ended.wait()
            return
        log.warning("training_stands_still", round=steps.number, seconds=STANDSTILL_S)
        await self._listen_until(steps.ended)
        log.info("training_goes_on", round=steps.number)

    def stop_soon(self) -> None:
        """Let local steps that go on end; whoever needs to know waits with `stop`."""
        if self._round is not None:
            self._round.stop()

    async def contribute(self, generation: int, number: int) -> tuple[TrainedPart, ...]:
        """What the owners of the slices get of the local steps of round `number`, which have ended; nothing if the
        round in hand does not take it."""
        active, steps, schedule = self._rounds.active, self._round, self._rounds.schedule
        if active is None or steps is None or number != steps.number:
            return ()
        if not self._rounds.may_contribute(generation, number):
            return ()
        slices, encoding = self._rounds.round_plan.slices, self._rounds.round_plan.encoding

        def work() -> tuple[list[bytes], tuple[int, ...]]:
            steps.delta, encoded = self._learner.contribute(slices, encoding, detached=schedule.detached)
            return encoded, self._learner.local.counters()

        encoded, counters = await self._outside.compute.run(work)
        self._rounds.trained(number)
        headers = [
            Contribution(
                key=SliceKey(generation=generation, plan_digest=active.plan_digest, round=number, index=index),
                encoding=encoding,
                samples=steps.samples,
                counters=() if index else counters,
                sums=() if index else steps.evaluation.sums,
                evaluated=0 if index else steps.evaluation.samples,
                loss_sum=0.0 if index else steps.loss_sum,
                busy_us=0 if index else steps.busy_us,
            )
            for index in range(len(slices))
        ]
        if schedule.detached:
            self._round = None
        schedule.sent(frozenset(h.key for h in headers if slices[h.key.index].owner != self._outside.device))
        for header, data in zip(headers, encoded, strict=True):
            self._outside.probe.contributed(header, data)
        return tuple(
            TrainedPart(owner=span.owner, header=header, data=data)
            for header, span, data in zip(headers, slices, encoded, strict=True)
        )

    async def complete(
        self, before: ReplicaState, after: ReplicaState, fates: Mapping[tuple[int, int], Fate]
    ) -> torch.Tensor | None:
        """The round in hand has led from `before` to `after`: end its local steps, unless these do not belong to it.
        Returns what they trained, sent or not: (elements,) float32; `None` if nothing."""
        schedule, steps = self._rounds.schedule, self._round
        if after.finished or not schedule.detached:
            await self.halt()
        encoding = self._rounds.round_plan.encoding

        def work() -> torch.Tensor | None:
            kept = (before.vector, None if after.best is None else after.best.vector)
            if after.finished and any(after.vector is vector for vector in kept):
                return None  # what was trained in this round counts for nothing
            delta = None
            if steps is not None and steps.samples:
                delta = steps.delta if steps.delta is not None else self._learner.local.delta()
            self._learner.commit(delta, fates, apart=encoding is Encoding.NONE)
            return delta

        trained = None if schedule.detached else await self._outside.compute.run(work)
        self._report_epoch()
        return trained

    def _report_epoch(self) -> None:
        active, sampler, pool = self._rounds.active, self._sampler, self._samples.pool
        if active is not None and sampler is not None and pool is not None and len(pool):
            self._report.epoch(active, sampler, len(pool))

    async def drop_residual(self) -> None:
        """Another device's state replaces this one's."""
        await self._outside.compute.run(self._learner.drop_residual)
        self._outside.probe.residual_dropped()
