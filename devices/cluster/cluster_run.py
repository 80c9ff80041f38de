"""The run of a cluster, in whatever backend: `ClusterRun` (all devices, and when it is over), `ClusterDevice` (one
device over all its lives) and their settings (`make_task`, `node_config`)."""

import math
from collections.abc import Sequence

import anyio
import attrs
import structlog

from crowd import plugins
from crowd.agreement.ack import StateProgress
from crowd.config.node_file import NodeConfig
from crowd.experiment.experiment import Experiment, ExperimentResult, OnRound, RoundReport, part_of
from crowd.experiment.plan_summary import PlanSummary
from crowd.learning.task import Task
from crowd.progress import Progress
from crowd.protocol.messages import ResultMessage
from crowd.run_record import Point, RunGoal
from crowd.units import DeviceId, device_id
from devices.cluster.device_metrics import DeviceRecorder

_log = structlog.get_logger(__name__)


class ClusterRun:
    """One training of a whole cluster, from the moment at which all devices are switched on. Subclasses make the
    `members`, and await `over`."""

    members: Sequence["ClusterDevice"] = ()

    def __init__(self, experiment: Experiment, report: OnRound) -> None:
        self.experiment = experiment
        self.over = anyio.Event()
        self.plans: dict[PlanSummary, float] = {}
        """Plans with work, and the seconds since the beginning at which the first device began to follow each."""
        self.idle: dict[str, tuple[int, str]] = {}
        """Samples that nobody trains by the plan that was begun last, by device, and why."""
        self.hardly_trained: dict[str, tuple[int, str]] | None = None
        """Samples that were planned to be trained and hardly were, by device, and why, as those know who are first."""
        self.asynchronous = False
        """Whether the plan that was begun last is asynchronous."""
        self._begun = anyio.Event()
        self._report = report
        self._rounds = 0

    def begin(self, planned: PlanSummary | None) -> None:
        """Note that a plan with work is active, if it is known: from the first one on time and bytes count."""
        if not self._begun.is_set():
            self._begun.set()
            for member in self.members:
                member.recorder.begin()
        if planned is not None:
            self.asynchronous = planned.asynchronous
            self.idle = dict(planned.idle)
            self.plans.setdefault(planned, self.members[0].recorder.elapsed_s)

    def round_done(self, progress: Progress) -> None:
        """Note that a device has completed a round; the first one is reported."""
        if progress.round > self._rounds:
            self._rounds = progress.round
            if progress.hardly_trained is not None:
                self.hardly_trained = dict(progress.hardly_trained)
            accounts = [member.recorder for member in self.members]
            point = Point(
                round=progress.round,
                elapsed_s=accounts[0].elapsed_s,
                value=progress.value,
                loss=progress.loss,
                traffic_bytes=sum(recorder.traffic_bytes for recorder in accounts),
            )
            self._report(RoundReport(point=point, goal=self.members[0].goal))

    def check_over(self) -> None:
        """Set `over` when all that are there are done (a device that is gone, and may come back, holds nobody up), when
        nobody is there or will be, and when the broker is gone for good."""
        living = [member for member in self.members if member.on]
        gone = [member for member in self.members if not member.on and not member.returns]
        done = bool(living) and all(member.done for member in living)
        if done or len(gone) == len(self.members) or any(member.hosts_broker for member in gone):
            self.over.set()

    async def keep_time(self) -> None:
        """End a run that has taken all the time that it was given. Call it when the devices are switched on."""
        if self.experiment.seconds_max is not None:
            await self._begun.wait()
            await anyio.sleep(self.experiment.seconds_max)
            self.over.set()

    async def watch_for_standstill(self, *, hours: float) -> None:
        """End a run that can never begin, or go on: one that waits for a device that is gone for good. No round for so
        many `hours`, after the last start of a device, is taken for that. Call it when the devices are switched on."""
        await anyio.sleep(max(member.last_start_s for member in self.members))
        rounds = -1
        while rounds < self._rounds:
            rounds = self._rounds
            await anyio.sleep(hours * 3600)
        _log.warning("run_stands_still", round=rounds, hours=hours)
        self.over.set()

    def outcome(self) -> ExperimentResult:
        """The result by now. Raises `RuntimeError` if all have reached the target, but not in one state."""
        living = [member for member in self.members if member.on]
        reached = bool(living) and all(member.reached for member in living)
        ends = {member.name: member.end.digest.hex() for member in living if member.end is not None}
        if reached and len(set(ends.values())) > 1:
            raise RuntimeError(f"the devices ended in different states: {ends}")
        return ExperimentResult(
            goal=self.members[0].goal,
            reached=reached,
            devices={member.name: member.recorder.metrics() for member in self.members},
            compute_traces={member.name: member.recorder.trace() for member in self.members},
            transfers={
                member.name: transfers
                for member in self.members
                if (transfers := member.recorder.transfers()) is not None
            },
            idle=self.idle,
            hardly_trained=self.hardly_trained,
            plans=self.plans,
        )


class ClusterDevice:
    """One device's part in a cluster run.

    1. It lives from a start to the next failure, and again after each return.
    2. It is done when the run is over for it, or it has completed the rounds that were asked for.
    """

    recorder: DeviceRecorder
    """Metrics of the device; set by subclasses."""
    goal: RunGoal
    """What the device's task is trained for; set by subclasses."""

    def __init__(self, run: ClusterRun, index: int) -> None:
        self.spec = run.experiment.cluster.devices[index]
        self.name: DeviceId = device_id(self.spec.name)
        self.on = True
        self.done = False
        self.reached = False
        self.end: StateProgress | None = None
        """State in which the run ended, as this device's result says."""
        self.hosts_broker = self.spec.broker
        self._course = run
        self._life = 0
        self._round = 0
        """Number of the last round that this life completed."""

    @property
    def returns(self) -> bool:
        """Whether another life follows this one."""
        return self._life + 1 < len(self.recorder.lives)

    @property
    def next_start_s(self) -> float:
        """The time at which the next life begins, in seconds; infinite if there is none."""
        return self.recorder.lives[self._life + 1][0] if self.returns else math.inf

    @property
    def last_start_s(self) -> float:
        """The time at which the last life begins, in seconds."""
        return self.recorder.lives[-1][0]

    def begin_life(self, life: int) -> None:
        """Note that a life begins."""
        self._life, self._round, self.end = life, 0, None
        self.on, self.done = True, False
        self.recorder.new_life()

    def end_life(self) -> None:
        """Note that this life fails. The caller checks whether the run is over, when all that failed with it has gone
        as well."""
        self.on = self.reached = False
        self.recorder.fail()

    def advance(self, progress: Progress) -> None:
        """Note the progress of the device's node."""
        if self.done or progress.round <= self._round:
            return
        self._round = progress.round
        rounds_max = self._course.experiment.rounds_max or math.inf
        if progress.round <= rounds_max:
            self.recorder.round_done(progress)
            self._course.round_done(progress)
        if progress.finished:
            self.recorder.end()  # the result says the rest
        elif progress.round >= rounds_max:
            # in an asynchronous plan the others do not complete rounds themselves
            for member in self._course.members if self._course.asynchronous else (self,):
                member._be_done(reached=False)  # noqa: SLF001  # of its own class

    def run_over(self, result: ResultMessage) -> None:
        """Note that every living device has published the result of its run."""
        if not self.done:
            self.end = result.progress
            self.recorder.run_over(result)
            self._be_done(reached=result.reached)

    def _be_done(self, *, reached: bool) -> None:
        if self.done:
            return
        self.done, self.reached = True, reached
        self.recorder.end()
        self._course.check_over()


def make_task(experiment: Experiment, index: int) -> Task:
    """The task of the device at `index` of the cluster file."""
    name = experiment.cluster.devices[index].name
    task = plugins.make_task(experiment.task, name, part_of(experiment.cluster, index, experiment.task))
    return task if experiment.target is None else attrs.evolve(task, target=experiment.target)


def node_config(experiment: Experiment, index: int, *, broker: str) -> NodeConfig:
    """The configuration that would be in this device's `node.toml`."""
    spec = experiment.cluster.devices[index]
    kind = experiment.kinds[device_id(spec.name)]
    return NodeConfig(
        name=spec.name,
        cluster=experiment.cluster.name,
        broker=broker,
        task=experiment.task,
        share=spec.share,
        policy=experiment.policy,
        prefer=experiment.cluster.prefer,
        seed=experiment.seed,
        members_min=len(experiment.cluster.devices),
        uplink_mbps=kind.uplink_mbps,
        downlink_mbps=kind.downlink_mbps,
        data=part_of(experiment.cluster, index, experiment.task),
    )
