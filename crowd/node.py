"""One device: the four actors under one supervisor, to be embedded in any asyncio application."""

import itertools
import json
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias, assert_never

import anyio
import attrs
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

import crowd
from crowd import plugins
from crowd.actors.data_mover.data_mover import DataMover
from crowd.actors.lives import Lives
from crowd.actors.planner import observations as planning
from crowd.actors.planner.observations import DeviceLeftOut, PlanActivated, ResultKnown, RunOver
from crowd.actors.planner.planner import Planner
from crowd.actors.probe import Probe as Probe
from crowd.actors.profiler import Profiler, unmeasured_profile
from crowd.actors.trainer import observations
from crowd.actors.trainer.observations import RoundDone, RunFinished
from crowd.actors.trainer.outside import Outside
from crowd.agreement.state import Timing
from crowd.config.node_file import NodeConfig
from crowd.planning.plan import Plan
from crowd.planning.policy import Policy
from crowd.planning.profile import Profile
from crowd.ports import Broker, Device, Signer, Store, Traffic
from crowd.progress import Progress
from crowd.protocol.identity import read_signer
from crowd.protocol.messages import ResultMessage
from crowd.runtime import ChildSpec, Strategy, Supervisor
from crowd.units import DeviceId, Life, device_id

if TYPE_CHECKING:
    import torch

    from crowd.actors.trainer.trainer import Trainer
    from crowd.learning.task import Task
    from crowd.learning.work import Work
    from crowd.trained import TrainedModel

MAILBOX_SIZE = 1024
RESTARTS_MAX = 5
RESTART_WINDOW_S = 60.0
PROGRESS_BUFFER = 256

TaskFunction: TypeAlias = Callable[[str], "Task"]

log = structlog.get_logger()


class Node:
    """This device's part in its cluster, as an asynchronous context manager.

    1. Entering reads the data, checks it against the network, starts the actors; raises `BadConfig`, `BrokerRefused`.
    2. `progress()` tells of every round; `wait()` returns when the run is over on every living member.
    3. Leaving says goodbye to the others and stops everything. What fails meanwhile leaves the `async with` block.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        task: TaskFunction | None = None,
        device: Device | None = None,
        broker: Broker | None = None,
        signer: Signer | None = None,
        store: Store | None = None,
        timing: Timing | None = None,
        policies: Mapping[str, Policy] | None = None,
        chance: random.Random | None = None,
        probe: Probe | None = None,
    ) -> None:
        """Make a node, not yet started. `task` makes the `Task` from the device's name; `policies`, by name, join
        the installed ones; `chance` draws all that is random; `probe` is told what happens. Without them, as for the
        rest, `config` and what is installed decide. Raises `BadConfig`."""
        self.config = config
        self.name: DeviceId = device_id(config.name)
        self._make_task = task
        self._device = device or plugins.devices.load(config.device)()
        self._broker = broker or plugins.broker_from_url(
            config.broker,
            cluster=config.cluster,
            device=self.name,
            username=config.username,
            password=config.read_password(),
            ca_file=config.ca_file,
        )
        self._signer = signer or read_signer(self.name, key_file=config.key_file, members_file=config.members_file)
        self._store: Store | None = store
        self._timing = timing or Timing()
        self._chance = chance or random.SystemRandom()
        self._probe = probe or Probe()
        self._policies: Mapping[str, Policy] = {
            name: plugins.policies.load(name)() for name in plugins.policies.names()
        } | dict(policies or {})
        if config.policy not in self._policies:
            plugins.policies.load(config.policy)  # says what is wrong with it
        self.results: dict[DeviceId, ResultMessage] = {}
        """Results of the run, by device, as far as they are known here."""
        self._prepared: tuple[Task, Work] | None = None
        self._trained: TrainedModel | None = None
        self._plan: Plan | None = None
        self._last = Progress(round=0, value=None, bytes_up=0, bytes_down=0, elapsed_s=0.0, plan=None)
        self._listeners: dict[MemoryObjectSendStream[Progress], MemoryObjectReceiveStream[Progress]] = {}
        self._over = anyio.Event()

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        task, work, trainer = await self._device.compute.run(self._make_ready)
        self._supervisor = self._make_supervisor(task, work, trainer)
        await self._supervisor.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._supervisor.__aexit__(kind, error, traceback)
        finally:
            for listener in list(self._listeners):
                listener.close()

    def prepare(self) -> "tuple[Task, Work]":
        """Make the task, read its data, and check them against the network. Entering does so, in a worker thread, where
        it cannot be cancelled, unless it is done before. Raises `BadConfig`."""
        from crowd.learning.work import prepare

        own, config = self._make_task, self.config
        task = plugins.task_of(own, config.name) if own else plugins.make_task(config.task, config.name, config.data)
        free_bytes = self._device.sensor.read().memory_free_bytes
        self._prepared = task, prepare(task, device=self.name, data_epoch=0, memory_bytes=free_bytes)
        return self._prepared

    def _make_ready(self) -> "tuple[Task, Work, type[Trainer]]":
        """Load torch and the trainer, and read the data: all that is too slow for the event loop."""
        from crowd.actors.trainer.checkpoints import Checkpoints
        from crowd.actors.trainer.trainer import Trainer
        from crowd.trained import check_room

        _ = self._device.compute.torch_device  # says whether it is there
        task, work = self._prepared or self.prepare()
        if self._store is None:
            self._store = plugins.stores.load("file")(self.config.state_dir)
        check_room(self._store, work.facts.state_elements)
        self._lives = Lives(self._store, self._chance)
        self._life = self._lives.begin()
        self._checkpoints = Checkpoints.of(self.config, work, self._store)
        self._checkpoints.read()
        return task, work, Trainer

    def _unmeasured_profile(self, work: "Work") -> Profile:
        return unmeasured_profile(
            self.config,
            work.facts,
            life=self._life,
            policy_version=self._policies[self.config.policy].version,
            label_counts=work.store.label_counts,
            evaluation_samples=len(work.evaluation),
        )

    def _info(self, life: Life) -> bytes:
        """What people and tools that look at the broker may know of this device."""
        info = {"version": crowd.__version__, "incarnation": life.incarnation, "share": self.config.share.value}
        return json.dumps(info).encode()

    def _make_supervisor(self, task: "Task", work: "Work", trainer: "type[Trainer]") -> Supervisor:
        config, compute = self.config, self._device.compute
        facts = work.facts
        lives = itertools.chain((self._life,), iter(self._lives.begin, None))

        def make_planner() -> Planner:
            return Planner(
                device=self.name,
                life=self._life,
                lives=self._lives,
                saved=lambda: self._checkpoints.saved,
                policies=self._policies,
                compute=compute,
                trainer=supervisor.ref("trainer"),
                data_mover=supervisor.ref("data mover"),
                observe=self._observe,
                timing=self._timing,
                probe=self._probe,
            )

        def make_trainer() -> "Trainer":
            outside = Outside(
                device=self.name,
                compute=compute,
                planner=supervisor.ref("planner"),
                data_mover=supervisor.ref("data mover"),
                profiler=supervisor.ref("profiler"),
                observe=self._observe,
                traffic=lambda: self.traffic,
                downlink_bytes_s=config.downlink_bytes_s,
                probe=self._probe,
            )
            return trainer(task=task, work=work, outside=outside, seed=config.seed, checkpoints=self._checkpoints)

        def make_data_mover() -> DataMover:
            # the first of the four to start, and all restart together: each time in a life of its own
            self._life = life = next(lives)
            self._probe.life_began(life)
            return DataMover(
                device=self.name,
                cluster=config.cluster,
                broker=self._broker,
                signer=self._signer,
                life=life,
                share=config.share,
                size_bytes_max=max(1 << 20, 16 * facts.state_elements),
                planner=supervisor.ref("planner"),
                trainer=supervisor.ref("trainer"),
                profiler=supervisor.ref("profiler"),
                info=self._info(life),
                seed=int.from_bytes(life.boot[:4], "big"),
                probe=self._probe,
            )

        def make_profiler() -> Profiler:
            return Profiler(
                profile=self._unmeasured_profile(work),
                sensor=self._device.sensor,
                planner=supervisor.ref("planner"),
                trainer=supervisor.ref("trainer"),
            )

        # stopped in reverse order: the data mover says goodbye last
        supervisor = Supervisor(
            [
                ChildSpec(name="data mover", factory=make_data_mover, mailbox_size=MAILBOX_SIZE),
                ChildSpec(name="planner", factory=make_planner, mailbox_size=MAILBOX_SIZE),
                ChildSpec(name="trainer", factory=make_trainer, mailbox_size=MAILBOX_SIZE),
                ChildSpec(name="profiler", factory=make_profiler, mailbox_size=MAILBOX_SIZE),
            ],
            strategy=Strategy.ONE_FOR_ALL,
            restarts_max=RESTARTS_MAX,
            window_s=RESTART_WINDOW_S,
            seed=self._chance.getrandbits(32),
        )
        return supervisor

    # --- what its owner sees ------------------------------------------------------------------------------------------

    @property
    def traffic(self) -> Traffic:
        """Bytes over this device's link since the node was made, headers included."""
        return self._broker.traffic

    @property
    def kept(self) -> Mapping[str, int]:
        """While it runs: how many it keeps of what grows by what comes to it, by a name for each."""
        return self._supervisor.kept()

    @property
    def plan(self) -> Plan | None:
        """The active plan; `None` before the first."""
        return self._plan

    @property
    def digest(self) -> str | None:
        """Digest of the final state, in hexadecimal; `None` before the run is finished here."""
        return None if self._trained is None else self._trained.digest

    @property
    def model(self) -> "torch.nn.Module":
        """The trained network, in evaluation mode, the same on every device; `RuntimeError` before the run's end."""
        return self.trained.module()

    @property
    def trained(self) -> "TrainedModel":
        """The trained network with the means to save it, which is done once at the run's end; `RuntimeError` before."""
        if self._trained is None:
            raise RuntimeError("the run is not finished: await node.wait(), or the end of node.progress(), first")
        return self._trained

    async def wait(self) -> None:
        """Wait until every living member has published the result of the run."""
        await self._over.wait()

    async def progress(self) -> AsyncGenerator[Progress, None]:
        """Yield a `Progress` for every round from now on, and for every new plan; end when `wait` would return. A
        listener that is slower than the rounds misses some, never the last."""
        send: MemoryObjectSendStream[Progress]
        receive: MemoryObjectReceiveStream[Progress]
        send, receive = anyio.create_memory_object_stream(PROGRESS_BUFFER)
        if self._over.is_set():
            send.close()
        else:
            self._listeners[send] = receive
        try:
            async with receive:
                async for news in receive:
                    yield news
        finally:
            self._listeners.pop(send, None)
            send.close()

    # --- what the actors report ---------------------------------------------------------------------------------------

    def _observe(self, news: planning.Observation | observations.Observation) -> None:
        match news:
            case DeviceLeftOut(plan=plan):
                self._tell(attrs.evolve(self._last, plan=plan))
            case PlanActivated(active=active):
                if self._over.is_set() and not active.start.finished:
                    self._over = anyio.Event()  # another run
                self._plan = active.plan
                self._tell(attrs.evolve(self._last, plan=self._plan))
            case RoundDone():
                self._tell(news.after(self._last))
            case RunFinished(state=state):
                assert self._prepared is not None
                assert self._store is not None
                from crowd.trained import TrainedModel

                self._trained = TrainedModel(state, self._prepared[0].model, self._store)
                self._trained.save_or_warn()
            case ResultKnown(device=device, result=result):
                self.results[device] = result
            case RunOver():
                self._over.set()
                for listener in list(self._listeners):
                    listener.close()
            case _:
                assert_never(news)

    def _tell(self, news: Progress) -> None:
        self._last = news
        for listener, other_end in self._listeners.items():
            try:
                listener.send_nowait(news)
            except anyio.WouldBlock:
                other_end.receive_nowait()  # a slow listener misses the oldest
                listener.send_nowait(news)
