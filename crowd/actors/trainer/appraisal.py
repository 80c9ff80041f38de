"""What a member without a part in the training does for it: it evaluates states on what it holds out of its data,
beside the rounds, of which one evaluation may last several.

Layout: `Appraisal` (one evaluation), `Appraiser` (when there is one).
"""

from collections.abc import Callable
from functools import partial

import anyio
import attrs

from crowd.actors import inbox
from crowd.actors.trainer.beside import Beside
from crowd.actors.trainer.evaluations import epoch_rounds
from crowd.actors.trainer.learner import Learner
from crowd.actors.trainer.local_round import PIECE_US
from crowd.actors.trainer.rounds import Rounds
from crowd.agreement.state import Active
from crowd.learning.evaluation import NOTHING, Evaluation
from crowd.learning.replica import ReplicaState
from crowd.learning.samples import SampleSet
from crowd.learning.work import LocalTrainer, Work
from crowd.planning.plan import Encoding
from crowd.ports import Compute
from crowd.protocol.messages import Contribution, SliceKey


@attrs.define(kw_only=True, eq=False)
class Appraisal:
    """The evaluation of one `state` on `samples`, piece by piece. Nobody else may use the model of `local`
    meanwhile."""

    local: LocalTrainer
    compute: Compute
    state: ReplicaState
    samples: SampleSet
    piece_samples: int
    sample_flops: int
    key: SliceKey
    """Slice 0 of the round that begins with `state`."""
    evaluation: Evaluation = NOTHING
    stopping: bool = False
    """Whether to end between two pieces."""
    ended: anyio.Event = attrs.field(factory=anyio.Event)

    async def run(self, done: Callable[[], None]) -> None:
        """Evaluate; `done` is called in the end, stopped or not."""
        try:
            await self.compute.run(partial(self.local.load, self.state))
            for start in range(0, len(self.samples), self.piece_samples):
                if self.stopping:
                    break
                await self._piece(slice(start, start + self.piece_samples))
        finally:
            self.ended.set()
        done()

    async def _piece(self, rows: slice) -> None:
        piece = SampleSet(self.samples.inputs[rows], self.samples.labels[rows])
        work = partial(self.local.evaluate, piece)
        self.evaluation += await self.compute.run(work, flops=len(piece) * self.sample_flops)

    @property
    def contribution(self) -> Contribution | None:
        """What the owner of slice 0 is told; `None` unless all samples were evaluated."""
        sums, evaluated = self.evaluation.sums, self.evaluation.samples
        if evaluated < len(self.samples):
            return None
        return Contribution(key=self.key, encoding=Encoding.NONE, samples=0, sums=sums, evaluated=evaluated)


class Appraiser:
    """One member's evaluations: twice in an epoch, and of a closing state."""

    def __init__(self, work: Work, compute: Compute, rounds: Rounds, learner: Learner, beside: Beside) -> None:
        self._work = work
        self._compute = compute
        self._rounds = rounds
        self._learner = learner
        self._beside = beside
        self._appraisal: Appraisal | None = None
        self._begun: int | None = None
        """The last round for which an evaluation was begun under the present plan."""

    @property
    def is_in_hand(self) -> bool:
        """Whether an evaluation goes on, or has ended and was not taken."""
        return self._appraisal is not None

    def begin(self, number: int, active: Active, state: ReplicaState) -> None:
        """Begin the evaluation of `state`, before round `number`, if one is due. An evaluation of an earlier state is
        stopped for that of a closing one."""
        if self._appraisal is not None:
            self._appraisal.stopping = state.closing and number > self._appraisal.key.round
            return
        if not self._is_due(active, state, number):
            return
        facts = self._work.facts
        sample_flops = max(1, facts.flops_per_sample // 3)  # a forward pass is a third of forward and backward
        self._begun = number
        self._appraisal = Appraisal(
            local=self._learner.local,
            compute=self._compute,
            state=state,
            samples=self._work.own.present.evaluation,
            piece_samples=max(1, self._learner.speed_kflops * PIECE_US // 1000 // sample_flops),
            sample_flops=sample_flops,
            key=SliceKey(generation=active.generation, plan_digest=active.plan_digest, round=number, index=0),
        )
        self._beside(self._appraisal.run, inbox.Appraised())

    def _is_due(self, active: Active, state: ReplicaState, number: int) -> bool:
        plan = active.plan
        has_own = not self._work.facts.evaluation_samples and len(self._work.own.present.evaluation)
        if not has_own or not plan.has_work or number == self._begun:
            return False
        if state.closing:
            return True
        every = max(plan.evaluate_every, epoch_rounds(plan) // 2)
        if self._rounds.schedule.begins_apart:
            return False  # trainers do not go on from the common state: the closing one alone matters
        return self._begun is None or number >= self._begun + every

    def take(self) -> Appraisal | None:
        """The evaluation that has ended, once."""
        appraisal = self._appraisal
        if appraisal is None or not appraisal.ended.is_set():
            return None
        self._appraisal = None
        return appraisal

    async def stop(self) -> None:
        """End what is in hand, as another plan begins."""
        if self._appraisal is not None:
            self._appraisal.stopping = True
            await self._appraisal.ended.wait()
        self._appraisal = self._begun = None
