"""A cluster file under virtual time: every device is a whole node, with real arithmetic on simulated processors and
links.

Layout: `Simulation` (the backend), `_SimulatedRun` (all devices), `_RunDevice` (one of them, over all its lives).
"""

import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import anyio
import attrs
import torch

from brokers.simulated.network import LinkSpec, Network
from crowd.config.cluster_file import DeviceConfig, DeviceKind
from crowd.experiment.experiment import Backend, Experiment, ExperimentResult, OnRound
from crowd.experiment.metering import MeteredCompute
from crowd.experiment.plan_summary import PlanSummary
from crowd.node import Node
from crowd.planning.check import check_hope
from crowd.progress import Progress
from crowd.protocol.identity import KeyedHashSigner
from crowd.run_record import RunGoal
from crowd.units import device_id
from devices.cluster.cluster_run import ClusterDevice, ClusterRun, make_task, node_config
from devices.cluster.device_metrics import DeviceRecorder, speed_kflops
from devices.emulated import VirtualCompute
from devices.sensors import FixedSensor
from devices.simulation.device import LIMIT_S, SimulatedDevice
from devices.simulation.virtual_time import run_virtually

STANDSTILL_HOURS = 6.0
"""Virtual hours without a round after which a cluster never completes another one."""

MESSAGE_S = 400e-6
"""Seconds that a message takes at either end on a processor that trains `Experiment.core_kflops`: see
`docs/decisions/056-messages-cost-processor-time.md`."""
MESSAGE_BYTE_S = 25e-9
"""Seconds that each byte of a message takes in addition to `MESSAGE_S`."""
OVERHEAD_S = 1.2e-3
"""Seconds that each piece of a node's work beside training takes on a processor that trains `Experiment.core_kflops`:
to encode, to merge, to apply, to take a snapshot."""

UNEVENNESS = 0.08
"""Standard deviation, as a part of it, of the time that a piece of training takes, as the lab has it."""
UNEVENNESS_KEPT = 0.5
"""Correlation of a piece's deviation with that of the piece before."""


class Simulation(Backend):
    """A backend in this process, as fast as it can compute. All devices are switched on at 0 s; one seed decides
    everything: equal experiments have equal results, bit for bit, on the same kind of processor."""

    def run(self, experiment: Experiment, report: OnRound) -> ExperimentResult:
        with _repeatable(experiment.seed):
            return run_virtually(_train, experiment, report)


async def _train(experiment: Experiment, report: OnRound) -> ExperimentResult:
    return await _SimulatedRun(experiment, report).train()


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Run the context with torch on one thread, deterministic algorithms and random numbers from `seed`; afterwards
    restore its settings."""
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=lenient)
        torch.set_num_threads(threads)


class _SimulatedRun(ClusterRun):
    """All devices of an experiment on one network."""

    def __init__(self, experiment: Experiment, report: OnRound) -> None:
        super().__init__(experiment, report)
        hosts = [device_id(device.name) for device in experiment.cluster.devices if device.broker]
        self.network = Network(seed=experiment.seed, host=hosts[0] if hosts else None)
        self.members = self._devices = [_RunDevice(self, index) for index in range(len(experiment.cluster.devices))]

    async def train(self) -> ExperimentResult:
        async with anyio.create_task_group() as tasks:
            for device in self._devices:
                tasks.start_soon(device.live, name=device.name)
                tasks.start_soon(device.keep_schedule)
            tasks.start_soon(self.keep_time)
            tasks.start_soon(partial(self.watch_for_standstill, hours=STANDSTILL_HOURS))
            await self.over.wait()
            outcome = self.outcome()
            tasks.cancel_scope.cancel()
        return outcome


class _RunDevice(ClusterDevice):
    """One device. In each of its lives it runs a new node."""

    def __init__(self, run: _SimulatedRun, index: int) -> None:
        super().__init__(run, index)
        experiment = run.experiment
        self._task = make_task(experiment, index)
        self.goal = RunGoal.of(self._task)
        self._run = run
        self._kind = kind = experiment.kinds[self.name]
        # saved at the end alone: all disks are in this machine's memory
        self._config = attrs.evolve(node_config(experiment, index, broker="memory://simulation"), checkpoint_s=LIMIT_S)
        self._processor = VirtualCompute(
            kind.speed_kflops,
            overhead_flops=_flops(OVERHEAD_S, experiment),
            unevenness=_unevenness(random.Random(f"{experiment.seed}/{self.name}/processor")),
        )
        self._compute = MeteredCompute(self._processor)
        self._link = run.network.broker(
            self.name, _link(self.spec, kind), cluster=experiment.cluster.name, handle=self._handle
        )
        self._device = SimulatedDevice(
            self._config,
            task=lambda name: self._task,
            broker=self._link,
            compute=self._compute,
            sensor=FixedSensor(memory_free_bytes=kind.memory_bytes),
            signer=KeyedHashSigner(
                self.name,
                [device_id(device.name) for device in experiment.cluster.devices],
                secret=hashlib.blake2b(str(experiment.seed).encode()).digest(),
            ),
            chance=lambda _: random.Random(f"{experiment.seed}/{self.name}/{self._life}"),
        )
        self.recorder = DeviceRecorder(
            self.spec,
            kind,
            traffic=lambda: self._link.traffic,
            spans=lambda: self._compute.spans,
            transfers=lambda: run.network.transfers(self.name),
        )

    async def _handle(self, size_bytes: int) -> None:
        await self._processor.handle(_flops(MESSAGE_S + size_bytes * MESSAGE_BYTE_S, self._run.experiment))

    async def live(self) -> None:
        """Live all lives of the device; return when it has failed for good."""
        for life, (begins_s, fails_s) in enumerate(self.recorder.lives):
            await anyio.sleep_until(begins_s)
            self.begin_life(life)
            async with anyio.create_task_group() as tasks:
                if fails_s < math.inf:
                    tasks.start_soon(self._fail, fails_s, tasks.cancel_scope)
                await self._device.live(self._take_part)

    async def _fail(self, time_s: float, life: anyio.CancelScope) -> None:
        """Fail as without power: all that is left is the will, unless the broker fails with it."""
        await anyio.sleep_until(time_s)
        self.end_life()
        if self.hosts_broker:
            self._run.network.crash(down_s=self.next_start_s - time_s)
        else:
            self._run.network.drop(self.name)
        life.cancel()
        self._run.check_over()

    async def keep_schedule(self) -> None:
        """Change the processor's speed at the times that the cluster file names."""
        for from_s, factor in self.spec.speed_schedule:
            await anyio.sleep_until(from_s)
            self._processor.speed_kflops = speed_kflops(self._kind, factor)

    async def _take_part(self, node: Node) -> None:
        """Play this device's part, and stay until the end or the next failure."""
        async for progress in node.progress():
            self._see(progress)
        self.run_over(node.results[self.name])
        await anyio.sleep_forever()

    def _see(self, progress: Progress) -> None:
        if progress.plan is not None:
            check_hope(progress.plan, self.name, self._config.members_min)
            if progress.plan.has_work:
                self._run.begin(PlanSummary.of(progress.plan))
        self.advance(progress)


def _flops(core_s: float, experiment: Experiment) -> int:
    """The training arithmetic, in FLOP, that takes `core_s` on the processor of `experiment`."""
    return round(core_s * experiment.core_kflops * 1000)


def _unevenness(chance: random.Random) -> Iterator[float]:
    """An autoregressive process of order 1, as factors; their geometric mean is 1."""
    logarithm = chance.gauss(0.0, UNEVENNESS)
    while True:
        yield math.exp(logarithm)
        fresh = chance.gauss(0.0, UNEVENNESS)
        logarithm = UNEVENNESS_KEPT * logarithm + math.sqrt(1 - UNEVENNESS_KEPT**2) * fresh


def _link(spec: DeviceConfig, kind: DeviceKind) -> LinkSpec:
    return LinkSpec(
        uplink_bytes_s=kind.uplink_bytes_s,
        downlink_bytes_s=kind.downlink_bytes_s,
        latency_s=kind.latency_ms / 1000,
        half_duplex=kind.half_duplex,
        loss=spec.loss,
    )
