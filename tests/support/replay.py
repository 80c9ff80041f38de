"""A recorded run of real processes again, in simulation: the same lives with the same profiles at the same times."""

import random
from collections.abc import Mapping
from typing import Any
from unittest import mock

import anyio
import attrs

import crowd.crew
from brokers.simulated.network import LinkSpec, Network
from crowd.actors.inbox import PlannerMessage, ProfilerMessage
from crowd.agreement import events
from crowd.agreement.state import Timing
from crowd.config.node_file import NodeConfig
from crowd.planning.profile import Profile
from crowd.ports import Delivery
from crowd.runtime import Actor, ActorRef
from crowd.units import SECOND_US, DeviceId
from devices.emulated import VirtualCompute
from devices.sensors import FixedSensor
from devices.simulation.device import SimulatedDevice
from devices.store import MemoryStore
from tests.support.recording import Lifetime, Recording
from tests.support.virtual import run_virtually

MEASURED = ("speed_kflops", "memory_bytes", "uplink_bytes_s", "downlink_bytes_s", "link_assumed")
"""What a profiler finds out; all else in a profile a simulated device must find again by itself."""
LOOPBACK = LinkSpec(uplink_bytes_s=125_000_000, downlink_bytes_s=125_000_000, latency_s=0.000_5)
AFTERWARDS_S = 2.0
"""A simulated run goes on for so long after the real one's last ack."""
DEBOUNCE_S = Timing().debounce_us / SECOND_US


def replay(recorded: Recording, configs: Mapping[str, NodeConfig]) -> Recording:
    """What the devices say when production nodes live these lives under virtual time, which is 0 s when the first one
    begins. They take their time for training but train nothing: no plan depends on what was learnt."""
    return run_virtually(_Replay(recorded, configs).run)


class _Replay:
    def __init__(self, recorded: Recording, configs: Mapping[str, NodeConfig]) -> None:
        self._recorded = recorded
        self._configs = configs
        self._heard = Recording()
        self._origin_s = min(lifetime.began_s for lifetime in recorded.lifetimes.values())
        self._computes: dict[bytes, VirtualCompute] = {}
        cluster = {config.cluster for config in configs.values()}.pop()
        network = _HeardNetwork(self._heard)
        self._network = network
        self._brokers = {name: network.broker(DeviceId(name), LOOPBACK, cluster=cluster) for name in configs}
        self._stores = {name: MemoryStore() for name in configs}
        """Kept from life to life, as the real devices' state directories are."""

    async def run(self) -> Recording:
        with mock.patch.object(crowd.crew, "Profiler", self._make_profiler):
            async with anyio.create_task_group() as tasks:
                for lifetime in self._recorded.lifetimes.values():
                    tasks.start_soon(self._live, lifetime, name=lifetime.device)
                await anyio.sleep_until(self._time_s(self._recorded.end_s) + AFTERWARDS_S)
                self._network.heard = Recording()  # how they say goodbye was not recorded
                tasks.cancel_scope.cancel()
        return self._heard

    async def _live(self, lifetime: Lifetime) -> None:
        await anyio.sleep_until(self._time_s(lifetime.began_s))
        with anyio.CancelScope() as life:
            async with anyio.create_task_group() as tasks:
                if lifetime.killed_s is not None:
                    tasks.start_soon(self._kill, lifetime.device, self._time_s(lifetime.killed_s), life)
                await self._device(lifetime).live()

    async def _kill(self, device: DeviceId, at_s: float, life: anyio.CancelScope) -> None:
        await anyio.sleep_until(at_s)
        self._heard.killed(device, at_s=at_s)
        self._network.drop(device)
        life.cancel()

    def _device(self, lifetime: Lifetime) -> SimulatedDevice:
        _, first = lifetime.profiles[0]
        compute = self._computes[lifetime.boot] = VirtualCompute(first.speed_kflops, executes=False)
        return SimulatedDevice(
            self._configs[lifetime.device],
            broker=self._brokers[lifetime.device],
            compute=compute,
            sensor=FixedSensor(memory_free_bytes=first.memory_bytes),
            store=self._stores[lifetime.device],
            chance=lambda _: _RecordedChance(lifetime.boot),
        )

    def _make_profiler(self, *, profile: Profile, planner: ActorRef[PlannerMessage], **_: Any) -> "_PlayedProfiler":
        boot = profile.life.boot
        # who gave the last ack knew what was published before; what came in the debounce time had no effect yet
        played = [
            (self._time_s(at_s), recorded)
            for at_s, recorded in self._recorded.lifetimes[boot].profiles
            if at_s <= self._recorded.end_s - DEBOUNCE_S
        ]
        return _PlayedProfiler(profile=profile, played=played, planner=planner, compute=self._computes[boot])

    def _time_s(self, recorded_s: float) -> float:
        return recorded_s - self._origin_s


class _HeardNetwork(Network):
    def __init__(self, heard: Recording) -> None:
        super().__init__(seed=0)
        self.heard = heard

    def saw(self, device: DeviceId, delivery: Delivery) -> None:
        self.heard.saw(delivery, at_s=anyio.current_time())


class _RecordedChance(random.Random):
    """Draws the recorded boot ID."""

    def __init__(self, boot: bytes) -> None:
        super().__init__(boot)
        self._boot = boot

    def randbytes(self, n: int) -> bytes:
        assert n == len(self._boot), "only boot IDs are drawn as bytes"
        return self._boot


class _PlayedProfiler(Actor[ProfilerMessage]):
    """In the place of the profiler: finds what was found in the real run, when it was found there."""

    def __init__(
        self,
        *,
        profile: Profile,
        played: list[tuple[float, Profile]],
        planner: ActorRef[PlannerMessage],
        compute: VirtualCompute,
    ) -> None:
        self._profile = profile
        self._played = played
        self._planner = planner
        self._compute = compute

    async def started(self) -> None:
        self.spawn(self._play)

    async def _play(self) -> None:
        for at_s, recorded in self._played:
            await anyio.sleep_until(at_s)
            self._compute.speed_kflops = recorded.speed_kflops
            measured = {name: getattr(recorded, name) for name in MEASURED}
            await self._planner.tell(events.OwnProfile(profile=attrs.evolve(self._profile, **measured)))

    async def receive(self, message: ProfilerMessage) -> None:
        """What it would measure from is not needed."""
