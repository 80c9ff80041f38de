"""Every kind of `Compute` keeps the port's promises; those of other devices also keep their time."""

import random
import threading
from collections.abc import Callable

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from structlog.testing import capture_logs

from crowd.learning.speed_test import measure_speed
from crowd.learning.work import Work, prepare
from crowd.ports import Compute
from devices.emulated import EmulatedCompute, VirtualCompute, emulated
from devices.torch_compute import TorchCompute, cpu
from tests.learning.nets import make_task
from tests.support.virtual import run_virtually, virtual_time

pytestmark = pytest.mark.alone

FAST_KFLOPS = 10**12


class FakeTime:
    """A clock that only work and sleep move on; each sleep takes `oversleep_s` longer than it was asked to."""

    def __init__(self, oversleep_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.slept_s: list[float] = []
        self._oversleep_s = oversleep_s

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        await anyio.lowlevel.checkpoint()
        self.slept_s.append(seconds)
        self.now_s += seconds + self._oversleep_s

    def work(self, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.now_s += seconds

        return run

    def device(self, speed_kflops: int = 1000) -> EmulatedCompute:
        return EmulatedCompute(speed_kflops, clock=self.clock, sleep=self.sleep)


@pytest.fixture(params=["local", "emulated"])
def compute(request: pytest.FixtureRequest) -> Compute:
    return TorchCompute() if request.param == "local" else EmulatedCompute(FAST_KFLOPS)


def test_work_runs_away_from_the_event_loop_and_returns_its_result(compute: Compute) -> None:
    async def main() -> int:
        return await compute.run(threading.get_ident, flops=1)

    assert anyio.run(main) != threading.get_ident()


def test_an_exception_of_the_work_passes_through(compute: Compute) -> None:
    async def main() -> None:
        await compute.run(lambda: 1 // 0, flops=1)

    with pytest.raises(ZeroDivisionError):
        anyio.run(main)


def test_only_one_piece_of_work_runs_at_a_time(compute: Compute) -> None:
    order: list[str] = []
    may_end = threading.Event()

    def first() -> None:
        order.append("first begins")
        may_end.wait()
        order.append("first ends")

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: compute.run(first, flops=1))
            await anyio.wait_all_tasks_blocked()
            group.start_soon(lambda: compute.run(lambda: order.append("second"), flops=1))
            await anyio.wait_all_tasks_blocked()
            may_end.set()

    anyio.run(main)
    assert order == ["first begins", "first ends", "second"]


def test_a_cancelled_call_waits_for_its_work_to_return(compute: Compute) -> None:
    started, may_end = threading.Event(), threading.Event()
    order: list[str] = []

    def work() -> None:
        started.set()
        may_end.wait()
        order.append("work ended")

    async def call(scope: anyio.CancelScope) -> None:
        with scope:
            await compute.run(work, flops=1)
        order.append("call returned")

    async def main() -> None:
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as group:
            group.start_soon(call, scope)
            await anyio.to_thread.run_sync(started.wait)
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            may_end.set()

    anyio.run(main)
    assert order == ["work ended", "call returned"]


def test_a_call_takes_as_long_as_the_emulated_device_needs() -> None:
    time = FakeTime()

    async def main() -> None:
        # 2 MFLOP at 1,000 kFLOP/s: two seconds, of which the work itself took half of one.
        await time.device().run(time.work(0.5), flops=2_000_000)

    anyio.run(main)
    assert time.slept_s == [1.5]


def test_what_one_pause_lasts_too_long_the_next_lasts_less() -> None:
    time = FakeTime(oversleep_s=0.25)
    device = time.device()

    async def main() -> None:
        for _ in range(8):
            await device.run(time.work(0.5), flops=1_000_000)

    anyio.run(main)
    assert time.slept_s == [0.5] + [0.25] * 7
    assert time.now_s == 8 + 0.25


def test_calls_at_the_same_time_share_one_processor() -> None:
    time = FakeTime()
    device = time.device()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(lambda: device.run(time.work(0.25), flops=1_000_000))

    anyio.run(main)
    assert time.slept_s == [0.75] * 3


def test_slow_work_is_made_up_for_by_the_next_calls() -> None:
    time = FakeTime()
    device = time.device()

    async def main() -> None:
        await device.run(time.work(1.5), flops=1_000_000)
        for _ in range(2):
            await device.run(time.work(0.0), flops=1_000_000)

    anyio.run(main)
    assert time.slept_s == [0.5, 1.0]


def test_time_between_calls_is_the_devices_own() -> None:
    time = FakeTime()
    device = time.device()

    async def main() -> None:
        await device.run(time.work(0.0), flops=1_000_000)
        time.now_s += 100.0
        await device.run(time.work(0.0), flops=1_000_000)

    anyio.run(main)
    assert time.slept_s == [1.0, 1.0]


def test_the_pause_that_a_cancelled_call_missed_is_owed_by_the_next() -> None:
    time = FakeTime()
    device = time.device()

    async def main() -> None:
        with anyio.CancelScope() as scope:

            def work() -> None:
                time.now_s += 0.25
                anyio.from_thread.run_sync(scope.cancel)

            await device.run(work, flops=1_000_000)
        await device.run(time.work(0.0), flops=1_000_000)

    anyio.run(main)
    assert time.slept_s == [1.75]


def test_work_without_flops_takes_only_its_own_time() -> None:
    time = FakeTime()
    device = time.device()

    async def main() -> None:
        await device.run(time.work(5.0))
        await device.run(time.work(0.0), flops=1_000_000)

    anyio.run(main)
    assert time.slept_s == [1.0]


def test_a_machine_too_slow_to_emulate_a_device_says_so_once_a_minute() -> None:
    time = FakeTime()
    device = time.device()

    async def main() -> None:
        for _ in range(70):
            await device.run(time.work(2.0), flops=1_000_000)

    with capture_logs() as logs:
        anyio.run(main)
    assert [entry["event"] for entry in logs] == ["emulation_too_slow"] * 3
    assert logs[0] == {"event": "emulation_too_slow", "log_level": "warning", "speed_kflops": 1000, "behind_s": 2.0}


def test_a_little_jitter_is_no_reason_to_warn() -> None:
    time = FakeTime(oversleep_s=0.1)
    device = time.device()

    async def main() -> None:
        for _ in range(50):
            await device.run(time.work(0.2), flops=1_000_000)

    with capture_logs() as logs:
        anyio.run(main)
    assert logs == []


def test_a_device_without_speed_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a speed above 0"):
        EmulatedCompute(0)
    with pytest.raises(ValueError, match="expected a speed above 0"):
        VirtualCompute(0)
    with pytest.raises(ValueError, match="expected a speed above 0"):
        VirtualCompute(1).speed_kflops = -1


def test_device_kinds_come_whole() -> None:
    assert isinstance(cpu().compute, TorchCompute)
    device = emulated(1000, 1 << 20)
    assert isinstance(device.compute, EmulatedCompute)
    assert device.sensor.read().memory_free_bytes == 1 << 20


# --- under virtual time -----------------------------------------------------------------------------------------------


class Log:
    """What ran, and when."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, str]] = []

    async def call(self, compute: Compute, name: str, flops: int) -> None:
        text = await compute.run(lambda: name, flops=flops)
        self.entries.append((anyio.current_time(), text))


@virtual_time
async def test_virtual_work_takes_exactly_the_time_of_its_device_one_piece_at_a_time() -> None:
    compute, log = VirtualCompute(1000), Log()
    async with anyio.create_task_group() as group:
        for name, flops in (("two seconds", 2_000_000), ("half of one", 500_000), ("three", 3_000_000)):
            group.start_soon(log.call, compute, name, flops)
    assert log.entries == [(2.0, "two seconds"), (2.5, "half of one"), (5.5, "three")]


@virtual_time
async def test_virtual_work_without_flops_takes_no_time_and_waits_for_no_piece() -> None:
    compute, log = VirtualCompute(1000), Log()
    async with anyio.create_task_group() as group:
        group.start_soon(log.call, compute, "training", 1_000_000)
        group.start_soon(log.call, compute, "planning", 0)
    assert log.entries == [(0.0, "planning"), (1.0, "training")]


@virtual_time
async def test_a_new_speed_counts_from_the_next_piece_on() -> None:
    compute, log = VirtualCompute(1000), Log()
    async with anyio.create_task_group() as group:
        group.start_soon(log.call, compute, "in hand", 1_000_000)
        group.start_soon(log.call, compute, "next", 1_000_000)
        await anyio.sleep(0.5)
        compute.speed_kflops = 250
    assert log.entries == [(1.0, "in hand"), (5.0, "next")]


@virtual_time
async def test_an_exception_of_virtual_work_passes_through_and_the_next_piece_runs() -> None:
    compute, log = VirtualCompute(1000), Log()
    with pytest.raises(ZeroDivisionError):
        await compute.run(lambda: 1 // 0, flops=1_000_000)
    await log.call(compute, "next", 1_000_000)
    assert log.entries == [(1.0, "next")]


@virtual_time
async def test_a_virtual_piece_that_is_cancelled_makes_room_at_once() -> None:
    compute, log = VirtualCompute(1000), Log()
    with anyio.move_on_after(0.25):
        await log.call(compute, "cancelled", 1_000_000)
    await log.call(compute, "next", 1_000_000)
    assert log.entries == [(1.25, "next")]


def test_only_a_virtual_device_can_do_without_maths() -> None:
    assert TorchCompute().executes
    assert EmulatedCompute(1).executes
    assert VirtualCompute(1).executes
    assert not VirtualCompute(1, executes=False).executes


@pytest.fixture(scope="module")
def work() -> Work:
    return prepare(make_task())


@pytest.mark.parametrize("begins_s", [0.0, 0.1, 1234.567])
def test_the_measured_speed_is_exactly_that_of_the_virtual_device(work: Work, begins_s: float) -> None:
    async def measured(speed_kflops: int) -> int:
        await anyio.sleep(begins_s)
        return await measure_speed(make_task(), work, VirtualCompute(speed_kflops, executes=False))

    chance = random.Random(0)
    speeds = [*range(1, 40), *(int(10 ** chance.uniform(1.6, 6)) for _ in range(300))]
    assert [run_virtually(measured, speed) for speed in speeds] == speeds


# --- what is handled beside training ----------------------------------------------------------------------------------


@virtual_time
async def test_training_rests_while_a_virtual_device_handles_something() -> None:
    device = VirtualCompute(1000)
    ends_s: dict[str, float] = {}

    async def train() -> None:
        await device.run(lambda: None, flops=3_000_000)
        ends_s["training"] = anyio.current_time()

    async def handle(name: str, at_s: float) -> None:
        await anyio.sleep_until(at_s)
        await device.handle(1_000_000)
        ends_s[name] = anyio.current_time()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(train)
        tasks.start_soon(handle, "first", 1.0)
        tasks.start_soon(handle, "second", 1.5)
        tasks.start_soon(handle, "while training should have ended", 4.5)
        tasks.start_soon(handle, "afterwards", 9.0)
    assert ends_s == {
        "first": 2.0,
        "second": 3.0,
        "while training should have ended": 5.5,
        "training": 6.0,
        "afterwards": 10.0,
    }


@virtual_time
async def test_training_begins_when_a_virtual_device_has_handled_what_waits() -> None:
    device = VirtualCompute(1000)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(device.handle, 1_000_000)
        await anyio.sleep(0.25)
        await device.run(lambda: None, flops=1_000_000)
        assert anyio.current_time() == 2.0


@virtual_time
async def test_an_overhead_task_of_a_virtual_device_takes_its_time_and_training_rests_meanwhile() -> None:
    device = VirtualCompute(1000, overhead_flops=1_000_000)
    ends_s: dict[str, float] = {}

    async def train() -> None:
        await device.run(lambda: None, flops=3_000_000)
        ends_s["training"] = anyio.current_time()

    async def run_overhead(name: str, at_s: float) -> None:
        await anyio.sleep_until(at_s)
        assert await device.run(lambda: anyio.current_time()) == at_s + 1.0
        ends_s[name] = anyio.current_time()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(train)
        tasks.start_soon(run_overhead, "meanwhile", 1.0)
        tasks.start_soon(run_overhead, "afterwards", 9.0)
    assert ends_s == {"meanwhile": 2.0, "training": 4.0, "afterwards": 10.0}


@virtual_time
async def test_a_virtual_device_s_pieces_take_as_long_as_its_unevenness_says() -> None:
    device, log = VirtualCompute(1000, unevenness=iter([1.5, 0.5])), Log()
    await device.run(lambda: None)  # takes none of them
    for name in ("slow", "quick"):
        await log.call(device, name, 1_000_000)
    assert log.entries == [(1.5, "slow"), (2.0, "quick")]
