"""The four actors of a node under one supervisor: `Crew`, made of `Parts`."""

import itertools
import json
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from crowd.actors.data_mover.data_mover import DataMover
from crowd.actors.inbox import (
    BeginNextRun,
    DataMoverMessage,
    DataRead,
    HeldData,
    PlannerMessage,
    ProfilerMessage,
    RunAsked,
    TrainerMessage,
)
from crowd.actors.lives import Lives
from crowd.actors.planner import observations as planning
from crowd.actors.planner.planner import Planner
from crowd.actors.planner.results import Results
from crowd.actors.planner.runs import Runs
from crowd.actors.planner.timetable import Timetable
from crowd.actors.probe import Probe
from crowd.actors.profiler import Profiler, unmeasured_profile
from crowd.actors.trainer import observations as training
from crowd.actors.trainer.outside import Outside
from crowd.agreement.state import Timing
from crowd.config.node_file import NodeConfig
from crowd.errors import Retryable
from crowd.model_card import ModelCard
from crowd.planning.policy import Policy
from crowd.planning.profile import Profile
from crowd.ports import Broker, Device, Signer
from crowd.runtime import ActorRef, ChildSpec, Strategy, Supervisor
from crowd.units import Life, device_id

if TYPE_CHECKING:
    from crowd.actors.trainer.checkpoints import Checkpoints
    from crowd.actors.trainer.trainer import Trainer
    from crowd.learning.own_data import DataSet
    from crowd.learning.task import Task
    from crowd.learning.warm_start import WarmStart
    from crowd.learning.work import Work

MAILBOX_SIZE = 1024
RESTARTS_MAX = 5
RESTART_WINDOW_S = 60.0
ASK_TIMEOUT_S = 60.0
"""A device that is busy with something else answers later, never as late as that."""


@attrs.frozen(kw_only=True, eq=False)
class Parts:
    """What the actors of a node are made of."""

    version: str
    """Of this package."""
    config: NodeConfig
    device: Device
    broker: Broker
    signer: Signer
    policies: Mapping[str, Policy]
    timing: Timing
    chance: random.Random
    probe: Probe
    observe: Callable[[planning.Observation | training.Observation], None]
    trainer: "type[Trainer]"
    """The class, which needs torch."""
    task: "Task"
    work: "Work"
    supplied: "WarmStart | None"
    checkpoints: "Checkpoints"
    lives: Lives
    life: Life
    """The first; the next ones are begun as they are needed."""
    last_card: Callable[[], ModelCard | None]
    """What is known of the last run that has ended here."""


class Crew:
    """Makes the four actors, each time that they are started."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._name = device_id(parts.config.name)
        self._lives = itertools.chain((parts.life,), iter(parts.lives.begin, None))
        self._life = parts.life
        # stopped in reverse order: the data mover says goodbye last
        self.supervisor = supervisor = Supervisor(
            [
                ChildSpec(name="data mover", factory=self._make_data_mover, mailbox_size=MAILBOX_SIZE),
                ChildSpec(name="planner", factory=self._make_planner, mailbox_size=MAILBOX_SIZE),
                ChildSpec(name="trainer", factory=self._make_trainer, mailbox_size=MAILBOX_SIZE),
                ChildSpec(name="profiler", factory=self._make_profiler, mailbox_size=MAILBOX_SIZE),
            ],
            strategy=Strategy.ONE_FOR_ALL,
            restarts_max=RESTARTS_MAX,
            window_s=RESTART_WINDOW_S,
            seed=parts.chance.getrandbits(32),
        )
        self._planner: ActorRef[PlannerMessage] = supervisor.ref("planner")
        self._trainer: ActorRef[TrainerMessage] = supervisor.ref("trainer")
        self._data_mover: ActorRef[DataMoverMessage] = supervisor.ref("data mover")
        self._profiler: ActorRef[ProfilerMessage] = supervisor.ref("profiler")

    async def ask_for_run(self, asked: BeginNextRun) -> RunAsked:
        """Ask the planner to begin the next run."""
        return await self._planner.ask(asked, timeout_s=ASK_TIMEOUT_S)

    async def put_data(self, data: "DataSet") -> None:
        """Have the device go by other data of its own, from the next plan on that means these."""
        self._parts.work.own.put(data)
        with suppress(Retryable):  # actors that start again begin with these data, and a late one hears of them
            await self._profiler.ask(DataRead(data=_data(self._parts.work)), timeout_s=ASK_TIMEOUT_S)

    def _make_planner(self) -> Planner:
        parts, config = self._parts, self._parts.config
        results = Results(self._name, self._trainer, parts.observe)
        runs = Runs(
            self._name,
            results,
            Timetable(cluster=config.cluster, at=config.at_time, every=config.period),
            when_new=config.when_new,
            saved=lambda: parts.checkpoints.saved,
            last_card=parts.last_card,
            local_time=parts.device.sensor.local_time,
        )
        return Planner(
            device=self._name,
            life=self._life,
            lives=parts.lives,
            results=results,
            runs=runs,
            policies=parts.policies,
            compute=parts.device.compute,
            trainer=self._trainer,
            data_mover=self._data_mover,
            observe=parts.observe,
            timing=parts.timing,
            probe=parts.probe,
        )

    def _make_trainer(self) -> "Trainer":
        parts, config = self._parts, self._parts.config
        outside = Outside(
            device=self._name,
            compute=parts.device.compute,
            planner=self._planner,
            data_mover=self._data_mover,
            profiler=self._profiler,
            observe=parts.observe,
            traffic=lambda: parts.broker.traffic,
            downlink_bytes_s=config.downlink_bytes_s,
            probe=parts.probe,
        )
        return parts.trainer(
            task=parts.task,
            work=parts.work,
            outside=outside,
            seed=config.seed,
            checkpoints=parts.checkpoints,
            supplied=parts.supplied,
        )

    def _make_data_mover(self) -> DataMover:
        parts, config = self._parts, self._parts.config
        # the first of the four to start, and all restart together: each time in a life of its own
        self._life = life = next(self._lives)
        parts.work.own.begin_anew()
        parts.probe.life_began(life)
        return DataMover(
            device=self._name,
            cluster=config.cluster,
            broker=parts.broker,
            signer=parts.signer,
            life=life,
            share=config.share,
            size_bytes_max=max(1 << 20, 16 * parts.work.facts.state_elements),
            planner=self._planner,
            trainer=self._trainer,
            profiler=self._profiler,
            info=_info(parts, life),
            seed=int.from_bytes(life.boot[:4], "big"),
            probe=parts.probe,
        )

    def _make_profiler(self) -> Profiler:
        parts = self._parts
        return Profiler(
            profile=_unmeasured(parts, self._life),
            sensor=parts.device.sensor,
            planner=self._planner,
            trainer=self._trainer,
        )


def _unmeasured(parts: Parts, life: Life) -> Profile:
    work = parts.work
    return unmeasured_profile(
        parts.config,
        work.facts,
        life=life,
        policy_version=parts.policies[parts.config.policy].version,
        data=_data(work),
    )


def _data(work: "Work") -> HeldData:
    data = work.own.latest
    return HeldData(
        data_epoch=data.number,
        label_counts=data.store.label_counts,
        held_out=0 if work.facts.evaluation_samples else len(data.evaluation),
    )


def _info(parts: Parts, life: Life) -> bytes:
    """What people and tools that look at the broker may know of this device."""
    info = {"version": parts.version, "incarnation": life.incarnation, "share": parts.config.share.value}
    return json.dumps(info).encode()
