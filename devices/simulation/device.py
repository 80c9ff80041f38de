"""Production nodes under virtual time, for simulators and for tests of one's own policy, broker or device:
`SimulatedDevice`, one of them, and `SimulatedCluster`, several on one network.

    cluster = SimulatedCluster({"ada": 400, "ben": 100}, task, policy="mine", policies={"mine": MyPolicy()})
    run_virtually(cluster.train)
    assert cluster.devices["ada"].node.digest == cluster.devices["ben"].node.digest
"""

import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import anyio

from brokers.simulated.network import LinkSpec, Network
from crowd.config.node_file import NodeConfig
from crowd.errors import BadConfig
from crowd.node import Node, Probe, TaskFunction
from crowd.planning.policy import Policy
from crowd.ports import Broker, Compute, Device, Sensor, Signer, Store
from crowd.protocol.identity import KeyedHashSigner
from crowd.units import DeviceId, device_id
from devices.emulated import VirtualCompute
from devices.sensors import FixedSensor
from devices.simulation.virtual_time import PROCESS
from devices.store import MemoryStore

MEMORY_BYTES = 1 << 30
LINK = LinkSpec(uplink_bytes_s=1_250_000, downlink_bytes_s=1_250_000, latency_s=0.003)
"""10 Mbit/s over a good Wi-Fi."""
LIMIT_S = 24 * 3600.0
"""Virtual: a run that takes longer will never end."""


class SimulatedDevice:
    """One device, over all its lives; in each a new node runs on it, as after a restart of its process.

    1. `live` begins a life: everything that happens in it belongs to the process of the device's name.
    2. It ends when the node's part is played, or by `switch_off`, with a goodbye if it is still connected.
    3. Store and compute stay, unless others are put in their place.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        broker: Broker,
        compute: Compute,
        sensor: Sensor | None = None,
        task: TaskFunction | None = None,
        signer: Signer | None = None,
        store: Store | None = None,
        policies: Mapping[str, Policy] | None = None,
        chance: Callable[[int], random.Random] | None = None,
        probe: Probe | None = None,
    ) -> None:
        """`chance` is what the life of that number, the first is 1, draws from; without it that follows from the
        configuration's seed and name. All else is as for `Node`; without a `sensor` it has a gibibyte of memory."""
        self.config = config
        self.name: DeviceId = device_id(config.name)
        self.broker = broker
        self.compute = compute
        self.sensor = sensor or FixedSensor(memory_free_bytes=MEMORY_BYTES)
        self.store = store or MemoryStore()
        self.lives = 0
        """So many it has begun."""
        self._task = task
        self._signer = signer
        self._policies = policies
        self._chance = chance or (lambda life: random.Random(f"{config.seed}/{config.name}/{life}"))
        self._probe = probe
        self._node: Node | None = None
        self._scope: anyio.CancelScope | None = None

    @property
    def node(self) -> Node:
        """Of its present life, or else of its last; raises `RuntimeError` before the first."""
        if self._node is None:
            raise RuntimeError(f"{self.name} has never been switched on: call live() first")
        return self._node

    async def live(self, part: Callable[[Node], Awaitable[Any]] | None = None) -> None:
        """Live once: the node plays its `part`, like `Node.wait`; without one it stays until `switch_off`. Raises what
        `part` and the node raise."""
        self.lives += 1
        process = PROCESS.set(self.name)
        try:
            with anyio.CancelScope() as self._scope:
                self._node = self._make_node()
                async with AsyncExitStack() as stack:
                    try:
                        node = await stack.enter_async_context(self._node)
                    except BadConfig as error:
                        raise BadConfig(f"device {self.name!r}: {error}") from error
                    await (anyio.sleep_forever() if part is None else part(node))
        finally:
            PROCESS.reset(process)

    def switch_off(self) -> None:
        """End its life, if it has one. Before a power failure its connection has to go (`Network.drop`), or it says
        goodbye."""
        if self._scope is not None:
            self._scope.cancel()

    def _make_node(self) -> Node:
        return Node(
            self.config,
            task=self._task,
            device=Device(compute=self.compute, sensor=self.sensor),
            broker=self.broker,
            signer=self._signer,
            store=self.store,
            policies=self._policies,
            chance=self._chance(self.lives),
            probe=self._probe,
        )


class SimulatedCluster:
    """Devices that trust each other, on one network; all are off at first. The same seed takes the same course."""

    def __init__(
        self,
        speeds_kflops: Mapping[str, int],
        task: TaskFunction,
        *,
        links: Mapping[str, LinkSpec] | None = None,
        policies: Mapping[str, Policy] | None = None,
        probes: Mapping[str, Probe] | None = None,
        seed: int = 0,
        **config: Any,
    ) -> None:
        """The devices' names with their speeds in training; who is not in `links` has `LINK`. `policies` may be named
        besides the installed ones. `config` are keys of all devices' `node.toml`; without `members_min` nobody begins
        before all are there."""
        self.network = Network(seed=seed)
        names = [device_id(name) for name in speeds_kflops]
        secret = hashlib.blake2b(str(seed).encode()).digest()
        self.devices: dict[str, SimulatedDevice] = {}
        for name, speed_kflops in speeds_kflops.items():
            link = (links or {}).get(name, LINK)
            keys: dict[str, Any] = {
                "cluster": "simulation",
                "members_min": len(names),
                "seed": seed,
                "uplink_mbps": link.uplink_bytes_s / 125_000,
                "downlink_mbps": link.downlink_bytes_s / 125_000,
            }
            own = NodeConfig(name=name, broker="memory://simulation", **(keys | config))
            self.devices[name] = SimulatedDevice(
                own,
                task=task,
                broker=self.network.broker(device_id(name), link, cluster=own.cluster),
                compute=VirtualCompute(speed_kflops),
                signer=KeyedHashSigner(device_id(name), names, secret=secret),
                policies=policies,
                probe=(probes or {}).get(name),
            )

    async def train(self, *names: str) -> None:
        """Switch these devices on (without names: all); returns when each has seen the end of the run, or was switched
        off. Raises `TimeoutError` after a virtual day."""
        with anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as tasks:
                for name in names or self.devices:
                    tasks.start_soon(self.devices[name].live, Node.wait, name=name)

    def fail(self, name: str) -> None:
        """The device is gone without a word; what is left of it is its will, and what is in its store. As its actors
        end they save how far the run has come, which a power cut would not let them do."""
        self.network.drop(device_id(name))
        self.devices[name].switch_off()
