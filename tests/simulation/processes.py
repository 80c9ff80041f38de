"""One simulated device: a production node that is switched on and off, frozen and slowed down."""

import asyncio
import random
import traceback
from collections.abc import Mapping

import anyio

from brokers.simulated.network import Network
from crowd.actors.lives import LIFE_FILE
from crowd.actors.trainer.checkpoints import FILES
from crowd.config.node_file import NodeConfig
from crowd.errors import Retryable, RunRefused
from crowd.learning.task import Task
from crowd.node import Node
from crowd.ports import Signer
from crowd.units import device_id
from devices.sensors import FixedSensor
from devices.simulation.device import SimulatedDevice
from devices.simulation.virtual_time import PROCESS, VirtualTimeLoop
from tests.simulation import work
from tests.simulation.observer import Observer, Watch
from tests.simulation.scenario import DevicePart, Scenario
from tests.support.disk import Disk
from tests.support.hanging import HangingCompute

CLUSTER = "home"
RESTART_S = 2.0
"""Until a process that ended because the broker was away is started again."""


class Process:
    """The device of that number of a scenario."""

    def __init__(
        self, index: int, part: DevicePart, scenario: Scenario, observer: Observer, network: Network, signer: Signer
    ) -> None:
        self.index = index
        self.part = part
        self.name = device_id(part.name)
        self.watch = Watch(observer, self.name)
        self.on_s = 0.0
        """For how long it was switched on, without the present time."""
        self._scenario = scenario
        self._observer = observer
        self._network = network
        self._compute = HangingCompute(part.speed_kflops)
        self._disk = Disk()
        self._device = SimulatedDevice(
            _config(part, scenario),
            task=self._make_task,
            broker=network.broker(self.name, part.link, cluster=CLUSTER),
            compute=self._compute,
            sensor=FixedSensor(memory_free_bytes=part.memory_bytes),
            signer=signer,
            store=self._disk,
            chance=lambda life: random.Random(f"{scenario.seed}/{part.name}/{life}"),
            probe=self.watch,
        )
        self._node: Node | None = None
        """While it has started and not ended."""
        self._wanted = False
        self._scope: anyio.CancelScope | None = None
        self._ended = anyio.Event()
        self._frozen = False
        self._data = range(scenario.samples)
        """Those of its samples that it has."""

    @property
    def running(self) -> bool:
        """Whether its node has started and not ended."""
        return self._node is not None

    @property
    def is_wanted(self) -> bool:
        """Whether it is switched on."""
        return self._wanted

    @property
    def kept(self) -> Mapping[str, int]:
        """What its node keeps, by a name for each; nothing when it is not running."""
        return {} if self._node is None else self._node.kept

    # --- on and off ---------------------------------------------------------------------------------------------------

    def switch_on(self, tasks: anyio.abc.TaskGroup) -> None:
        if not self._wanted:
            self._wanted = True
            tasks.start_soon(self._live, name=self.name)

    def cut_off(self, *, will_after_s: float) -> None:
        """Without a word."""
        if self._wanted:
            self._wanted = False
            self._network.drop(self.name, will_after_s=will_after_s)
            self._disk.has_power = False
            self.thaw()
            if self._scope is not None:
                self._scope.cancel()

    async def switch_off(self) -> None:
        """It may say goodbye."""
        self._wanted = False
        self.thaw()
        if self._scope is not None:
            self._scope.cancel()
            await self._ended.wait()

    @property
    def lives(self) -> int:
        """How often its node was started."""
        return self._device.lives

    def lose_disk(self) -> None:
        self._disk = self._device.store = Disk()
        self._observer.savings.lost(self.name)

    def damage_disk(self) -> None:
        """Let nobody read any more what was saved last of the run."""
        if self._disk.damage(FILES):
            self._observer.savings.damaged(self.name)

    def age_disk(self, other: "Process") -> None:
        """Put back what its disk held half its lives ago, or where that is nothing what the other's holds."""
        known = int(self._device.store.read(LIFE_FILE) or b"0")
        former = str(known // 2).encode() if known > 1 else other._device.store.read(LIFE_FILE) or b"0"
        self._disk.put(LIFE_FILE, former)

    async def _live(self) -> None:
        if self._device.lives:
            await self._ended.wait()
        PROCESS.set(self.name)  # whoever starts the node again is part of the device, and freezes with it
        self._ended = anyio.Event()
        began_s = anyio.current_time()
        try:
            while self._wanted:
                with anyio.CancelScope() as self._scope:
                    await self._run_node()
                self._node = None
                if self._wanted:
                    with anyio.CancelScope() as self._scope:
                        await anyio.sleep(RESTART_S)
        finally:
            self._node = self._scope = None
            self.on_s += anyio.current_time() - began_s
            self._ended.set()

    async def _run_node(self) -> None:
        self._disk.has_power = True
        self._observer.process_began(self.name)
        self._compute = self._device.compute = HangingCompute(self.part.speed_kflops)  # rested, and as fast as at first
        try:
            await self._device.live(self._stay)
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            self._observer.findings.add(f"{self.name} ended with {error!r}\n{trace}")
            self._wanted = False

    async def _stay(self, node: Node) -> None:
        self._node = node
        await anyio.sleep_forever()

    def _make_task(self, name: str) -> Task:
        self._observer.lessons.read(self.name, self._data)
        return work.make_task(
            self.index,
            samples=self._scenario.samples,
            data=self._data,
            normalises=self._scenario.normalises,
            epochs_max=self._scenario.epochs_max,
            target=self._scenario.target,
            patience=self._scenario.patience,
            listen=lambda numbers: self._observer.lessons.trained(self.name, [int(n) for n in numbers.tolist() if n]),
        )

    async def ask_for_run(self, *, fresh: bool) -> bool:
        """Ask for the next run here; whether it begins."""
        node = self._node
        if node is None or self._frozen:
            return False
        self._observer.savings.asked(node.run + 1)
        try:
            await node.train(fresh=fresh)
        except (RunRefused, Retryable):  # one is on, or the process has ended meanwhile
            return False
        return True

    def grow(self, chance: random.Random) -> None:
        """Its data change; nobody has told the node yet."""
        gone = chance.randint(0, 4) if chance.random() < 0.4 else 0
        start = min(self._data.start + gone, self._data.stop - 1)
        self._data = range(start, min(self._data.stop + chance.randint(0, 8), work.SAMPLES_MAX))

    async def read_again(self) -> bool:
        """Tell the node that its data may have changed; whether it has others now."""
        return self._node is not None and await self._node.data_changed()

    # --- slower than it should be -------------------------------------------------------------------------------------

    def freeze(self) -> None:
        if self._wanted and not self._frozen:
            self._frozen = True
            _loop().freeze(self.name)

    def thaw(self) -> None:
        if self._frozen:
            self._frozen = False
            _loop().thaw(self.name)

    def hang(self) -> None:
        """Let no local step end any more."""
        self._compute.hang()

    def go_on(self) -> None:
        self._compute.go_on()

    def run_at(self, factor: float) -> None:
        """Of its speed."""
        self._compute.speed_kflops = max(1, round(self.part.speed_kflops * factor))


def _config(part: DevicePart, scenario: Scenario) -> NodeConfig:
    return NodeConfig(
        name=part.name,
        cluster=CLUSTER,
        broker="memory://simulation",
        share=part.share,
        policy=scenario.policy,
        members_min=scenario.members_min,
        checkpoint_s=scenario.checkpoint_s,
        uplink_mbps=part.link.uplink_bytes_s / 125_000,
        downlink_mbps=part.link.downlink_bytes_s / 125_000,
    )


def _loop() -> VirtualTimeLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualTimeLoop)
    return running
