"""One policy's run on the demonstration's devices as it is watched: `DemoRun`."""

from typing import Any

from crowd.cli.demo.device import GOAL, DeviceStatus
from crowd.cli.demo.setup import TASK, DemoSetup
from crowd.run_record import DeviceMetrics, Point, RunGoal, cluster_curve, run_record


class DemoRun:
    """The run of one policy, put together from the devices' statuses."""

    def __init__(self, setup: DemoSetup, policy: str) -> None:
        self.setup = setup
        self.policy = policy
        self.latest = {device.name: DeviceStatus(device=device.name) for device in setup.devices}
        self._points: dict[str, dict[int, Point]] = {device.name: {} for device in setup.devices}

    def see(self, news: DeviceStatus) -> bool:
        """Take a device's status; returns whether a round was completed that nobody had completed before."""
        before = self.rounds
        self.latest[news.device] = news
        if news.round and news.value is not None:
            point = Point(
                round=news.round,
                elapsed_s=news.round_s,
                value=news.value,
                loss=news.loss,
                traffic_bytes=news.round_bytes,
            )
            self._points[news.device].setdefault(news.round, point)
        return self.rounds > before

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first plan with work."""
        return max(news.elapsed_s for news in self.latest.values())

    @property
    def traffic_bytes(self) -> int:
        """Bytes on all devices' links, up and down."""
        return sum(news.bytes_up + news.bytes_down for news in self.latest.values())

    @property
    def rounds(self) -> int:
        return max((number for points in self._points.values() for number in points), default=0)

    @property
    def value(self) -> float | None:
        return next((point.value for point in reversed(cluster_curve(self.metrics()))), None)

    @property
    def goal(self) -> RunGoal:
        return next((news.goal for news in self.latest.values() if news.goal.target is not None), GOAL)

    @property
    def why(self) -> str:
        return next((news.why for news in self.latest.values() if news.why), "")

    @property
    def idle(self) -> dict[str, tuple[int, str]]:
        """Samples that nobody trains, by device, and why, as the first device with a plan has it."""
        return next((news.idle for news in self.latest.values() if news.why), {})

    @property
    def hardly_trained(self) -> dict[str, tuple[int, str]] | None:
        """Samples that were to be trained and hardly were, by device, and why, as the first that knows has it."""
        return next((news.hardly_trained for news in self.latest.values() if news.hardly_trained is not None), None)

    @property
    def started(self) -> bool:
        return any(news.why for news in self.latest.values())

    @property
    def reached(self) -> bool:
        """Whether the run ended on every device, with the target met."""
        return all(news.finished and news.reached for news in self.latest.values())

    @property
    def digests(self) -> set[str | None]:
        return {news.digest for news in self.latest.values()}

    def metrics(self) -> dict[str, DeviceMetrics]:
        return {
            name: DeviceMetrics(
                elapsed_s=news.elapsed_s,
                busy_s=news.busy_s,
                bytes_up=news.bytes_up,
                bytes_down=news.bytes_down,
                samples_trained=news.samples_trained,
                generations=news.generations,
                digest=news.digest,
                curve=tuple(point for _, point in sorted(self._points[name].items())),
            )
            for name, news in self.latest.items()
        }

    def record(self) -> dict[str, Any]:
        """The run as JSON (docs/experiments.md#the-figures-of-a-run)."""
        return run_record(
            self.metrics(),
            policy=self.policy,
            cluster="demo",
            task=TASK,
            seed=self.setup.seed,
            goal=self.goal,
            reached=self.reached,
            idle=self.idle,
            hardly_trained=self.hardly_trained,
        )
