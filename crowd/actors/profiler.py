"""The profiler: the abilities of this device, measured, and published only when they have changed enough to matter."""

import statistics
from collections import deque
from typing import assert_never

import anyio
import attrs
import structlog

from crowd.actors import inbox
from crowd.actors.inbox import PlannerMessage, ProfilerMessage, TrainerMessage
from crowd.agreement import events
from crowd.config.node_file import NodeConfig
from crowd.planning.profile import Profile, TaskFacts
from crowd.ports import Sensor
from crowd.protocol.messages import PROTOCOL_VERSION
from crowd.runtime import Actor, ActorRef
from crowd.runtime.clock import now_us
from crowd.units import MEBIBYTE, SECOND_US, Life, device_id

HYSTERESIS_PERMILLE = 150
"""Change of a speed or rate, in thousandths of what was last published, that is published again."""
READ_EVERY_US = 10 * SECOND_US
SPEED_WINDOW_US = 4 * SECOND_US
"""Least training that a speed is the median over. It has changed when two such windows in a row say so: a new plan
costs a new epoch, and a moment's load is not worth it."""
MEASURE_AGAIN_US = 300 * SECOND_US
"""Wait after the last training that was timed, after which the speed is measured where nothing trains; if it has
changed, it is measured once more at once."""
LINK_WINDOW_BYTES = MEBIBYTE
"""Bytes after which a link's rate counts as observed."""
LINK_WINDOWS = 8
"""Windows of which the best is a link's rate: in the others something else held the bytes up."""
PUBLISH_AGAIN_S = 15.0
"""Least seconds between two profiles, as each of them costs the whole cluster a new epoch."""
LINK_BYTES_S_MAX = 125_000_000
"""Highest rate of a link, 1 Gbit/s, beyond which the link is never what limits."""
MEMORY_STEP_BYTES = 64 * MEBIBYTE
MEMORY_RESERVE_BYTES = 64 * MEBIBYTE
MEASURING_LIMIT_S = 120.0

log = structlog.get_logger()


class Profiler(Actor[ProfilerMessage]):
    """Measures this device.

    1. Asks the trainer for its speed on the very task, reads the sensor, and tells the planner.
    2. Watches the training and the transfers that happen anyway, and the sensor every `READ_EVERY_US`; where nothing
       trains, it has the trainer measure now and then.
    3. Tells the planner again when something has changed by more than the hysteresis.
    """

    def __init__(
        self,
        *,
        profile: Profile,
        sensor: Sensor,
        planner: ActorRef[PlannerMessage],
        trainer: ActorRef[TrainerMessage],
    ) -> None:
        """Make a profiler with nothing measured. `profile` says all that is not measured; its rates are the assumed
        ones."""
        self._published = profile
        self._sensor = sensor
        self._planner = planner
        self._trainer = trainer
        self._pieces: deque[tuple[int, int]] = deque()
        self._links: dict[bool, tuple[int, int]] = {True: (0, 0), False: (0, 0)}
        self._rates: dict[bool, deque[int]] = {up: deque(maxlen=LINK_WINDOWS) for up in (True, False)}
        self._published_at_s = 0.0
        self._changed_before = False
        self._ready = False
        self._read_at_us = 0
        self._measure_at_us = 0

    async def started(self) -> None:
        self._read_at_us = now_us() + READ_EVERY_US
        self.spawn(self._measure)

    async def _measure(self) -> None:
        speed_kflops = await self._trainer.ask(inbox.MeasureSpeed(), timeout_s=MEASURING_LIMIT_S)
        memory_bytes = budget(self._sensor.read().memory_free_bytes)
        log.info("device_measured", speed_kflops=speed_kflops, memory_mib=memory_bytes // MEBIBYTE)
        self._ready = True
        self._measure_at_us = now_us() + MEASURE_AGAIN_US
        await self._publish(attrs.evolve(self._published, speed_kflops=speed_kflops, memory_bytes=memory_bytes))

    async def receive(self, message: ProfilerMessage) -> None:
        match message:
            case inbox.StepsTimed(flops=flops, elapsed_us=elapsed_us):
                self._pieces.append((flops, elapsed_us))
                self._measure_at_us = now_us() + MEASURE_AGAIN_US
                if sum(piece[1] for piece in self._pieces) >= SPEED_WINDOW_US:
                    await self._note_window()
            case inbox.SpeedMeasured(speed_kflops=speed_kflops):
                self._pieces.clear()
                await self._note_speed(speed_kflops)
                self._measure_at_us = now_us() + (0 if self._changed_before else MEASURE_AGAIN_US)
            case inbox.LinkTimed(up=up, size_bytes=size_bytes, elapsed_us=elapsed_us):
                await self._note_link(up, size_bytes, elapsed_us)
            case inbox.DataRead(data=data):
                await self._note_data(data)
                message.reply(None)
            case _:
                assert_never(message)

    def deadline_us(self) -> int:
        return self._read_at_us

    async def tick(self) -> None:
        """Read the sensor, and have the speed measured if that is due. Memory is a budget: it is not lowered here, as
        what is missing may well be this training's own use."""
        self._read_at_us = now_us() + READ_EVERY_US
        if not self._ready:
            return
        if now_us() >= self._measure_at_us:
            self._measure_at_us = now_us() + MEASURE_AGAIN_US
            self.spawn(self._trainer.tell, inbox.MeasureUnused())  # both may tell each other: neither waits
        memory_bytes = budget(self._sensor.read().memory_free_bytes)
        if differs(memory_bytes, self._published.memory_bytes) and memory_bytes > self._published.memory_bytes:
            await self._publish(attrs.evolve(self._published, memory_bytes=memory_bytes))

    async def _note_window(self) -> None:
        speeds = [flops * 1000 // max(1, us) for flops, us in self._pieces]
        self._pieces.clear()
        await self._note_speed(max(1, int(statistics.median(speeds))))

    async def _note_speed(self, speed_kflops: int) -> None:
        before, self._changed_before = self._changed_before, differs(speed_kflops, self._published.speed_kflops)
        if before and self._changed_before and self._may_publish:
            self._changed_before = False
            log.info("speed_changed", before_kflops=self._published.speed_kflops, now_kflops=speed_kflops)
            await self._publish(attrs.evolve(self._published, speed_kflops=speed_kflops))

    async def _note_link(self, up: bool, size_bytes: int, elapsed_us: int) -> None:
        bytes_sum, us_sum = self._links[up]
        self._links[up] = bytes_sum, us_sum = bytes_sum + size_bytes, us_sum + elapsed_us
        if bytes_sum < LINK_WINDOW_BYTES:
            return
        self._links[up] = (0, 0)
        self._rates[up].append(max(1, min(bytes_sum * SECOND_US // max(1, us_sum), LINK_BYTES_S_MAX)))
        rate_bytes_s, before = max(self._rates[up]), self._published
        if not self._may_publish:
            return
        if up and differs(rate_bytes_s, before.uplink_bytes_s):
            await self._publish(attrs.evolve(before, link_assumed=False, uplink_bytes_s=rate_bytes_s))
        elif not up and differs(rate_bytes_s, before.downlink_bytes_s):
            await self._publish(attrs.evolve(before, link_assumed=False, downlink_bytes_s=rate_bytes_s))

    async def _note_data(self, data: inbox.HeldData) -> None:
        before = self._published
        grown = sum(data.label_counts) + data.held_out - before.samples - before.held_out
        memory_bytes = max(0, before.memory_bytes - max(0, grown) * before.task.sample_bytes)
        profile = attrs.evolve(before, memory_bytes=memory_bytes, **attrs.asdict(data))
        if self._ready:
            await self._publish(profile)
        else:
            self._published = profile

    @property
    def _may_publish(self) -> bool:
        return self._ready and anyio.current_time() >= self._published_at_s + PUBLISH_AGAIN_S

    async def _publish(self, profile: Profile) -> None:
        self._published = profile
        self._published_at_s = anyio.current_time()
        await self._planner.tell(events.OwnProfile(profile=profile))


def differs(value: int, published: int) -> bool:
    """Whether `value` is outside the hysteresis around what was published."""
    return abs(value - published) * 1000 > published * HYSTERESIS_PERMILLE


def budget(free_bytes: int) -> int:
    """Memory budget of `free_bytes`: less a reserve, rounded down."""
    return max(0, (free_bytes - MEMORY_RESERVE_BYTES) // MEMORY_STEP_BYTES * MEMORY_STEP_BYTES)


def unmeasured_profile(
    config: NodeConfig,
    facts: TaskFacts,
    *,
    life: Life,
    policy_version: int,
    data: inbox.HeldData,
) -> Profile:
    """The profile by the configuration and the data of a device; the profiler measures the rest."""
    return Profile(
        device=device_id(config.name),
        life=life,
        revision=0,
        run=1,
        started=False,
        members_min=config.members_min,
        policy=config.policy,
        policy_version=policy_version,
        protocol_version=PROTOCOL_VERSION,
        prefer=config.prefer,
        seed=config.seed,
        task=facts,
        speed_kflops=1,
        memory_bytes=0,
        uplink_bytes_s=config.uplink_bytes_s,
        downlink_bytes_s=config.downlink_bytes_s,
        link_assumed=True,
        share=config.share,
        data_epoch=data.data_epoch,
        label_counts=data.label_counts,
        held_out=data.held_out,
    )
