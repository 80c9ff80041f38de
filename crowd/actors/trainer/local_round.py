"""One device's local steps of one round, as a task of the trainer's: evaluate, train piece by piece, stop when told."""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import attrs
import torch

from crowd.actors.trainer.gossip import Gossip
from crowd.learning import replica
from crowd.learning.evaluation import NOTHING, Evaluation
from crowd.learning.pool import EpochSampler, TrainingPool
from crowd.learning.replica import ReplicaState
from crowd.learning.samples import SampleSet
from crowd.learning.work import LocalTrainer, StepConfig
from crowd.planning.estimate import training_flops
from crowd.planning.plan import Sampling
from crowd.planning.profile import TaskFacts
from crowd.ports import Compute
from crowd.units import SECOND_US

PIECE_US = SECOND_US // 5
"""Time of about one piece of training, after which the event loop hears of it."""

TimedPiece = Callable[[int, int, int], Awaitable[None]]
"""A function that is called with the samples of a piece, its work in FLOP and the microseconds that it took."""


@attrs.frozen(kw_only=True, eq=False)
class RoundInputs:
    """The inputs of one round's local steps."""

    local: LocalTrainer
    state: ReplicaState
    offset: torch.Tensor | None
    """Distance (elements,) float32 from the state at which the local steps start; `None`: they start in the state."""
    step_config: StepConfig
    sampling: Sampling
    pool: TrainingPool
    sampler: EpochSampler
    facts: TaskFacts
    evaluation: SampleSet
    """This device's share of the evaluation set; may be empty."""
    samples: int
    """Samples to be trained: the quota."""
    batch_size: int
    """Largest number of samples of one step."""
    piece_steps: int
    gossip: Gossip | None = None
    """Exchanges with neighbours; with them a round is so many exchanges, whatever the quota."""


@attrs.define(eq=False)
class LocalRound:
    """The local steps of one `RoundInputs`; `stop` ends them between two steps, `ended` is set when they have ended."""

    inputs: RoundInputs
    compute: Compute
    number: int
    timed: TimedPiece
    samples: int = 0
    loss_sum: float = 0.0
    """Sum over the trained samples of the mean loss of the batch that each was in."""
    busy_us: int = 0
    """Microseconds that the steps took in which they were trained."""
    evaluation: Evaluation = NOTHING
    delta: torch.Tensor | None = None
    """Change of the state vector in this round, (elements,) float32; `None` until it has been contributed."""
    ended: anyio.Event = attrs.field(factory=anyio.Event)
    arrived: anyio.Event = attrs.field(factory=anyio.Event)
    _stopping: bool = False

    def stop(self) -> None:
        self._stopping = True
        self.arrived.set()
        if self.inputs.gossip is not None:
            self.inputs.gossip.wake()

    def samples_arrived(self) -> None:
        """Look again at the pool: borrowed samples have come."""
        self.arrived.set()

    async def run(self, done: Callable[[], None]) -> None:
        """Evaluate and train; `done` is called if all was trained that should be."""
        try:
            await self._evaluate()
            if self.inputs.gossip is None:
                await self._train(self._batches(self.inputs.samples))
            else:
                await self._train_and_mix(self.inputs.gossip)
        finally:
            self.ended.set()
        if not self._stopping:
            done()

    async def _evaluate(self) -> None:
        inputs, share = self.inputs, self.inputs.evaluation

        def work() -> Evaluation:
            inputs.local.load(replica.moved(inputs.state, inputs.offset), inputs.step_config)
            return inputs.local.evaluate(share)

        # a forward pass is a third of forward and backward
        self.evaluation = await self.compute.run(work, flops=len(share) * inputs.facts.flops_per_sample // 3)

    async def _train_and_mix(self, gossip: Gossip) -> None:
        for exchange in range(gossip.mixing.exchanges):
            for _ in range(gossip.mixing.every_steps):
                await self._train(self._batches(self.inputs.batch_size)[:1])
            if self._stopping:
                return
            await gossip.mix(self.inputs.local, (self.number, exchange), lambda: self._stopping)

    def _batches(self, samples: int) -> list[int]:
        inputs = self.inputs
        return inputs.sampler.batches(samples, inputs.batch_size, group=inputs.step_config.group)

    async def _train(self, batches: list[int]) -> None:
        """Make a step for each of these batches; fewer if the round is stopped."""
        inputs, steps = self.inputs, 0
        while steps < len(batches) and not self._stopping:
            piece = batches[steps : steps + inputs.piece_steps]
            if not inputs.pool.ready:
                self.arrived = anyio.Event()  # before the pool is looked at, so that no arrival is missed
                inputs.pool.refresh()
                if not inputs.pool.ready:
                    await self.arrived.wait()
                    continue
            began = anyio.current_time()
            work = partial(inputs.local.steps, inputs.pool, inputs.sampler, piece, lambda: self._stopping)
            flops = training_flops(inputs.facts, sum(piece), inputs.sampling)
            report = await self.compute.run(work, flops=flops)
            steps += report.steps
            self.samples += report.samples
            self.loss_sum += report.loss_sum
            if report.samples:
                elapsed_us = int((anyio.current_time() - began) * SECOND_US)
                self.busy_us += elapsed_us
                flops = training_flops(inputs.facts, report.samples, inputs.sampling)
                await self.timed(report.samples, flops, elapsed_us)
