"""Whole nodes in one process: `Cluster` (devices on one broker in memory), what a device is made of (`emulated`), the
work that they do (`blobs`), and what crosses the broker (`WatchedHub`, `read`)."""

import random
import zlib
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import attrs
import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch.utils.data import TensorDataset

from brokers.memory import InProcessBroker, MemoryBroker
from crowd.actors.probe import Probe
from crowd.config.node_file import NodeConfig
from crowd.learning.task import Task
from crowd.node import Node, TaskFunction
from crowd.ports import Compute, Delivery, Device, Sensor, Store
from crowd.progress import Progress
from crowd.protocol import strict
from crowd.protocol.codec import decode
from crowd.protocol.identity import Ed25519Signer
from crowd.protocol.messages import Message
from crowd.units import Channel, DeviceId, device_id
from devices.emulated import VirtualCompute
from devices.sensors import FixedSensor
from devices.store import MemoryStore

CLUSTER = "home"
FEATURES = 8
SPEED_KFLOPS = 400
"""About 200 samples of `blobs` in a second, so that a round takes long enough for things to happen in it."""
LIMIT_S = 3600.0
"""Virtual: whatever takes longer will never end."""

torch.set_num_threads(1)  # networks this small only lose by more


# --- a device ---------------------------------------------------------------------------------------------------------


def emulated(speed_kflops: int = SPEED_KFLOPS, *, executes: bool = True) -> Device:
    return Device(
        compute=VirtualCompute(speed_kflops, executes=executes), sensor=FixedSensor(memory_free_bytes=1 << 30)
    )


def signers(*names: str) -> dict[DeviceId, Ed25519Signer]:
    """Of devices that know each other; a device of the same name has the same key each time."""
    keys = {
        device_id(name): Ed25519PrivateKey.from_private_bytes(zlib.crc32(name.encode()).to_bytes(32, "big"))
        for name in names
    }
    members = {device: key.public_key() for device, key in keys.items()}
    return {device: Ed25519Signer(key, members) for device, key in keys.items()}


# --- the work ---------------------------------------------------------------------------------------------------------


def blobs(samples: int = 200, **changes: Any) -> TaskFunction:
    """Two overlapping Gaussian blobs, of which each device draws its own `samples`: the best that is possible is about
    92 % right, and the target of 87 % takes some rounds. `changes` are of the `Task`."""

    def task(device: str) -> Task:
        seed = zlib.crc32(device.encode())
        values: dict[str, Any] = {
            "name": "blobs",
            "model": lambda: network(seed),
            "data": draw(samples, seed),
            "evaluation": draw(400, 0),
            "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.01),
            "batch_size": 16,
            "target": 0.87,
            "epochs_max": 200,
        }
        return Task(**(values | changes))

    return task


def draw(samples: int, seed: int) -> TensorDataset:
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(samples) % 2)
    inputs = random.standard_normal((samples, FEATURES)) + (labels[:, None] - 0.5)
    return TensorDataset(torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(labels))


def network(seed: int, *layers: torch.nn.Module) -> torch.nn.Module:
    """From (batch, 8) to (batch, 2), with a `seed` of its own for each device: they begin apart."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(FEATURES, 32), *layers, torch.nn.ReLU(), torch.nn.Linear(32, 2))


# --- the devices together ---------------------------------------------------------------------------------------------


class WatchedHub(InProcessBroker):
    """Remembers everything that anybody published, and who did."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[tuple[DeviceId, Delivery]] = []

    async def carry(self, message: Any, *, publisher: Any, retain: bool) -> None:
        self.published.append((publisher.device, message.delivery))
        await super().carry(message, publisher=publisher, retain=retain)

    def messages(self, publisher: str) -> list[Message]:
        """All messages of one device, opened."""
        return [read(delivery) for device, delivery in self.published if device == publisher and is_sealed(delivery)]


def is_sealed(delivery: Delivery) -> bool:
    plain = (Channel.STATUS, Channel.INFO, Channel.BLOB)
    return delivery.address.channel not in plain and bool(delivery.payload)


def read(delivery: Delivery) -> Message:
    """What is in an envelope, whoever it is for."""
    return decode(strict.load_plain(delivery.payload)[7])


class Cluster:
    """Devices that trust each other, on one hub. Those who are named last need not have a node: their signers are for
    tests that speak for themselves."""

    def __init__(self, *names: str) -> None:
        self.hub = WatchedHub()
        self.signers = signers(*names)
        self.nodes: dict[str, Node] = {}
        self.scopes: dict[str, anyio.CancelScope] = {}

    def add(
        self,
        name: str,
        task: TaskFunction,
        *,
        speed_kflops: int = SPEED_KFLOPS,
        executes: bool = True,
        members_min: int = 2,
        chance: random.Random | None = None,
        probe: Probe | None = None,
        store: Store | None = None,
        compute: Compute | None = None,
        sensor: Sensor | None = None,
        start: Path | None = None,
        **train: Any,
    ) -> Node:
        """A device that is switched off; `train` are keys of its `node.toml`. It has that `compute`, or else one of
        that speed, and that `sensor`."""
        config = NodeConfig(name=name, cluster=CLUSTER, broker="memory://test", members_min=members_min, **train)
        device = emulated(speed_kflops, executes=executes)
        self.nodes[name] = Node(
            config,
            task=task,
            start=start,
            device=attrs.evolve(device, compute=compute or device.compute, sensor=sensor or device.sensor),
            broker=MemoryBroker(self.hub, device_id(name), cluster=CLUSTER),
            signer=self.signers[device_id(name)],
            store=store or MemoryStore(),
            chance=chance,
            probe=probe,
        )
        return self.nodes[name]

    async def play(self, name: str) -> None:
        """Switch a device on; returns when the run is over, or it was unplugged."""
        with anyio.CancelScope() as self.scopes[name]:
            async with self.nodes[name] as node:
                await node.wait()

    def unplug(self, name: str) -> None:
        """It goes without a word; what is left of it is its will."""
        self.hub.drop(device_id(name))
        self.scopes[name].cancel()

    async def train(self, *names: str) -> None:
        """Play with these devices (without names: all) until the run is over."""
        with anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as tasks:
                for name in names or self.nodes:
                    tasks.start_soon(self.play, name)

    def raw(self, name: str) -> MemoryBroker:
        """The way to the hub of somebody who is no node."""
        return MemoryBroker(self.hub, device_id(name), cluster=CLUSTER)

    @property
    def digests(self) -> dict[str, str | None]:
        return {name: node.digest for name, node in self.nodes.items()}


async def round_of(node: Node, number: int) -> Progress:
    """Waits until the node has completed that round."""
    async with aclosing(node.progress()) as news:
        async for progress in news:
            if progress.round >= number:
                return progress
    raise AssertionError(f"the run ended before round {number}")
