"""The speed of a device that has no part in the training, measured again now and then: `UnusedSpeed`.

A device with a part is measured by its own training. One that was slow only while it was measured at its start would
never be given a part, and so never be seen to be faster.
"""

from crowd.actors import inbox
from crowd.actors.trainer.appraisal import Appraiser
from crowd.actors.trainer.learner import Learner
from crowd.actors.trainer.outside import Outside
from crowd.actors.trainer.rounds import Rounds
from crowd.agreement.state import Active
from crowd.learning.speed_test import measure_speed
from crowd.learning.task import Task
from crowd.learning.work import Work


class UnusedSpeed:
    """Times some steps of a throw-away network beside the trainer, which holds up neither lending nor anybody else."""

    def __init__(self, task: Task, work: Work, outside: Outside, rounds: Rounds, appraiser: Appraiser) -> None:
        self._task = task
        self._work = work
        self._outside = outside
        self._rounds = rounds
        self._appraiser = appraiser
        self._is_measuring = False

    async def measure(self, learner: Learner) -> None:
        """Tell the profiler the speed, in kFLOP/s, and note it in `learner`; nothing if this device trains, merges or
        evaluates, or came to do so meanwhile, and so was slowed down."""
        before = self._unused_in()
        if before is None or self._is_measuring:
            return
        self._is_measuring = True
        speed_kflops = await measure_speed(self._task, self._work, self._outside.compute)
        self._is_measuring = False
        if self._unused_in() is before:
            learner.speed_kflops = speed_kflops
            await self._outside.profiler.tell(inbox.SpeedMeasured(speed_kflops=speed_kflops))

    def _unused_in(self) -> Active | None:
        """What is active, if it is work in which this device has no part, and nothing of it is in hand."""
        me, active = self._outside.device, self._rounds.active
        if active is None or self._rounds.frozen or self._rounds.progress.finished or not active.plan.has_work:
            return None
        has_part = active.plan.trainer(me) is not None or any(span.owner == me for span in active.plan.slices)
        return None if has_part or self._appraiser.is_in_hand else active
