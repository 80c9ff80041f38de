"""The common parts of every run of a lab, whatever program the devices run.

Layout: `LabRun` (all devices, and when they are switched on), `LabDevice` (one device with its limits) and `_Gate`
(where they wait for each other).
"""

import abc
import signal
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import ExitStack
from functools import partial

import anyio
import attrs
from anyio.abc import TaskGroup

from crowd.config.cluster_file import DeviceKind
from crowd.experiment.experiment import Experiment, ExperimentResult, OnRound, ScaledExperiment
from crowd.experiment.metering import Span
from crowd.experiment.node_files import write_files
from crowd.experiment.subprocesses import Subprocess
from crowd.ports import Traffic
from crowd.units import device_id
from devices.cluster.cluster_run import ClusterDevice, ClusterRun, node_config
from devices.cluster.device_metrics import DeviceRecorder
from devices.lab.cgroups import Hierarchies
from devices.lab.messages import ORDERS, Measure, Measured, Ready
from devices.lab.netns import Counters, Shape
from devices.lab.sandbox import Site
from devices.lab.worker_process import expect, worker_command

SERVER_HOST = "_server"
"""Host of a server that runs on no device; no device has such a name."""
PORT = 1883
ADJUST_S = 2.0
"""Real seconds of one adjustment of a processor's share."""
ADJUSTMENTS = 2
"""Times that a device's share of a processor is corrected before the run by its measured speed: with a small share and
cold caches it is slower than in proportion."""
TUNE_S = 1.0
"""Real seconds of training after which a device's share is corrected again: the node's work beside training takes from
it, and a device that trains alone is faster than when all were measured together."""
TUNE_STEP_MAX = 1.25
"""Largest factor of one such correction."""
STANDSTILL_HOURS = 2.0
"""Real hours without a round after which a run stands still."""


class LabRun(ClusterRun):
    """All devices of an experiment, and the server that they all talk to: on the device that has the broker, else on a
    host of its own. The server's processor time is unlimited in both.

    Subclasses make each `member` and start the server. The run has a clock that goes `slower` times slower than real
    time; processors and links are as much slower.
    """

    members: Sequence["LabDevice"]

    def __init__(self, experiment: Experiment, report: OnRound, site: Site, *, slower: float) -> None:
        super().__init__(experiment, report)
        self.site = site
        self.slower = slower
        self.counters = ExitStack()
        devices = experiment.cluster.devices
        self.server_place = next((device.name for device in devices if device.broker), SERVER_HOST)
        addresses = {name: site.net.join(name, _shape(kind, slower)) for name, kind in experiment.kinds.items()}
        self.server_address = (
            addresses[device_id(self.server_place)]
            if self.server_place != SERVER_HOST
            else site.net.join(SERVER_HOST, None)
        )
        self.files = write_files(
            site.directory,
            [
                node_config(experiment, index, broker=f"mqtt://{self.server_from(device.name)}:{PORT}")
                for index, device in enumerate(devices)
            ],
        )
        self.gate = _Gate(len(devices))
        self.on = anyio.Event()
        self.on_s = 0.0

    @classmethod
    async def run(
        cls, scale: ScaledExperiment, report: OnRound, one_kflops: int, hierarchies: Hierarchies
    ) -> ExperimentResult | None:
        """Train to the end; `one_kflops` is what an unlimited processor here trains in real time. `None` if this
        process was told to end, by SIGINT or SIGTERM."""
        experiment = scale.experiment
        with Site(hierarchies) as site:
            run = cls(experiment, report, site, slower=scale.slower)
            devices = range(len(experiment.cluster.devices))
            run.members = [run.member(index, one_kflops=one_kflops) for index in devices]
            with run.counters:
                return await run._train()

    @abc.abstractmethod
    def member(self, index: int, *, one_kflops: int) -> "LabDevice":
        """Make the device at `index` of the cluster file."""

    @abc.abstractmethod
    async def start_server(self, tasks: TaskGroup) -> None:
        """Start the server; return when devices can connect to it."""

    def server_from(self, device: str) -> str:
        """The server's address as `device` sees it."""
        return "127.0.0.1" if device == self.server_place else self.server_address

    async def _train(self) -> ExperimentResult | None:
        outcome = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_told, tasks.cancel_scope)
            await self.start_server(tasks)
            for member in self.members:
                tasks.start_soon(member.live, name=member.name)
            await self.on.wait()
            for member in self.members:
                tasks.start_soon(member.keep_schedule)
            tasks.start_soon(self.keep_time)
            tasks.start_soon(partial(self.watch_for_standstill, hours=STANDSTILL_HOURS / self.slower))
            await self.over.wait()
            outcome = self.outcome()
            tasks.cancel_scope.cancel()
        return outcome

    def clock(self) -> float:
        """Seconds since the devices were switched on."""
        return anyio.current_time() - self.on_s

    def switch_on(self) -> None:
        """Switch on all devices, which are ready."""
        if not self.on.is_set():
            self.on_s = anyio.current_time()
            self.on.set()


class LabDevice(ClusterDevice, abc.ABC):
    """One device: its host on the network, its share of a processor, its memory, and what it used of them."""

    def __init__(self, lab: LabRun, index: int, *, one_kflops: int) -> None:
        super().__init__(lab, index)
        experiment = lab.experiment
        self._lab = lab
        self._kind = kind = experiment.kinds[self.name]
        self.worker_command = lab.site.net.command(
            self.name,
            *worker_command(
                lab.files[self.name],
                memory_bytes=kind.memory_bytes,
                slower=lab.slower,
                target=experiment.target,
            ),
        )
        self.group = lab.site.group(self.name)
        self._cores = kind.speed_kflops / lab.slower / one_kflops
        self._factor = 1.0
        self._counters: Counters | None = None
        self._spans: list[Span] = []
        self._untuned: list[Span] = []
        """Pieces of training since the processor's share was last set."""
        self.recorder = DeviceRecorder(
            self.spec, kind, traffic=self._traffic, spans=lambda: tuple(self._spans), clock=lab.clock
        )

    @abc.abstractmethod
    async def live(self) -> None:
        """Run the device; return when it has failed for good."""

    async def expect_ready(self, process: Subprocess, news: AsyncIterator[str]) -> None:
        """Wait until a worker has begun to run, and put it into this device's limits."""
        self.group.add(process.pid)
        self.goal = (await expect(Ready, process, news)).goal
        if self._counters is None:
            self._counters = self._lab.counters.enter_context(Counters(process.pid))

    def limit_memory(self) -> None:
        """Limit the memory from now on: the device has its free memory above what its programs have taken by now."""
        self.group.limit_memory(more_bytes=self._kind.memory_bytes)

    async def adjust(self, process: Subprocess, news: AsyncIterator[str]) -> None:
        """Find the share of a processor with which the device is as fast as it should be, while all others train
        too."""
        for _ in range(ADJUSTMENTS):
            self.group.limit_cpu(self._cores)
            await self._lab.gate.wait()
            await process.tell(ORDERS.to_line(Measure(duration_s=ADJUST_S / self._lab.slower)))
            measured = await expect(Measured, process, news)
            self._cores *= self._kind.speed_kflops / measured.speed_kflops
            await self._lab.gate.wait()

    def set_pace(self) -> None:
        """Let the device be as fast as it should be now."""
        self.group.limit_cpu(min(1.0, self._cores * self._factor))

    async def keep_schedule(self) -> None:
        """Change the processor's speed at the times that the cluster file names."""
        for from_s, factor in self.spec.speed_schedule:
            await anyio.sleep_until(self._lab.on_s + from_s)
            self._factor, self._untuned = factor, []
            if self.on:
                self.set_pace()

    def has_computed(self, spans: Iterable[Span]) -> None:
        """Note pieces of training, by the lab's clock. The device's share is corrected by them now and then."""
        on_s = self._lab.on_s
        spans = [attrs.evolve(span, began_s=span.began_s - on_s, ended_s=span.ended_s - on_s) for span in spans]
        self._spans += spans
        self._untuned += [span for span in spans if span.flops]
        busy_s = sum(span.ended_s - span.began_s for span in self._untuned)
        if busy_s * self._lab.slower >= TUNE_S:
            found_kflops = sum(span.flops for span in self._untuned) / busy_s / 1000
            step = self._kind.speed_kflops * self._factor / found_kflops
            self._untuned = []
            self._cores *= min(TUNE_STEP_MAX, max(1 / TUNE_STEP_MAX, step))
            self.set_pace()

    def _traffic(self) -> Traffic:
        return Traffic() if self._counters is None else self._counters.read()


class _Gate:
    """A gate that opens, again and again, when so many have come."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._waiting = 0
        self._opened = anyio.Event()

    async def wait(self) -> None:
        self._waiting += 1
        opened = self._opened
        if self._waiting == self._count:
            self._waiting, self._opened = 0, anyio.Event()
            opened.set()
        await opened.wait()


def _shape(kind: DeviceKind, slower: float) -> Shape:
    return Shape(
        uplink_bytes_s=round(kind.uplink_bytes_s / slower),
        downlink_bytes_s=round(kind.downlink_bytes_s / slower),
        half_duplex=kind.half_duplex,
    )


async def _cancel_when_told(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
