"""A scenario as it takes its course: safety while things go wrong, then liveness on the healed network."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, assert_never

import anyio
import anyio.abc

from brokers.simulated.network import FaultRates, Network
from crowd.agreement.state import State
from crowd.errors import BrokerLost
from crowd.ports import Delivery
from crowd.protocol.identity import KeyedHashSigner
from crowd.units import Channel, DeviceId, device_id
from devices.simulation.device import LINK
from tests.simulation.bounds import Wire, is_promise
from tests.simulation.observer import Observer
from tests.simulation.processes import CLUSTER, Process
from tests.simulation.scenario import Fault, FaultKind, Scenario

AGREED_S_MAX = 1500.0
"""On a healed network; a device that was evicted again and again comes back after up to 600 s."""
ROUNDS_AFTER = 2
"""That the healed cluster must complete."""
STRANGER = device_id("stranger")
RECORDED_MAX = 400
WILL_AFTER_S = 20.0
"""Until the broker misses a device that lost its power."""


class _WatchedNetwork(Network):
    """Lets the wire be read along."""

    def __init__(self, wire: Wire, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.processes: Mapping[DeviceId, Process] = {}
        self.recorded: deque[tuple[Process, int, Delivery]] = deque(maxlen=RECORDED_MAX)
        self._wire = wire

    def saw(self, device: DeviceId, delivery: Delivery) -> None:
        if device == STRANGER:
            return
        self._wire.saw(device, delivery)
        if delivery.address.channel not in (Channel.STATUS, Channel.INFO, Channel.BLOB):
            process = self.processes[device]
            self.recorded.append((process, process.lives, delivery))


class Cluster:
    """All devices of a scenario on one network, and everything that goes wrong with them."""

    def __init__(self, scenario: Scenario, observer: Observer) -> None:
        self._scenario = scenario
        self._observer = observer
        names = [device_id(part.name) for part in scenario.devices]
        self.network = _WatchedNetwork(
            observer.wire,
            seed=scenario.seed,
            queue_messages_max=scenario.queue_messages_max,
            host=None if scenario.host is None else names[scenario.host],
        )
        self.processes = [
            Process(
                index,
                part,
                scenario,
                observer,
                self.network,
                KeyedHashSigner(names[index], names, secret=b"simulation"),
            )
            for index, part in enumerate(scenario.devices)
        ]
        self.network.processes = {process.name: process for process in self.processes}
        self.injected: Counter[str] = Counter()
        """Faults by kind."""
        self._tasks: anyio.abc.TaskGroup

    async def run(self) -> None:
        """Stops at the first finding."""
        async with anyio.create_task_group() as self._tasks:
            for process in self.processes:
                self._tasks.start_soon(self._start, process)
            await self._endure()
            if not self._observer.findings.texts:
                self._heal()
                await self._recover()
            for process in self.processes:
                await process.switch_off()
            self._tasks.cancel_scope.cancel()
        left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if left:
            self._observer.findings.add(f"after the end these tasks are left: {sorted(left)}")

    async def _start(self, process: Process) -> None:
        await anyio.sleep(process.part.starts_at_s)
        process.switch_on(self._tasks)

    # --- faults -------------------------------------------------------------------------------------------------------

    async def _endure(self) -> None:
        async with anyio.create_task_group() as faults:
            for fault in self._scenario.faults:
                faults.start_soon(self._suffer, fault)
            for _ in range(round(self._scenario.faults_until_s)):
                if not self._patrol():
                    break
                await anyio.sleep(1.0)
            faults.cancel_scope.cancel()

    async def _suffer(self, fault: Fault) -> None:
        """One fault, from its beginning to its end, unless everything is healed before."""
        await anyio.sleep_until(fault.at_s)
        process, network = self.processes[fault.device], self.network
        self.injected[fault.kind.value] += 1
        match fault.kind:
            case FaultKind.KILL | FaultKind.OLD_DISK | FaultKind.POWER_LOSS:
                await self._restart(process, fault)
            case FaultKind.BLACKOUT:
                await self._black_out(fault)
            case FaultKind.REQUEST:
                await self._ask_for_run(fault)
            case FaultKind.GROW:
                await self._grow(fault)
            case FaultKind.BATTERY:
                process.cut_off(will_after_s=WILL_AFTER_S)
            case FaultKind.FREEZE:
                process.freeze()
                await anyio.sleep(fault.lasts_s)
                process.thaw()
            case FaultKind.HANG:
                process.hang()
                await anyio.sleep(fault.lasts_s)
                process.go_on()
            case FaultKind.CUT | FaultKind.CUT_UP | FaultKind.CUT_DOWN:
                up, down = fault.kind is not FaultKind.CUT_DOWN, fault.kind is not FaultKind.CUT_UP
                network.cut(process.name, up=up, down=down)
                self._note_cuts()
                await anyio.sleep(fault.lasts_s)
                self._mend(process)
            case FaultKind.BROKER:
                network.crash(down_s=fault.lasts_s)
            case FaultKind.MUTE:
                network.mute(process.name, is_promise)
                await anyio.sleep(fault.lasts_s)
                network.unmute(process.name)
            case FaultKind.SPEED:
                process.run_at(fault.factor)
                await anyio.sleep(fault.lasts_s)
                process.run_at(1.0)
            case FaultKind.REPLAY:
                await self._replay()
            case FaultKind.STALE_WILL:
                network.stale_will(process.name)
            case FaultKind.WEATHER:
                network.fault_rates = fault.fault_rates
                await anyio.sleep(fault.lasts_s)
                network.fault_rates = FaultRates()
            case kind:
                assert_never(kind)

    async def _restart(self, process: Process, fault: Fault) -> None:
        process.cut_off(will_after_s=WILL_AFTER_S if fault.kind is FaultKind.POWER_LOSS else 0.0)
        if fault.kind is FaultKind.POWER_LOSS:
            process.lose_disk()
        elif fault.kind is FaultKind.OLD_DISK:
            process.age_disk(self.processes[fault.device - 1])
        await anyio.sleep(fault.lasts_s)
        process.switch_on(self._tasks)

    async def _black_out(self, fault: Fault) -> None:
        chance = random.Random(fault.factor)
        if chance.random() < 0.5:
            self.network.crash(down_s=fault.lasts_s)
            self.injected["blackouts of the broker too"] += 1
        off = [process for process in self.processes if process.is_wanted]
        for process in off:
            process.cut_off(will_after_s=WILL_AFTER_S)
            if chance.random() < 0.4:
                process.damage_disk()
                self.injected["damaged checkpoints"] += 1
        for process in chance.sample(off, len(off)):
            await anyio.sleep(chance.choice((0.0, 0.1, fault.lasts_s)))
            process.switch_on(self._tasks)

    async def _ask_for_run(self, fault: Fault) -> None:
        chance = random.Random(fault.factor)
        fresh, both = chance.random() < 0.3, chance.random() < 0.3
        async with anyio.create_task_group() as asking:
            for process in {self.processes[fault.device], self.processes[fault.device - both]}:
                asking.start_soon(self._ask_one, process, fresh)

    async def _ask_one(self, process: Process, fresh: bool) -> None:
        if await process.ask_for_run(fresh=fresh):
            self.injected["runs that were begun by request"] += 1
            self.injected["fresh ones of them"] += fresh

    async def _grow(self, fault: Fault) -> None:
        """The data of a device and perhaps of the one before it change, and then somebody asks for a run."""
        chance = random.Random(fault.factor)
        growing = [self.processes[fault.device]]
        if chance.random() < 0.3:
            growing.append(self.processes[fault.device - 1])
        async with anyio.create_task_group() as reading:
            for process in growing:
                process.grow(chance)
                reading.start_soon(self._read_again, process)
            await anyio.sleep(fault.lasts_s)
            await self._ask_one(chance.choice(self.processes), chance.random() < 0.2)

    async def _read_again(self, process: Process) -> None:
        if await process.read_again():
            self.injected["data that have changed"] += 1

    async def _replay(self) -> None:
        """All that was recorded of processes that have ended, as fast as a link of 10 Mbit/s takes it."""
        former = [
            delivery for process, life, delivery in self.network.recorded if life < process.lives or not process.running
        ]
        with suppress(BrokerLost):
            async with self.network.broker(STRANGER, LINK, cluster=CLUSTER).session() as session:
                for delivery in former:
                    self.injected["replayed messages"] += 1
                    retained = delivery.address.channel in (Channel.PROFILE, Channel.ACK, Channel.RESULT)
                    await session.publish(delivery.address, delivery.payload, retain=retained)

    def _mend(self, process: Process) -> None:
        self.network.mend(process.name)
        self._note_cuts()

    def _note_cuts(self) -> None:
        """Who is cut off now: with the link of the broker's host all but the host itself."""
        known = self._observer.cut_s
        cut = [process.name for process in self.processes if not self.network.partitions.both(process.name)]
        self._observer.cut_s = {name: known.get(name, anyio.current_time()) for name in cut}

    def _heal(self) -> None:
        """From now on nothing goes wrong any more, and every device is on."""
        self.network.fault_rates = FaultRates()
        for process in self.processes:
            process.thaw()
            process.go_on()
            self._mend(process)
            self.network.unmute(process.name)
            process.run_at(1.0)
            process.switch_on(self._tasks)

    # --- liveness -----------------------------------------------------------------------------------------------------

    async def _recover(self) -> None:
        """L1, and that training goes on."""
        healed_s = anyio.current_time()
        rounds_before: Counter[DeviceId] | None = None
        while self._patrol():
            if rounds_before is None and self._agreed():
                rounds_before = Counter(self._observer.agreement.rounds)
            if rounds_before is not None and self._agreed() and self._advanced(rounds_before):
                return
            if anyio.current_time() - healed_s > AGREED_S_MAX:
                what = "agree on a plan" if rounds_before is None else "complete rounds"
                where = "\n".join(self._describe())
                text = f"L1: {AGREED_S_MAX:.0f} s after the network healed, the devices do not {what}:\n{where}"
                self._observer.findings.add(text)
                return
            await anyio.sleep(0.5)

    def _patrol(self) -> bool:
        """Look at what is kept; whether all is well so far."""
        for process in self.processes:
            self._observer.bounds.check(process.name, process.kept)
        return not self._observer.findings.texts

    def _states(self) -> Iterator[tuple[Process, State | None]]:
        """What each device knows; `None` of one that is not there."""
        for process in self.processes:
            yield process, process.watch.state if process.running else None

    def _agreed(self) -> bool:
        """Whether all devices follow one plan, of which all are members."""
        plans = {
            (state.acks.active.generation, state.acks.active.plan_digest, len(state.acks.active.plan.members))
            if state is not None and state.acks.active is not None and not state.frozen
            else None
            for _, state in self._states()
        }
        return len(plans) == 1 and all(plan is not None and plan[2] == len(self.processes) for plan in plans)

    def _advanced(self, before: Counter[DeviceId]) -> bool:
        """Whether every device has completed enough rounds since, or has finished the run as the others have."""
        ends = {
            state.own.progress if state is not None and state.own.progress.finished else None
            for _, state in self._states()
        }
        if None not in ends:
            return len(ends) == 1
        rounds = self._observer.agreement.rounds
        return all(rounds[process.name] >= before[process.name] + ROUNDS_AFTER for process in self.processes)

    def _describe(self) -> Iterator[str]:
        """Where every device stands, a line each."""
        for process, state in self._states():
            if state is None:
                yield f"  {process.name}: off"
                continue
            ack = None if state.acks.own_ack is None else state.acks.own_ack.ack
            acked = ack and (ack.generation, ack.view_digest.hex()[:6], ack.plan_digest.hex()[:6])
            living = [profile.device for profile in state.view.living]
            active = state.acks.active and state.acks.active.generation
            yield (
                f"  {process.name}: life {state.own.profile.life.incarnation} connected={state.own.connected} "
                f"round_trip={state.has_round_trip} returns={state.own.returns_us} view={state.view.digest.hex()[:6]} "
                f"living={living} probes={dict(state.detector.probes_us)} active={active} "
                f"acked={acked} round={state.own.progress.round} finished={state.own.progress.finished}"
            )
