"""One device of a lab as a process of its own:

    python -m devices.lab.worker NODE_TOML MEMORY_BYTES SLOWER [TARGET]

Takes orders on standard input and writes reports to standard output, as `devices.lab.messages` has them; it ends when
the one who gives the orders has. Its clock, by which all times are, goes SLOWER times slower than real time."""

import statistics
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import assert_never

import anyio
import anyio.to_thread
import attrs
import structlog
import torch
from structlog.typing import EventDict, WrappedLogger

from crowd import plugins
from crowd.config.node_file import NodeConfig, read_node_config
from crowd.errors import BAD_INPUT, DONE, Rejected, innermost
from crowd.experiment.metering import MeteredCompute
from crowd.experiment.plan_summary import PlanSummary
from crowd.learning.speed_test import measure_speed
from crowd.learning.task import Task
from crowd.learning.work import Work, prepare
from crowd.logs import logs_to_stderr
from crowd.node import Node
from crowd.planning.check import check_hope
from crowd.ports import Device
from crowd.progress import Progress
from crowd.protocol import codec
from crowd.protocol.identity import ephemeral_signers
from crowd.protocol.messages import Done
from crowd.run_record import RunGoal
from crowd.units import Address, Channel, DeviceId, Life, device_id
from devices.lab.messages import (
    ORDERS,
    REPORTS,
    Advanced,
    Computed,
    Ended,
    EnvelopesMeasured,
    Go,
    Measure,
    Measured,
    MeasureEnvelopes,
    Ready,
    Told,
    WorkerOrder,
    WorkerReport,
    Working,
)
from devices.lab.slowed_time import SlowedLoop
from devices.sensors import FixedSensor
from devices.store import MemoryStore
from devices.torch_compute import TorchCompute

COMPUTED_EVERY_S = 2.0
"""Real seconds between two reports of what was computed."""


def main(arguments: list[str]) -> int:
    """Serve the lab's orders; returns the exit code: 0 when the orders have ended, 2 with one line on standard error
    for what cannot work."""
    path, memory_bytes, slower, *asked = arguments
    _listen_to_the_profiler()
    torch.set_num_threads(1)
    try:
        config = read_node_config(Path(path))
        backend = _Backend(memory_bytes=int(memory_bytes), slower=float(slower))
        target = float(asked[0]) if asked else None
        loop_factory = partial(SlowedLoop, backend.slower)
        anyio.run(_serve, config, backend, target, backend_options={"loop_factory": loop_factory})
    except* Rejected as rejected:
        print(" ".join(str(innermost(rejected)).split()), file=sys.stderr)
        return_code = BAD_INPUT
    else:
        return_code = DONE
    return return_code


def _listen_to_the_profiler() -> None:
    """Report which speeds the profiler publishes, which it only logs; warnings go to standard error."""

    def hear(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        match event:
            case {"event": "device_measured", "speed_kflops": speed} | {"event": "speed_changed", "now_kflops": speed}:
                _say(Told(speed_kflops=speed))
        if method == "info":
            raise structlog.DropEvent
        return event

    logs_to_stderr(verbose=True)
    structlog.configure(processors=[hear, *structlog.get_config()["processors"]])


async def _serve(config: NodeConfig, backend: "_Backend", target: float | None) -> None:
    worker = _Worker(config, backend, target)
    async with anyio.create_task_group() as tasks:
        async for order in _orders():
            match order:
                case Measure(duration_s=duration_s):
                    _say(Measured(speed_kflops=await worker.measure(duration_s)))
                case MeasureEnvelopes(duration_s=duration_s):
                    _say(EnvelopesMeasured(envelope_s=_measure_envelopes(duration_s)))
                case Go():
                    tasks.start_soon(worker.take_part)
                case _:
                    assert_never(order)
        tasks.cancel_scope.cancel()


def _measure_envelopes(duration_s: float) -> float:
    """Measure how long a small message takes from one device to another without a carrier, in seconds: encoded, signed,
    verified and decoded. It stands for all that a node does beside its training, which is Python and Ed25519 too."""
    sender, receiver = DeviceId("sender"), DeviceId("receiver")
    signers = ephemeral_signers([sender, receiver])
    sealer = codec.Sealer("lab", sender, Life(incarnation=0, boot=bytes(8)), signers[sender])
    opener = codec.Opener("lab", receiver, signers[receiver])
    address = Address(channel=Channel.TO, source=sender, destination=receiver)
    began_s = anyio.current_time()
    while (elapsed_s := anyio.current_time() - began_s) < duration_s or not sealer.sequence:
        opener.open(address, sealer.seal(address, Done(transfer=str(sealer.sequence))))
    return elapsed_s / sealer.sequence


@attrs.frozen(kw_only=True)
class _Backend:
    """The lab's settings for this process."""

    memory_bytes: int
    """Bytes of memory that are free to the device."""
    slower: float


class _Worker:
    """The device of this process. Reports `Ready` when it is made."""

    def __init__(self, config: NodeConfig, backend: _Backend, target: float | None) -> None:
        self._config = config
        self._slower = backend.slower
        task = plugins.make_task(config.task, config.name, config.data)
        self._task: Task = task if target is None else attrs.evolve(task, target=target)
        self._work: Work = prepare(self._task)
        self._device = Device(compute=TorchCompute(), sensor=FixedSensor(memory_free_bytes=backend.memory_bytes))
        self._compute = MeteredCompute(self._device.compute)
        self._planned: PlanSummary | None = None
        self._told = 0
        """Number of pieces of training that have been reported."""
        _say(Ready(goal=RunGoal.of(self._task)))

    async def measure(self, duration_s: float) -> int:
        """Measure the sustained speed in kFLOP/s, pauses that the processor's limit forces on it included: what its
        node would find, the mean over `duration_s` after a first one that does not count."""
        speeds_kflops: list[int] = []
        await measure_speed(self._task, self._work, self._device.compute)
        until_s = anyio.current_time() + duration_s
        while not speeds_kflops or anyio.current_time() < until_s:
            speeds_kflops.append(await measure_speed(self._task, self._work, self._device.compute))
        return round(statistics.fmean(speeds_kflops))

    async def take_part(self) -> None:
        """Play this device's part to the end of the run, and stay with the others."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_telling_what_was_computed)
            await self._run()

    async def _run(self) -> None:
        node = Node(
            self._config,
            task=lambda name: self._task,
            device=attrs.evolve(self._device, compute=self._compute),
            broker=plugins.broker_from_url(
                self._config.broker,
                cluster=self._config.cluster,
                device=device_id(self._config.name),
                slower=self._slower,
            ),
            store=MemoryStore(),
        )
        async with node:
            async for progress in node.progress():
                self._see(progress)
            self._tell_what_was_computed()
            result = attrs.evolve(node.results[node.name], curve=())
            _say(Ended(result=codec.encode(result).hex()))
            await anyio.sleep_forever()

    def _see(self, progress: Progress) -> None:
        if progress.plan is not None:
            check_hope(progress.plan, device_id(self._config.name), self._config.members_min)
            if progress.plan.has_work:
                self._tell_plan(PlanSummary.of(progress.plan))
        self._tell_what_was_computed()
        fields = {field.name: getattr(progress, field.name) for field in attrs.fields(Advanced)}
        _say(Advanced(**fields))

    def _tell_plan(self, planned: PlanSummary) -> None:
        if planned != self._planned:
            self._planned = planned
            _say(Working(plan=planned))

    async def _keep_telling_what_was_computed(self) -> None:
        while True:
            await anyio.sleep(COMPUTED_EVERY_S / self._slower)
            self._tell_what_was_computed()

    def _tell_what_was_computed(self) -> None:
        if spans := self._compute.spans[self._told :]:
            self._told += len(spans)
            _say(Computed(spans=spans))


async def _orders() -> AsyncIterator[WorkerOrder]:
    """The orders from standard input, until the one who gives them has gone."""
    # the thread that waits for a line is left behind when this ends
    read = partial(anyio.to_thread.run_sync, sys.stdin.readline, abandon_on_cancel=True)
    while line := await read():
        yield ORDERS.from_line(line)


def _say(news: WorkerReport) -> None:
    print(REPORTS.to_line(news), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
