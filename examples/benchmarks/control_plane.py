"""For the benchmarks of the control plane: production nodes under virtual time, and a network in which nothing is lost.

Layout: `SmallTask` (what they would train), `BenchDevice` (one of them) and `BenchCluster` (all, and what they log).
What is trained does not matter here, so no maths is done: training only takes its time.
"""

import hashlib
import logging
import random
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import anyio
import attrs
import structlog
import torch
from torch.utils.data import TensorDataset

import crowd
from brokers.accounting import crossing
from brokers.simulated.network import LinkSpec, Network
from brokers.topics import Topics
from crowd.ports import Delivery, Readings, Sensor
from crowd.protocol.identity import KeyedHashSigner
from crowd.units import MEBIBYTE, Channel, DeviceId, device_id
from devices.emulated import VirtualCompute
from devices.simulation.device import SimulatedDevice
from devices.simulation.virtual_time import PROCESS

NAME = "bench"
FEATURES, HIDDEN, LABELS = 16, 32, 4
LATENCY_S = 0.010
LINKS_MBPS = (10, 20, 50)
SPEEDS_KFLOPS = (400_000, 1_000_000, 3_000_000)


@attrs.frozen(kw_only=True)
class SmallTask:
    """A network of about a thousand parameters; each device holds `samples` of its own."""

    samples: int
    epochs_max: int

    def __call__(self, name: str) -> crowd.Task:
        numbers = torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest()))
        inputs = torch.randn(self.samples, FEATURES, generator=numbers)
        labels = torch.randint(LABELS, (self.samples,), generator=numbers)
        return crowd.Task(
            name="small",
            model=_network,
            data=TensorDataset(inputs, labels),
            evaluation=TensorDataset(torch.zeros(LABELS, FEATURES), torch.arange(LABELS)),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05),
            epochs_max=self.epochs_max,
        )


def _network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(FEATURES, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, LABELS))


class Memory(Sensor):
    """Of a device whose free memory may be set."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes

    def read(self) -> Readings:
        return Readings(memory_free_bytes=self.free_bytes)


@attrs.frozen(kw_only=True)
class Event:
    """Something that a device logged."""

    time_s: float
    device: DeviceId
    name: str
    fields: MutableMapping[str, Any]


@attrs.frozen(kw_only=True)
class Sent:
    """A message that a device published, with its headers as `brokers.accounting` counts them."""

    time_s: float
    device: DeviceId
    channel: Channel
    size_bytes: int


class WatchedNetwork(Network):
    """Notes what every device publishes."""

    def __init__(self, *, seed: int) -> None:
        super().__init__(seed=seed)
        self.sent: list[Sent] = []
        self._topics = Topics(NAME)

    def saw(self, device: DeviceId, delivery: Delivery) -> None:
        channel = delivery.address.channel
        size = crossing(
            topic_bytes=len(self._topics.topic(delivery.address)),
            payload_bytes=len(delivery.payload),
            qos=0 if channel is Channel.BEAT else 1,
            expiry=True,
        )
        self.sent.append(
            Sent(time_s=anyio.current_time(), device=device, channel=channel, size_bytes=size.forward_bytes)
        )


class BenchDevice(SimulatedDevice):
    """One device that trains nothing; each time that it is switched on a new node runs there."""

    def __init__(self, cluster: "BenchCluster", index: int) -> None:
        name = cluster.names[index]
        megabits = LINKS_MBPS[index % len(LINKS_MBPS)]
        link = LinkSpec(uplink_bytes_s=megabits * 125_000, downlink_bytes_s=megabits * 125_000, latency_s=LATENCY_S)
        self.memory = Memory(1024 * MEBIBYTE)
        self._network = cluster.network
        super().__init__(
            crowd.NodeConfig(
                name=name,
                cluster=NAME,
                broker="memory://simulation",
                members_min=cluster.members_min,
                uplink_mbps=megabits,
                downlink_mbps=megabits,
            ),
            task=cluster.task,
            broker=cluster.network.broker(name, link, cluster=NAME),
            compute=VirtualCompute(SPEEDS_KFLOPS[index % len(SPEEDS_KFLOPS)], executes=False),
            sensor=self.memory,
            signer=KeyedHashSigner(name, cluster.names, secret=b"bench"),
            chance=lambda life: random.Random(f"{name}/{life}"),
        )

    def free_memory(self, free_bytes: int) -> None:
        """So much from now on; the device notices when it next looks."""
        self.memory.free_bytes = free_bytes

    def fail(self) -> None:
        """Without a goodbye: the broker notices at once, and publishes the will."""
        self._network.drop(self.name)
        self.switch_off()


class BenchCluster:
    """So many `devices`, all off at first. Below `members_min` of them the plans contain no work."""

    def __init__(self, devices: int, *, members_min: int, task: SmallTask) -> None:
        self.members_min = members_min
        self.task = task
        self.names = [device_id(f"device-{index:03}") for index in range(devices)]
        self.network = WatchedNetwork(seed=devices)
        self.devices = [BenchDevice(self, index) for index in range(devices)]
        self.events: list[Event] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Meanwhile `events` grows with what the devices log."""

        def note(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
            name = str(fields.pop("event"))
            device = DeviceId(PROCESS.get())
            self.events.append(Event(time_s=anyio.current_time(), device=device, name=name, fields=fields))
            raise structlog.DropEvent

        before = structlog.get_config()
        structlog.configure(
            processors=[note],
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
            cache_logger_on_first_use=False,
        )
        try:
            yield
        finally:
            structlog.configure(**before)
