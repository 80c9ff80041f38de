"""One run of a lab.

Layout: `LabCluster` (all devices), `_Machine` (one device over all its lives), `_Gate` (where they wait
for each other).
"""

import signal
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import assert_never

import anyio
import attrs
import structlog

from crowd.children import Child
from crowd.config import DeviceKind
from crowd.metering import Span
from crowd.node import Progress
from crowd.ports import Traffic
from crowd.protocol import codec
from crowd.protocol.messages import ResultMessage
from crowd.provision import write_files
from crowd.trial import Outcome, Report, Trial
from crowd.units import device_id
from devices.account import Account
from devices.course import Course, Member, node_config
from devices.lab_broker import PORT, LabBroker
from devices.lab_process import expect, start_worker, worker_command
from devices.lab_site import Site
from devices.lab_talk import (
    Advanced,
    Computed,
    Ended,
    Go,
    Measure,
    Measured,
    News,
    Ready,
    Working,
    news_from_line,
    order_to_line,
)
from devices.netns import Counters, Shape

BROKER_PLACE = "_broker"
"""No device has such a name."""
ADJUST_S = 2.0
ADJUSTMENTS = 2
"""So many times a device's share of a processor is corrected by what it then trains: with a small share and cold caches
it is slower than in proportion."""
TUNE_S = 3.0
"""After so much training its share is corrected again, as what the node does beside its training takes from it."""
TUNE_STEP_MAX = 1.25
STANDSTILL_HOURS = 2.0

_log = structlog.get_logger(__name__)


class LabCluster(Course):
    """All devices of a trial, and their broker: on the device that has it, else in a place of its own. The broker's
    processor time is unlimited in both."""

    def __init__(self, trial: Trial, report: Report, site: Site, *, one_kflops: int) -> None:
        super().__init__(trial, report)
        self.site = site
        self.counters = ExitStack()
        devices = trial.cluster.devices
        self._broker_place = next((device.name for device in devices if device.broker), BROKER_PLACE)
        addresses = {name: site.net.join(name, _shape(kind)) for name, kind in trial.kinds.items()}
        address = (
            addresses[device_id(self._broker_place)]
            if self._broker_place != BROKER_PLACE
            else site.net.join(BROKER_PLACE, None)
        )
        urls = {device.name: "127.0.0.1" if device.name == self._broker_place else address for device in devices}
        files = write_files(
            site.directory,
            [
                node_config(trial, index, broker=f"mqtt://{urls[device.name]}:{PORT}")
                for index, device in enumerate(devices)
            ],
        )
        self.members = self._machines = [
            _Machine(self, index, file=files[device.name], one_kflops=one_kflops)
            for index, device in enumerate(devices)
        ]
        self.gate = _Gate(len(devices))
        self.on = anyio.Event()
        self.on_s = 0.0
        self.broker: LabBroker

    @classmethod
    async def run(
        cls, trial: Trial, report: Report, one_kflops: int, hierarchies: Mapping[str, Path]
    ) -> Outcome | None:
        """Train to the end; `one_kflops` is what an unlimited processor here trains. `None` if this process was told
        to end, by SIGINT or SIGTERM."""
        with Site(hierarchies) as site:
            cluster = cls(trial, report, site, one_kflops=one_kflops)
            with cluster.counters:
                return await cluster.train()

    async def train(self) -> Outcome | None:
        outcome = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_told, tasks.cancel_scope)
            self.broker = LabBroker(self.site, self._broker_place, tasks)
            await self.broker.start()
            for machine in self._machines:
                tasks.start_soon(machine.live, name=machine.name)
            await self.on.wait()
            for machine in self._machines:
                tasks.start_soon(machine.keep_schedule)
            tasks.start_soon(self.keep_time)
            tasks.start_soon(partial(self.watch_for_standstill, hours=STANDSTILL_HOURS))
            await self.over.wait()
            counted: dict[str, int] = {machine.name: machine.counted_bytes for machine in self._machines}
            outcome = attrs.evolve(self.outcome(), counted_bytes=counted)
            tasks.cancel_scope.cancel()
        return outcome

    def clock(self) -> float:
        """Since the devices were switched on."""
        return anyio.current_time() - self.on_s

    def switch_on(self) -> None:
        """All devices are ready."""
        if not self.on.is_set():
            self.on_s = anyio.current_time()
            self.on.set()


class _Machine(Member):
    """One device. In each of its lives it is a new process."""

    def __init__(self, lab: LabCluster, index: int, *, file: Path, one_kflops: int) -> None:
        super().__init__(lab, index)
        trial = lab.trial
        kind = trial.kinds[self.name]
        self._lab = lab
        self._kind = kind
        self._command = lab.site.net.command(
            self.name,
            *worker_command(file, memory_bytes=kind.memory_bytes, target_accuracy=trial.target_accuracy),
        )
        self._group = lab.site.group(self.name)
        self._cores = kind.speed_kflops / one_kflops
        self._factor = 1.0
        self._counters: Counters | None = None
        self._spans: list[Span] = []
        self._untuned: list[Span] = []
        """Since the processor's share was last set."""
        self._counted: dict[int, int] = {}
        """By life."""
        self.account = Account(
            self.spec, kind, traffic=self._traffic, spans=lambda: tuple(self._spans), clock=lab.clock
        )

    @property
    def counted_bytes(self) -> int:
        """By the node itself, in all its lives."""
        return sum(self._counted.values())

    async def live(self) -> None:
        """Returns when it has failed for good."""
        for life, (begins_s, fails_s) in enumerate(self.account.lives):
            async with start_worker(self._command, name=self.name) as process:
                self._group.add(process.pid)
                news = process.lines()
                self.target_accuracy = (await expect(Ready, process, news)).target_accuracy
                self._group.limit_memory(more_bytes=self._kind.memory_bytes)
                if life == 0:
                    self._counters = self._lab.counters.enter_context(Counters(process.pid))
                    await self._adjust(process, news)
                    self._lab.switch_on()
                await anyio.sleep_until(self._lab.on_s + begins_s)
                if self.hosts_broker and life:
                    await self._lab.broker.start()
                self._set_pace()
                self.begin_life(life)
                if life:
                    _log.info("device_returned", device=self.name)
                await process.tell(order_to_line(Go()))
                await self._follow(process, news, fails_s)

    async def _adjust(self, process: Child, news: AsyncIterator[str]) -> None:
        """Find the share of a processor with which it is as fast as it should be, while all others train too."""
        for _ in range(ADJUSTMENTS):
            self._group.limit_cpu(self._cores)
            await self._lab.gate.wait()
            await process.tell(order_to_line(Measure(duration_s=ADJUST_S)))
            measured = await expect(Measured, process, news)
            self._cores *= self._kind.speed_kflops / measured.speed_kflops
            await self._lab.gate.wait()

    async def _follow(self, process: Child, news: AsyncIterator[str], fails_s: float) -> None:
        """Returns when this life has ended."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._fail, fails_s, process)
            async for line in news:
                self._hear(news_from_line(line))
            tasks.cancel_scope.cancel()
        if self.on:
            await process.expect_success()
            raise RuntimeError(f"the process of {self.name} ended before the run did")

    async def _fail(self, time_s: float, process: Child) -> None:
        """The power fails: all that is left is the will, unless the broker fails with it."""
        await anyio.sleep_until(self._lab.on_s + time_s)
        self.end_life()
        process.kill()
        if self.hosts_broker:
            self._lab.broker.kill()
        _log.info("device_failed", device=self.name)
        self._group.free_cpu()  # the next process may start as fast as it can
        self._lab.check_over()

    async def keep_schedule(self) -> None:
        """Change the processor's speed at the times that the cluster file names."""
        for from_s, factor in self.spec.speed_schedule:
            await anyio.sleep_until(self._lab.on_s + from_s)
            self._factor = factor
            if self.on:
                self._set_pace()

    def _hear(self, news: News) -> None:
        match news:
            case Working():
                self._lab.begin()
            case Advanced():
                self._count(news.bytes_up + news.bytes_down)
                self.advance(Progress(plan=None, **attrs.asdict(news)))
            case Computed(spans=spans):
                on_s = self._lab.on_s
                self._spans += [
                    attrs.evolve(span, began_s=span.began_s - on_s, ended_s=span.ended_s - on_s) for span in spans
                ]
                self._tune(spans)
            case Ended(result=encoded):
                result = codec.decode(bytes.fromhex(encoded))
                assert isinstance(result, ResultMessage)
                self._count(result.bytes_up + result.bytes_down)
                self.run_over(result)
            case Ready() | Measured():
                raise RuntimeError(f"{self.name} says {news} during the run")
            case _:
                assert_never(news)

    def _set_pace(self) -> None:
        self._untuned = []
        self._group.limit_cpu(min(1.0, self._cores * self._factor))

    def _tune(self, spans: Iterable[Span]) -> None:
        """Correct the share by what the device trains with it."""
        self._untuned += [span for span in spans if span.flops]
        busy_s = sum(span.ended_s - span.began_s for span in self._untuned)
        if busy_s >= TUNE_S:
            found_kflops = sum(span.flops for span in self._untuned) / busy_s / 1000
            step = self._kind.speed_kflops * self._factor / found_kflops
            self._cores *= min(TUNE_STEP_MAX, max(1 / TUNE_STEP_MAX, step))
            self._set_pace()

    def _count(self, size_bytes: int) -> None:
        if not self.done:
            self._counted[self._life] = size_bytes

    def _traffic(self) -> Traffic:
        return Traffic() if self._counters is None else self._counters.read()


class _Gate:
    """Opens, again and again, when so many have come."""

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


def _shape(kind: DeviceKind) -> Shape:
    return Shape(
        uplink_bytes_s=kind.uplink_bytes_s, downlink_bytes_s=kind.downlink_bytes_s, half_duplex=kind.half_duplex
    )


async def _cancel_when_told(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
