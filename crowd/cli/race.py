"""A policy's run on emulated devices as it is watched: the devices of the demonstration, and what is known of a run.

Layout: `DemoDevice` and the table of them, `Contest` (what is trained and where), `Race` (one policy's run).
"""

from pathlib import Path
from typing import Any

import attrs

from crowd.cli.emulate import News, Part
from crowd.config import DataConfig, NodeConfig, PartitionKind
from crowd.errors import BadConfig
from crowd.runs import Figures, Point, cluster_curve, run_record
from crowd.units import MEBIBYTE

TASK = "digits"
ALPHA = 0.3
MEMORY_BYTES = 512 * MEBIBYTE


@attrs.frozen(kw_only=True)
class DemoDevice:
    name: str
    speed_kflops: int
    mbps: float
    """Of its link, in each direction."""

    @property
    def part(self) -> Part:
        return Part(name=self.name, speed_kflops=self.speed_kflops, memory_bytes=MEMORY_BYTES)


DEVICES = tuple(
    DemoDevice(name=name, speed_kflops=speed_kflops, mbps=mbps)
    for name, speed_kflops, mbps in (
        ("mini-pc", 500_000, 50.0),
        ("pi-zero", 20_000, 20.0),
        ("laptop", 450_000, 50.0),
        ("phone", 400_000, 30.0),
        ("pi-5", 300_000, 40.0),
        ("tablet", 200_000, 30.0),
        ("pi-4", 80_000, 40.0),
        ("pi-3", 40_000, 25.0),
    )
)
"""The first two are 25-fold apart; of N devices, the first N take part. Speeds keep the proportions of real devices, at
about a hundredth of their size, so that one machine can play them all in real time."""


@attrs.frozen(kw_only=True)
class Contest:
    """What every policy is given alike."""

    devices: tuple[DemoDevice, ...]
    cluster: str
    seed: int = 0

    @classmethod
    def of(cls, count: int, *, cluster: str) -> "Contest":
        """The first `count` of `DEVICES`, the fastest first. Raises `BadConfig`."""
        if not 2 <= count <= len(DEVICES):
            raise BadConfig(f"--devices: expected 2 to {len(DEVICES)}, found {count}")
        return cls(devices=tuple(sorted(DEVICES[:count], key=lambda device: -device.speed_kflops)), cluster=cluster)

    def for_policy(self, policy: str) -> "Contest":
        """The same, in a cluster of its own, so that no run hears of another."""
        return attrs.evolve(self, cluster=f"{self.cluster}-{policy.replace('_', '-')}")

    def config(self, device: DemoDevice, *, policy: str, broker: str) -> NodeConfig:
        """What that device is told."""
        return NodeConfig(
            name=device.name,
            cluster=self.cluster,
            broker=broker,
            state_dir=Path("state"),
            task=TASK,
            policy=policy,
            seed=self.seed,
            members_min=len(self.devices),
            uplink_mbps=device.mbps,
            downlink_mbps=device.mbps,
            data=DataConfig(
                partition=PartitionKind.DIRICHLET,
                alpha=ALPHA,
                part=self.devices.index(device),
                parts=len(self.devices),
            ),
        )


class Race:
    """One policy's run, from the devices' news."""

    def __init__(self, contest: Contest, policy: str) -> None:
        self.contest = contest
        self.policy = policy
        self.latest = {device.name: News(device=device.name) for device in contest.devices}
        self._points: dict[str, dict[int, Point]] = {device.name: {} for device in contest.devices}

    def see(self, news: News) -> bool:
        """Take the news; whether a round was completed that nobody had completed before."""
        before = self.rounds
        self.latest[news.device] = news
        if news.round and news.accuracy is not None:
            point = Point(
                round=news.round,
                elapsed_s=news.round_s,
                accuracy=news.accuracy,
                traffic_bytes=news.round_bytes,
            )
            self._points[news.device].setdefault(news.round, point)
        return self.rounds > before

    @property
    def elapsed_s(self) -> float:
        """Since the first plan with work."""
        return max(news.elapsed_s for news in self.latest.values())

    @property
    def traffic_bytes(self) -> int:
        """On every device's link, up and down."""
        return sum(news.bytes_up + news.bytes_down for news in self.latest.values())

    @property
    def rounds(self) -> int:
        return max((number for points in self._points.values() for number in points), default=0)

    @property
    def accuracy(self) -> float | None:
        return next((point.accuracy for point in reversed(cluster_curve(self.figures()))), None)

    @property
    def target_accuracy(self) -> float:
        return max(news.target_accuracy for news in self.latest.values())

    @property
    def why(self) -> str:
        return next((news.why for news in self.latest.values() if news.why), "")

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

    def figures(self) -> dict[str, Figures]:
        return {
            name: Figures(
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
        """The run as the JSON of design section 8."""
        return run_record(
            self.figures(),
            policy=self.policy,
            cluster="demo",
            task=TASK,
            seed=self.contest.seed,
            target_accuracy=self.target_accuracy,
            reached=self.reached,
        )
