"""One device: the four actors under one supervisor, to be embedded in any asyncio application."""

import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias, assert_never

import anyio
import attrs
import structlog

import crowd
from crowd import plugins
from crowd.actors import inbox
from crowd.actors.lives import Lives
from crowd.actors.planner import observations as planning
from crowd.actors.planner.observations import DeviceLeftOut, PlanActivated, ResultKnown, RunBegun, RunOver
from crowd.actors.probe import Probe as Probe
from crowd.actors.trainer import observations
from crowd.actors.trainer.observations import RoundDone, RunFinished, StateHeld
from crowd.agreement.state import Timing
from crowd.config.node_file import NodeConfig
from crowd.crew import Crew, Parts
from crowd.errors import RunRefused
from crowd.planning.plan import Plan
from crowd.planning.policy import Policy
from crowd.ports import Broker, Device, Signer, Store, Traffic
from crowd.progress import News, Progress
from crowd.protocol.identity import read_signer
from crowd.protocol.messages import ResultMessage
from crowd.units import DeviceId, device_id

if TYPE_CHECKING:
    import torch

    from crowd.learning.own_data import DataSet
    from crowd.learning.task import Task
    from crowd.learning.work import Work
    from crowd.trained import Models, TrainedModel


TaskFunction: TypeAlias = Callable[[str], "Task"]

log = structlog.get_logger()


class Node:
    """This device's part in its cluster, as an asynchronous context manager.

    1. Entering reads the data, checks it against the network, starts the actors; raises `BadConfig`, `BrokerRefused`.
    2. `progress()` tells of every round; `wait()` returns when the run is over on every living member.
    3. `train()` begins the next run, on all devices; else this one idles and keeps the model for who lacks it.
    4. Leaving says goodbye to the others and stops everything. What fails meanwhile leaves the `async with` block.
    """

    reading_s = 0.0
    """Seconds that it took to read the data anew, the last time."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        task: TaskFunction | None = None,
        start: Path | None = None,
        device: Device | None = None,
        broker: Broker | None = None,
        signer: Signer | None = None,
        store: Store | None = None,
        timing: Timing | None = None,
        policies: Mapping[str, Policy] | None = None,
        chance: random.Random | None = None,
        probe: Probe | None = None,
    ) -> None:
        """Make a node, not yet started. `task` makes the `Task` from the device's name; `start` is a safetensors file
        with parameters of the network with which the first run begins, where there is no model yet; `policies`, by
        name, join the installed ones; `chance` draws all that is random; `probe` is told what happens. Without them, as
        for the rest, `config` and what is installed decide. Raises `BadConfig`."""
        self.config = config
        self.name: DeviceId = device_id(config.name)
        self._make_task = task
        self._start = start
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
        self._models: Models | None = None
        self._plan: Plan | None = None
        self._news = News()
        self._reading = anyio.Lock()

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._crew = Crew(await self._device.compute.run(self._make_ready))
        await self._crew.supervisor.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._crew.supervisor.__aexit__(kind, error, traceback)
        finally:
            self._news.close()

    def prepare(self) -> "tuple[Task, Work]":
        """Make the task, read its data, and check them against the network. Entering does so, in a worker thread, where
        it cannot be cancelled, unless it is done before. Raises `BadConfig`."""
        from crowd.learning.work import prepare

        task = self._new_task()
        self._prepared = task, prepare(task, memory_bytes=self._free_bytes)
        return self._prepared

    def _read_again(self) -> "DataSet | None":
        from crowd.learning.rereading import read_again

        assert self._prepared is not None, "made ready before the actors start"
        return read_again(self._new_task(), self._prepared[1], memory_bytes=self._free_bytes)

    def _check(self, found: "DataSet") -> None:
        from crowd.learning.rereading import check

        assert self._prepared is not None, "made ready before the actors start"
        check(*self._prepared, found)

    def _new_task(self) -> "Task":
        own, config = self._make_task, self.config
        return plugins.task_of(own, config.name) if own else plugins.make_task(config.task, config.name, config.data)

    @property
    def _free_bytes(self) -> int:
        return self._device.sensor.read().memory_free_bytes

    def _make_ready(self) -> Parts:
        """Load torch and the trainer, and read the data: all that is too slow for the event loop."""
        from crowd.actors.trainer.checkpoints import Checkpoints
        from crowd.actors.trainer.trainer import Trainer
        from crowd.learning.warm_start import read_warm_start
        from crowd.learning.work import network_of
        from crowd.trained import Models, check_room

        _ = self._device.compute.torch_device  # says whether it is there
        task, work = self._prepared or self.prepare()
        if self._store is None:
            self._store = plugins.stores.load("file")(self.config.state_dir)
        check_room(self._store, work.facts.state_elements)
        named = task.name if self._make_task else self.config.task
        self._models = Models(
            self.config,
            task,
            self._store,
            task_name=named,
            crowd_version=crowd.__version__,
            local_time=self._device.sensor.local_time,
        )
        lives = Lives(self._store, self._chance)
        checkpoints = Checkpoints.of(self.config, work, self._store)
        checkpoints.read()
        return Parts(
            version=crowd.__version__,
            config=self.config,
            device=self._device,
            broker=self._broker,
            signer=self._signer,
            policies=self._policies,
            timing=self._timing,
            chance=self._chance,
            probe=self._probe,
            observe=self._observe,
            trainer=Trainer,
            task=task,
            work=work,
            supplied=None if self._start is None else read_warm_start(self._start, network_of(task)),
            checkpoints=checkpoints,
            lives=lives,
            life=lives.begin(),
            last_card=self._models.last_card,
        )

    # --- what its owner sees ------------------------------------------------------------------------------------------

    @property
    def traffic(self) -> Traffic:
        """Bytes over this device's link since the node was made, headers included."""
        return self._broker.traffic

    @property
    def kept(self) -> Mapping[str, int]:
        """While it runs: how many it keeps of what grows by what comes to it, by a name for each."""
        return self._crew.supervisor.kept()

    @property
    def plan(self) -> Plan | None:
        """The active plan; `None` before the first."""
        return self._plan

    @property
    def digest(self) -> str | None:
        """Digest of the final state of the last run that has ended here, in hexadecimal; `None` before the first."""
        return None if self._models is None or self._models.final is None else self._models.final.digest

    @property
    def model(self) -> "torch.nn.Module":
        """The network that is `trained`, in evaluation mode, the caller's own; `RuntimeError` like there."""
        return self.trained.module()

    @property
    def trained(self) -> "TrainedModel":
        """What the last run that has ended here ended in, the same on every device; before the first end `latest`,
        which `is_final` tells. `RuntimeError` before the first complete round."""
        return (self._models and self._models.final) or self.latest

    @property
    def latest(self) -> "TrainedModel":
        """What the last complete round has led to, also while a later run goes on; `RuntimeError` before the first."""
        if self._models is None or (latest := self._models.latest) is None:
            raise RuntimeError("no round is complete yet: await the first of node.progress() that has one")
        return latest

    @property
    def run(self) -> int:
        """Number of the run that is on, or of the last one; 0 before the first."""
        return self._news.run

    @property
    def is_over(self) -> bool:
        """Whether every living member has published the result of the run."""
        return self._news.is_over

    async def wait(self) -> None:
        """Wait until every living member has published the result of the run."""
        await self._news.wait_over()

    async def begun(self) -> int:
        """Wait until a run is on, if none is; returns its number."""
        return await self._news.wait_begun()

    async def train(self, *, fresh: bool = False, follows: int | None = None) -> int:
        """Begin the next run, on all devices, when the last one is over; returns its number.

        It goes on from the present model, which its own replaces only if it is as good on the same evaluation data;
        `fresh`: from a network that is drawn anew. `follows` is the run that it is to follow: if a later one has begun,
        whoever asked for that, this returns its number and begins none. Raises `RunRefused` while a run is on."""
        asked = await self._crew.ask_for_run(inbox.BeginNextRun(follows=follows, fresh=fresh))
        if asked.run is None:
            raise RunRefused(f"no run begins: {asked.why}")
        return asked.run

    async def data_changed(self) -> bool:
        """Read the task's data anew, as they may be others now, as soon as no run is on: the task function is called
        again. The next run trains them, and is evaluated on what is held out of them; the task's evaluation set stays.
        Returns whether they were others. Raises `BadConfig`, in one line, if they cannot be trained: the former ones
        stay."""
        async with self._reading:
            while True:
                await self.wait()
                began_s = anyio.current_time()
                try:
                    found = await self._device.compute.run_aside(self._read_again, queue="data")
                    if found is not None and self.is_over:
                        await self._device.compute.run(partial(self._check, found))
                finally:
                    self.reading_s = anyio.current_time() - began_s
                if found is None:
                    return False
                if self.is_over:
                    log.info("data_changed", samples=len(found.store.samples))
                    await self._crew.put_data(found)
                    return True
                found = None  # a run has begun meanwhile, and needs the memory: once more after it

    async def progress(self) -> AsyncGenerator[Progress, None]:
        """Yield a `Progress` for every round from now on, and for every new plan; end when `wait` would return. A
        listener that is slower than the rounds misses some, never the last."""
        async with aclosing(self._news.listen()) as news:
            async for progress in news:
                yield progress

    # --- what the actors report ---------------------------------------------------------------------------------------

    def _observe(self, news: planning.Observation | observations.Observation) -> None:
        models = self._models
        assert models is not None, "made before the actors are"
        match news:
            case RunBegun(run=run):
                self._news.begin(run)
            case DeviceLeftOut(plan=plan):
                self._news.tell(attrs.evolve(self._news.last, plan=plan))
            case PlanActivated(active=active):
                self._plan = active.plan
                models.begin_plan(active)
                self._news.tell(attrs.evolve(self._news.last, plan=self._plan))
            case RoundDone():
                self._news.tell(news.after(self._news.last))
            case StateHeld(state=state):
                models.hold(state)
            case RunFinished(state=state, result=result):
                models.finish(state, result, self.results.values())
            case ResultKnown(device=device, result=result):
                self.results[device] = result
            case RunOver():
                self._news.end()
            case _:
                assert_never(news)
