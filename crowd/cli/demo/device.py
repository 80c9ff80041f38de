"""One emulated device of a demonstration: a slower processor and link, and its status while it trains.

Layout: `EmulatedDevice` (which device), `DeviceStatus` (what is seen; `STATUSES`, as lines), `play` (the device's part
in one run).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import attrs

from crowd import plugins
from crowd.config.node_file import NodeConfig
from crowd.experiment.message_lines import MessageLines
from crowd.experiment.metering import MeteredCompute
from crowd.metric_facts import ACCURACY
from crowd.ports import Device, Signer
from crowd.run_record import RunGoal
from crowd.units import SECOND_US, device_id

if TYPE_CHECKING:
    from crowd.node import Node
    from crowd.planning.plan import Plan
    from crowd.progress import Progress

STATUS_EVERY_S = 0.25


GOAL = RunGoal(metric=ACCURACY.name, better=ACCURACY.better, target=None)
"""What a run is for, until a device has said it."""


@attrs.frozen(kw_only=True)
class EmulatedDevice:
    """The abilities of an emulated device; its link's rates are in its `NodeConfig`."""

    name: str
    speed_kflops: int
    memory_bytes: int


@attrs.frozen(kw_only=True)
class DeviceStatus:
    """A device as it is at one moment of a run."""

    device: str
    elapsed_s: float = 0.0
    """Seconds since the device's first plan with work."""
    busy_s: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    round: int = 0
    """Number of the last round that the device completed."""
    round_s: float = 0.0
    """Seconds at which the device completed its last round."""
    round_bytes: int = 0
    """Bytes over the device's link by its last completed round."""
    value: float | None = None
    """Value of the task's metric by its last completed round."""
    loss: float | None = None
    """Mean training loss in that round."""
    own: int = 0
    """Samples that the device trains of its own."""
    borrowed: int = 0
    """Samples that the device borrows."""
    lent: int = 0
    """Samples that the device lends."""
    idle: dict[str, tuple[int, str]] = attrs.field(factory=dict)
    """Samples that nobody trains by the device's active plan, by device, and why."""
    hardly_trained: dict[str, tuple[int, str]] | None = None
    """Samples that were planned to be trained and hardly were, by device, and why; `None`: not known there."""
    why: str = ""
    """The reason for the device's active plan, in one sentence."""
    goal: RunGoal = GOAL
    finished: bool = False
    reached: bool = False
    samples_trained: int | None = None
    generations: int | None = None
    digest: str | None = None


STATUSES = MessageLines[DeviceStatus](DeviceStatus)
"""The lines in which a device that is a process of its own reports its status."""


async def play(
    config: NodeConfig, part: EmulatedDevice, report: Callable[[DeviceStatus], None], *, signer: Signer | None = None
) -> None:
    """Take part in one run as `part`, and `report` what happens, often. Returns when the run is over for everybody."""
    from crowd.node import Node

    task = await anyio.to_thread.run_sync(plugins.make_task, config.task, config.name, config.data)
    device = plugins.emulators.load("emulated")(part.speed_kflops, part.memory_bytes)
    compute = MeteredCompute(device.compute)
    inner = plugins.broker_from_url(config.broker, cluster=config.cluster, device=device_id(config.name))
    link = plugins.links.load("throttled")(
        inner, uplink_bytes_s=config.uplink_bytes_s, downlink_bytes_s=config.downlink_bytes_s
    )
    node = Node(
        config,
        task=lambda name: task,
        device=Device(compute=compute, sensor=device.sensor),
        broker=link,
        signer=signer,
        store=plugins.stores.load("memory")(),
    )
    watch = _StatusReporter(node, compute, report, RunGoal.of(task))
    async with node, anyio.create_task_group() as tasks:
        tasks.start_soon(watch.tick)
        async for progress in node.progress():
            watch.see(progress)
        tasks.cancel_scope.cancel()
        watch.finish()


class _StatusReporter:
    """The reporter of one node's latest status."""

    def __init__(
        self, node: "Node", compute: MeteredCompute, report: Callable[[DeviceStatus], None], goal: RunGoal
    ) -> None:
        self._node = node
        self._compute = compute
        self._report = report
        self._news = DeviceStatus(device=node.name, goal=goal)
        self._began_s: float | None = None
        self._busy_before_s = 0.0
        self._bytes_before = (0, 0)

    async def tick(self) -> None:
        while True:
            self._tell()
            await anyio.sleep(STATUS_EVERY_S)

    def see(self, progress: "Progress") -> None:
        plan = progress.plan
        if plan is not None and plan.has_work:
            if self._began_s is None:
                self._began_s = anyio.current_time()
                self._busy_before_s = self._compute.busy_s
                self._bytes_before = (self._node.traffic.up_bytes, self._node.traffic.down_bytes)
            own, borrowed, lent = shares(plan, self._news.device)
            self._news = attrs.evolve(
                self._news, why=plan.why, idle=plan.idle_by_device(), own=own, borrowed=borrowed, lent=lent
            )
        self._news = attrs.evolve(
            self._news,
            round=progress.round,
            round_s=progress.elapsed_s,
            round_bytes=progress.bytes_up + progress.bytes_down,
            value=progress.value,
            loss=progress.loss,
            hardly_trained=None if progress.hardly_trained is None else dict(progress.hardly_trained),
        )
        self._tell()

    def finish(self) -> None:
        result = self._node.results[self._node.name]
        self._news = attrs.evolve(
            self._news,
            finished=True,
            reached=result.reached,
            elapsed_s=result.elapsed_us / SECOND_US,
            bytes_up=result.bytes_up,
            bytes_down=result.bytes_down,
            samples_trained=result.samples_trained,
            generations=result.generations,
            digest=self._node.digest,
        )
        self._report(self._news)

    def _tell(self) -> None:
        if self._began_s is not None and not self._news.finished:
            traffic = self._node.traffic
            self._news = attrs.evolve(
                self._news,
                elapsed_s=anyio.current_time() - self._began_s,
                busy_s=self._compute.busy_s - self._busy_before_s,
                bytes_up=traffic.up_bytes - self._bytes_before[0],
                bytes_down=traffic.down_bytes - self._bytes_before[1],
            )
        self._report(self._news)


def shares(plan: "Plan", device: str) -> tuple[int, int, int]:
    """The numbers of samples that `device` trains of its own, borrows and lends under `plan`."""
    own = borrowed = lent = 0
    for assignment in plan.assignments:
        if assignment.lender == assignment.trainer == device:
            own += assignment.samples
        elif assignment.trainer == device:
            borrowed += assignment.samples
        elif assignment.lender == device:
            lent += assignment.samples
    return own, borrowed, lent
