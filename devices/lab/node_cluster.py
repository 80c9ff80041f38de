"""A lab whose devices run nodes, on a real Mosquitto.

Layout: `LabCluster` (all devices), `_Machine` (one device over all its lives).
"""

from collections.abc import AsyncIterator
from typing import assert_never

import anyio
import attrs
import structlog
from anyio.abc import TaskGroup

from crowd.experiment.experiment import ExperimentResult
from crowd.experiment.subprocesses import Subprocess
from crowd.progress import Progress
from crowd.protocol import codec
from crowd.protocol.messages import ResultMessage
from devices.lab.cluster_run import PORT, LabDevice, LabRun
from devices.lab.messages import (
    ORDERS,
    REPORTS,
    Advanced,
    Computed,
    Ended,
    EnvelopesMeasured,
    Go,
    Measured,
    Ready,
    Told,
    WorkerReport,
    Working,
)
from devices.lab.mosquitto import LabBroker
from devices.lab.worker_process import start_worker

_log = structlog.get_logger(__name__)


class LabCluster(LabRun):
    """All devices of an experiment as nodes."""

    members: "list[_Machine]"
    broker: LabBroker

    def member(self, index: int, *, one_kflops: int) -> "_Machine":
        return _Machine(self, index, one_kflops=one_kflops)

    async def start_server(self, tasks: TaskGroup) -> None:
        self.broker = LabBroker(self.site, self.server_place, tasks, port=PORT)
        await self.broker.start()

    def outcome(self) -> ExperimentResult:
        counted: dict[str, int] = {machine.name: machine.counted_bytes for machine in self.members}
        told: dict[str, tuple[int, ...]] = {machine.name: tuple(machine.told_kflops) for machine in self.members}
        return attrs.evolve(super().outcome(), counted_bytes=counted, told_kflops=told)


class _Machine(LabDevice):
    """One device. In each of its lives it is a new process."""

    _lab: LabCluster

    def __init__(self, lab: LabCluster, index: int, *, one_kflops: int) -> None:
        super().__init__(lab, index, one_kflops=one_kflops)
        self.told_kflops: list[int] = []
        self._counted: dict[int, int] = {}
        """Bytes that the node counted, by life."""

    @property
    def counted_bytes(self) -> int:
        """Bytes that the node itself counted, in all its lives."""
        return sum(self._counted.values())

    async def live(self) -> None:
        for life, (begins_s, fails_s) in enumerate(self.recorder.lives):
            async with start_worker(self.worker_command, name=self.name) as process:
                news = process.lines()
                await self.expect_ready(process, news)
                self.limit_memory()
                if life == 0:
                    await self.adjust(process, news)
                    self._lab.switch_on()
                await anyio.sleep_until(self._lab.on_s + begins_s)
                if self.hosts_broker and life:
                    await self._lab.broker.start()
                self.set_pace()
                self.begin_life(life)
                if life:
                    _log.info("device_returned", device=self.name)
                await process.tell(ORDERS.to_line(Go()))
                await self._follow(process, news, fails_s)

    async def _follow(self, process: Subprocess, news: AsyncIterator[str], fails_s: float) -> None:
        """Follow one life of the device until it has ended."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._fail, fails_s, process)
            async for line in news:
                self._hear(REPORTS.from_line(line))
            tasks.cancel_scope.cancel()
        if self.on:
            await process.expect_success()
            raise RuntimeError(f"the process of {self.name} ended before the run did")

    async def _fail(self, time_s: float, process: Subprocess) -> None:
        """Fail as without power: all that is left is the will, unless the broker fails with it."""
        await anyio.sleep_until(self._lab.on_s + time_s)
        self.end_life()
        process.kill()
        if self.hosts_broker:
            self._lab.broker.kill()
        _log.info("device_failed", device=self.name)
        self.group.free_cpu()  # the next process may start as fast as it can
        self._lab.check_over()

    def _hear(self, news: WorkerReport) -> None:
        match news:
            case Told(speed_kflops=speed_kflops):
                self.told_kflops.append(speed_kflops)
            case Working(plan=planned):
                self._lab.begin(planned)
            case Advanced():
                self._count(news.bytes_up + news.bytes_down)
                self.advance(Progress(plan=None, **attrs.asdict(news)))
            case Computed(spans=spans):
                self.has_computed(spans)
            case Ended(result=encoded):
                result = codec.decode(bytes.fromhex(encoded))
                assert isinstance(result, ResultMessage)
                self._count(result.bytes_up + result.bytes_down)
                self.run_over(result)
            case Ready() | Measured() | EnvelopesMeasured():
                raise RuntimeError(f"{self.name} says {news} during the run")
            case _:
                assert_never(news)

    def _count(self, size_bytes: int) -> None:
        if not self.done:
            self._counted[self._life] = size_bytes
