"""What a device tells of its run: log lines, observations and its result: `Report`."""

from collections.abc import Collection, Sequence
from functools import partial

import structlog
import torch

from crowd.actors import inbox
from crowd.actors.trainer.attendance import Attendance
from crowd.actors.trainer.metrics import RunMetrics
from crowd.actors.trainer.observations import RoundDone, RunFinished
from crowd.actors.trainer.outside import Outside
from crowd.actors.trainer.turnout import Turnout
from crowd.agreement.state import Active
from crowd.learning import replica
from crowd.learning.pool import EpochSampler
from crowd.learning.replica import ReplicaState
from crowd.planning.plan import Plan
from crowd.protocol.messages import MergedSlice
from crowd.runtime.clock import now_us
from crowd.units import DeviceId

log = structlog.get_logger()


class Report:
    """Counts what happens in a run, and says each thing once."""

    def __init__(self, outside: Outside, *, has_target: bool) -> None:
        """`has_target`: whether the run is to reach a value, and not the best that it can."""
        self._outside = outside
        self._has_target = has_target
        self._metrics = RunMetrics()
        self._attendance = Attendance()
        self._turnout = Turnout()
        self._epochs = 0
        """Epochs of the active plan that were reported."""
        self._held_up = 0
        """The last round of which it was said that others hold it up."""
        self._refused: set[tuple[int, DeviceId]] = set()
        """Generation and sender of contributions that were said to be out of proportion."""

    @property
    def samples_trained(self) -> int:
        """Samples that this device has trained in this run."""
        return self._metrics.samples_trained

    def begin_run(self) -> None:
        self._metrics = RunMetrics()
        self._turnout = Turnout()
        self._refused = set()

    def begin_plan(self, plan: Plan) -> None:
        self._metrics.generations += 1
        self._epochs = 0
        if plan.has_work:
            self._metrics.begin(now_us(), self._outside.traffic())

    def trained(self, samples: int, elapsed_us: int) -> None:
        """A piece of training was done in this time."""
        self._metrics.samples_trained += samples
        self._metrics.busy_us += elapsed_us

    def held_up(self, number: int, devices: Collection[DeviceId]) -> None:
        """Round `number` waits for these devices."""
        if number != self._held_up:
            self._held_up = number
            log.warning("round_held_up", by=sorted(devices), round=number)

    def epoch(self, active: Active, sampler: EpochSampler, samples: int) -> None:
        """Log, once for each epoch of so many samples, whose samples have all been trained here."""
        complete = sampler.epoch + (sampler.trained_in_epoch == samples)
        if complete > self._epochs:
            self._epochs = complete
            trained = {
                assignment.lender: assignment.samples
                for assignment in active.plan.assignments
                if assignment.trainer == self._outside.device
            }
            log.info(
                "epoch_complete",
                generation=active.generation,
                epoch=complete,
                trained=trained,
                trainers=len(active.plan.trainers),
            )

    def round_complete(self, plan: Plan, after: ReplicaState, merged: Sequence[MergedSlice]) -> None:
        """A round, of which these slices were `merged`, has led to `after`."""
        first = merged[0]
        if not plan.quorum:
            planned = [trainer.device for trainer in plan.trainers]
            for absent in self._attendance.note(planned, first.senders, now_us()):
                log.warning("trainer_absent", absent=absent, round=after.round)
        self._turnout.note(plan, first)
        point = self._metrics.round_done(after.round, first, now_us(), self._outside.traffic())
        log.info(
            "round_complete",
            round=point.round,
            value=None if point.value is None else round(point.value, 4),
            loss=None if point.loss is None else round(point.loss, 4),
            trainers=sorted(first.senders),
            digest=after.digest.hex()[:8],
        )
        self._outside.observe(
            RoundDone(
                progress=after.progress,
                point=point,
                samples_trained=self._metrics.samples_trained,
                generations=self._metrics.generations,
                hardly_trained=self._turnout.hardly_trained(plan, after.round),
            )
        )
        for header in merged:
            self._say_refused(header)

    def _say_refused(self, header: MergedSlice) -> None:
        """Log whose contributions an owner has refused, once in a generation."""
        for sender in header.refused:
            if (header.key.generation, sender) not in self._refused:
                self._refused.add((header.key.generation, sender))
                log.warning(
                    "contribution_out_of_proportion",
                    sender="this device" if sender == self._outside.device else sender,
                    round=header.key.round,
                    slice=header.key.index,
                    hint="over ten times as large as the others': look at its data and at its memory",
                )

    async def finish(self, state: ReplicaState, offset: torch.Tensor | None, speed_kflops: int) -> None:
        """End the run with `state`; this device keeps it, or parameters of its own at `offset` (elements,) from it."""
        compute = self._outside.compute
        kept = await compute.run(partial(replica.moved, state, offset))
        self._metrics.speed_kflops = speed_kflops
        traffic = self._outside.traffic()
        result = self._metrics.result(state, kept, now_us(), traffic, has_target=self._has_target)
        log.info("run_finished", round=state.round, reached=result.reached, digest=state.digest.hex())
        # in a worker thread, as it writes the model to a file
        await compute.run(partial(self._outside.observe, RunFinished(state=kept, result=result)))
        await self._outside.planner.tell(inbox.OwnResult(result=result))
