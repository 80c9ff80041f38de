"""The task and the devices of the demonstration: `DemoDevice`, the table of them, and `DemoSetup`."""

from pathlib import Path

import attrs

from crowd.cli.demo.device import EmulatedDevice
from crowd.config.data import DataConfig, PartitionKind
from crowd.config.node_file import NodeConfig
from crowd.errors import BadConfig
from crowd.units import MEBIBYTE

TASK = "digits"
ALPHA = 0.3
MEMORY_BYTES = 512 * MEBIBYTE


@attrs.frozen(kw_only=True)
class DemoDevice:
    """One device of the demonstration."""

    name: str
    speed_kflops: int
    mbps: float
    """Rate of the device's link in each direction, in Mbit/s."""

    @property
    def part(self) -> EmulatedDevice:
        return EmulatedDevice(name=self.name, speed_kflops=self.speed_kflops, memory_bytes=MEMORY_BYTES)


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
"""The devices to choose from: of N devices, the first N take part, and the first two are 25-fold apart. Speeds keep the
proportions of real devices, at about a hundredth of their size, so that one machine can play them all in real time."""


@attrs.frozen(kw_only=True)
class DemoSetup:
    """The setup that is the same for every policy."""

    devices: tuple[DemoDevice, ...]
    cluster: str
    seed: int = 0

    @classmethod
    def of(cls, count: int, *, cluster: str) -> "DemoSetup":
        """The setup of the first `count` of `DEVICES`, the fastest first. Raises `BadConfig` if there are not so
        many."""
        if not 2 <= count <= len(DEVICES):
            raise BadConfig(f"--devices: expected 2 to {len(DEVICES)}, found {count}")
        return cls(devices=tuple(sorted(DEVICES[:count], key=lambda device: -device.speed_kflops)), cluster=cluster)

    def for_policy(self, policy: str) -> "DemoSetup":
        """The setup for one policy: a cluster of its own, so that no run hears of another."""
        return attrs.evolve(self, cluster=f"{self.cluster}-{policy.replace('_', '-')}")

    def config(self, device: DemoDevice, *, policy: str, broker: str) -> NodeConfig:
        """The configuration of `device`."""
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
