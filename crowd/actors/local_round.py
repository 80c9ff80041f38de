"""One device's local steps of one round, as a task of the trainer's: evaluate, train piece by piece, stop when told."""

from collections.abc import Awaitable, Callable

import anyio
import attrs
import torch

from crowd.learning.pool import EpochSampler, TrainingPool
from crowd.learning.replica import ReplicaState
from crowd.learning.samples import SampleSet
from crowd.learning.work import LocalTrainer
from crowd.planning.profile import TaskFacts
from crowd.ports import Compute
from crowd.units import SECOND_US

PIECE_US = SECOND_US // 5
"""About how long one piece of training runs before the event loop hears of it."""

TimedPiece = Callable[[int, int], Awaitable[None]]
"""Called with the samples of a piece and the microseconds that it took."""


@attrs.frozen(kw_only=True, eq=False)
class Shift:
    """What the local steps of one round work with."""

    local: LocalTrainer
    state: ReplicaState
    pool: TrainingPool
    sampler: EpochSampler
    facts: TaskFacts
    evaluation: SampleSet
    """This device's share; may be empty."""
    samples: int
    """The quota."""
    piece_samples: int


@attrs.define(eq=False)
class LocalRound:
    """Runs one `Shift`; `stop` ends it between two steps, `ended` says when it has."""

    shift: Shift
    compute: Compute
    number: int
    timed: TimedPiece
    samples: int = 0
    correct: int = 0
    evaluated: int = 0
    delta: torch.Tensor | None = None
    """(elements,): what was trained, whole or cut short; `None` before `finish`, or if nothing was."""
    complete: bool = False
    ended: anyio.Event = attrs.field(factory=anyio.Event)
    arrived: anyio.Event = attrs.field(factory=anyio.Event)
    _stopping: bool = False

    def stop(self) -> None:
        self._stopping = True
        self.arrived.set()

    def samples_arrived(self) -> None:
        """Borrowed samples have come: the pool may show more."""
        self.arrived.set()

    async def run(self, done: Callable[[], None]) -> None:
        """Evaluate and train; `done` is called if the quota was met."""
        try:
            await self._evaluate()
            await self._train()
            self.complete = self.samples >= self.shift.samples
        finally:
            self.ended.set()
        if self.complete and not self._stopping:
            done()

    async def _evaluate(self) -> None:
        shift, share = self.shift, self.shift.evaluation

        def work() -> tuple[int, int]:
            shift.local.load(shift.state)
            return shift.local.evaluate(share)

        # a forward pass is a third of forward and backward
        self.correct, self.evaluated = await self.compute.run(
            work, flops=len(share) * shift.facts.flops_per_sample // 3
        )

    async def _train(self) -> None:
        shift = self.shift
        while self.samples < shift.samples and not self._stopping:
            quota = min(shift.piece_samples, shift.samples - self.samples)
            # what has arrived is shown between pieces; the event is set anew first, so that none is missed
            self.arrived = anyio.Event()
            if shift.pool.waiting:
                shift.pool.refresh()
            began = anyio.current_time()
            report = await self.compute.run(
                lambda quota=quota: shift.local.steps(shift.pool, shift.sampler, quota, lambda: self._stopping),  # type: ignore[misc]
                flops=quota * shift.facts.flops_per_sample,
            )
            self.samples += report.samples
            if report.samples:
                await self.timed(report.samples, int((anyio.current_time() - began) * SECOND_US))
            elif not self._stopping:
                await self.arrived.wait()
