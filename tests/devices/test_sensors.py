import psutil
import pytest

from devices.sensors import CpuTimes, FixedSensor, MachineSensor, busy_permille

EARLIER = CpuTimes(total_s=100.0, idle_s=50.0, own_s=10.0)


@pytest.mark.parametrize(
    ("idle_s", "own_s", "expected"),
    [(10.0, 0.0, 0), (0.0, 10.0, 0), (0.0, 0.0, 1000), (5.0, 2.5, 250), (11.0, 0.0, 0), (0.0, 12.0, 0)],
)
def test_the_load_of_others_is_what_is_neither_idle_nor_ones_own(idle_s: float, own_s: float, expected: int) -> None:
    later = CpuTimes(total_s=110.0, idle_s=50.0 + idle_s, own_s=10.0 + own_s)
    assert busy_permille(EARLIER, later) == expected


def test_two_readings_at_the_same_time_say_nothing() -> None:
    assert busy_permille(EARLIER, EARLIER) is None


def test_this_machine_has_memory_and_a_load_between_none_and_all() -> None:
    sensor = MachineSensor()
    for readings in (sensor.read(), sensor.read()):
        assert 0 < readings.memory_free_bytes <= psutil.virtual_memory().total
        assert 0 <= readings.cpu_busy_permille <= 1000


def test_an_emulated_device_always_reads_the_same() -> None:
    readings = FixedSensor(memory_free_bytes=1 << 30).read()
    assert (readings.memory_free_bytes, readings.cpu_busy_permille) == (1 << 30, 0)
