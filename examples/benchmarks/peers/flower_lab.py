"""A lab whose devices run Flower.

Layout: `FlowerLab` (a backend, as `devices.lab.backend.Lab` is one), `FlowerCluster` (one run), `_Client` (one device),
`_Program` (a process of Flower's) and `lines_of` (a pipe for news).
"""

import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import attrs
from anyio.abc import TaskGroup, TaskStatus

from crowd.errors import BadConfig
from crowd.experiment.experiment import Experiment, ScaledExperiment
from crowd.experiment.subprocesses import Subprocess, started
from crowd.progress import Progress
from devices.cluster.cluster_run import make_task
from devices.lab.backend import Lab
from devices.lab.cgroups import Group
from devices.lab.cluster_run import LabDevice, LabRun
from devices.lab.messages import ORDERS, REPORTS, Advanced, Computed, Go, Ready, Working
from devices.lab.sandbox import Site
from devices.lab.worker_process import ENVIRONMENT, start_worker

HERE = Path(__file__).resolve().parent
APP = HERE / "flower_app"
PROGRAMS = HERE.parents[2] / ".venv-peers" / "bin"
SUPERLINK_PORT = 9092
SUPERLINK_READY, SUPERNODE_READY = "Application startup complete", "SuperNode ID"
LAST_WORDS = 30
BOTH_ENDS = os.O_RDWR | os.O_NONBLOCK
"""How a pipe is opened by one who stays, while others come and go at its other end."""
LAST_NEWS_S = 5.0
"""What was said before Flower's run ended has arrived by then."""


class FlowerCluster(LabRun):
    """A SuperLink in the broker's place and a SuperNode on each device, as Flower's deployment runtime has them: each
    message to a device is answered by a ClientApp that is a process of its own."""

    members: "list[_Client]"

    def member(self, index: int, *, one_kflops: int) -> "_Client":
        return _Client(self, index, one_kflops=one_kflops)

    async def start_server(self, tasks: TaskGroup) -> None:
        self._group = self.site.group("_superlink")
        await tasks.start(self._serve)
        tasks.start_soon(self._submit)

    async def _serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        command = ["flower-superlink", "--insecure", "--disable-runtime-dependency-installation"]
        address = ["--host", "0.0.0.0", "--port", str(SUPERLINK_PORT)]
        async with flower(self.site, self.server_place, self._group, *command, *address) as superlink:
            await superlink.wait_for(SUPERLINK_READY)
            task_status.started()
            await superlink.follow()
            raise superlink.ended()

    async def _submit(self) -> None:
        """Start Flower's run when all devices are on. The ServerApp runs in the SuperLink's place."""
        await self.on.wait()
        pipe = make_pipe(self.site.directory / "server.news")
        home = self.site.directory / f"home-{self.server_place}-flwr"
        home.mkdir()
        connection = f'[superlink.lab]\naddress = "127.0.0.1:{SUPERLINK_PORT}"\ninsecure = true\n'
        (home / "config.toml").write_text(f'[superlink]\ndefault = "lab"\n{connection}', encoding="utf-8")
        command = ["flwr", "run", str(APP), "lab", "--stream", "--run-config", self._run_config(pipe)]
        async with (
            anyio.create_task_group() as tasks,
            flower(self.site, self.server_place, self._group, *command) as run,
        ):
            tasks.start_soon(self._hear, pipe)
            await run.follow()
            with anyio.move_on_after(LAST_NEWS_S):
                await self.over.wait()
            if not self.over.is_set():
                raise run.ended()

    def _run_config(self, pipe: Path) -> str:
        experiment = self.experiment
        values = {
            "file": f'"{self.files[self.members[0].name]}"',
            "devices": len(self.members),
            "seed": experiment.seed,
            "target": self.members[0].goal.target or 0.0,
            "rounds-max": experiment.rounds_max or 0,
            "news": f'"{pipe}"',
        }
        return " ".join(f"{key}={value}" for key, value in values.items())

    async def _hear(self, pipe: Path) -> None:
        """What the ServerApp says."""
        async for line in lines_of(pipe):
            match REPORTS.from_line(line):
                case Working(plan=planned):
                    self.begin(planned)
                case Advanced() as advanced:
                    for member in self.members:
                        member.round_over(advanced)
                case news:
                    raise RuntimeError(f"the ServerApp says {news}")


class _Client(LabDevice):
    """One device, with a SuperNode. Its processor is as slow as it should be while it trains. What Flower itself does
    is not slowed: in each round it starts a process, on which it waits 30 s at most, and that is no arithmetic by which
    the cluster file tells a device's speed."""

    def __init__(self, lab: FlowerCluster, index: int, *, one_kflops: int) -> None:
        super().__init__(lab, index, one_kflops=one_kflops)
        self._own_samples = len(make_task(lab.experiment, index).data)  # type: ignore[arg-type]  # map-style, so it has one
        self._training = False
        self._news = make_pipe(lab.site.directory / f"{self.name}.news")
        self._orders = make_pipe(lab.site.directory / f"{self.name}.orders")

    async def live(self) -> None:
        lab = self._lab
        node_config = f'file="{lab.files[self.name]}" news="{self._news}" orders="{self._orders}"'
        command = ["flower-supernode", "--insecure", "--node-config", node_config]
        address = ["--superlink", f"{lab.server_from(self.name)}:{SUPERLINK_PORT}"]
        async with AsyncExitStack() as stack:
            orders = os.open(self._orders, BOTH_ENDS)
            stack.callback(os.close, orders)
            # a worker of the lab's own finds the share of the processor, and what memory an idle trainer has
            async with start_worker(self.worker_command, name=self.name) as worker:
                news = worker.lines()
                await self.expect_ready(worker, news)
                await self.adjust(worker, news)
                self.group.free_cpu()
                supernode = await stack.enter_async_context(flower(lab.site, self.name, self.group, *command, *address))
                await supernode.wait_for(SUPERNODE_READY)
                self.limit_memory()
            await lab.gate.wait()
            lab.switch_on()
            self.begin_life(0)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hear, orders)
                await supernode.follow()
                raise supernode.ended()

    async def _hear(self, orders: int) -> None:
        """What the ClientApp says, in whichever process; it takes orders from the pipe of that descriptor."""
        async for line in lines_of(self._news):
            match REPORTS.from_line(line):
                case Ready():
                    self._training = True
                    self.set_pace()
                    os.write(orders, f"{ORDERS.to_line(Go())}\n".encode())
                case Computed(spans=spans):
                    slower = self._lab.slower  # it knows real time only
                    self.has_computed(
                        attrs.evolve(span, began_s=span.began_s / slower, ended_s=span.ended_s / slower)
                        for span in spans
                    )
                    self._training = False
                    self.group.free_cpu()
                case news:
                    raise RuntimeError(f"the ClientApp of {self.name} says {news}")

    def set_pace(self) -> None:
        if self._training:
            super().set_pace()

    def round_over(self, advanced: Advanced) -> None:
        """All devices have trained, and the server has averaged and evaluated."""
        samples = advanced.round * self._own_samples
        self.advance(Progress(plan=None, **attrs.asdict(attrs.evolve(advanced, samples_trained=samples))))
        if advanced.finished:
            self._be_done(reached=True)


class FlowerLab(Lab):
    """Flower's FedAvg on the devices of a cluster file, with the links and limits that `Lab` gives them. The policy of
    a trial is not asked. Raises `BadConfig` for what Flower's run cannot do, and if Flower is not installed."""

    run_class = FlowerCluster

    def scale(self, experiment: Experiment) -> ScaledExperiment:
        check_flower(PROGRAMS)
        check_trial(experiment)
        return super().scale(experiment)


def check_flower(programs: Path) -> None:
    """Raises `BadConfig` unless `make peers` has been run."""
    if not (programs / "flower-superlink").exists():
        raise BadConfig(f"Flower is not installed in {programs.parent}: run 'make peers' first")


def check_trial(experiment: Experiment) -> None:
    """Raises `BadConfig` for a device that fails, and for a task that the server could not evaluate."""
    for device in experiment.cluster.devices:
        if device.fails_at_s:
            raise BadConfig(f"device {device.name!r}: fails_at_s: Flower's FedAvg waits for all; leave it out here")
    if make_task(experiment, 0).evaluation is None:
        raise BadConfig(
            f"task {experiment.task!r} has no evaluation set in common, by which Flower's server could evaluate"
        )


# --- processes --------------------------------------------------------------------------------------------------------


class _Program:
    """A program of Flower's that is running, and the last of what it said."""

    def __init__(self, process: Subprocess, name: str) -> None:
        self._lines = process.lines()
        self._name = name
        self._words: deque[str] = deque(maxlen=LAST_WORDS)

    async def wait_for(self, word: str) -> None:
        """Until a line has it. Raises `RuntimeError` if the program ends before."""
        async for line in self._lines:
            self._words.append(line)
            if word in line:
                return
        raise self.ended()

    async def follow(self) -> None:
        """Until it ends."""
        async for line in self._lines:
            self._words.append(line)

    def ended(self) -> RuntimeError:
        return RuntimeError("\n".join([f"{self._name} has ended before the run did:", *self._words]))


@asynccontextmanager
async def flower(site: Site, host: str, group: Group, *command: str) -> AsyncIterator[_Program]:
    """Run a program of Flower's in that place and group, with a home of its own and no word to the outside."""
    environment = {
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "FLWR_HOME": str(site.directory / f"home-{host}-{command[0]}"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    merged = ("sh", "-c", 'exec "$@" 2>&1', "sh", *command)
    name = f"{command[0]} of {host}"
    async with started(
        site.net.command(host, *merged), name=name, environment=ENVIRONMENT | environment, grace_s=0
    ) as process:
        group.add(process.pid)
        yield _Program(process, name)


def make_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


async def lines_of(pipe: Path) -> AsyncGenerator[str, None]:
    """What is written into `pipe`, by whichever process; without end."""
    descriptor = os.open(pipe, BOTH_ENDS)
    rest = b""
    try:
        while True:
            await anyio.wait_readable(descriptor)
            *lines, rest = (rest + os.read(descriptor, 1 << 16)).split(b"\n")
            for line in lines:
                yield line.decode()
    finally:
        os.close(descriptor)
