import psutil

from devices.sensors import FixedSensor, MachineSensor


def test_this_machine_has_memory() -> None:
    assert 0 < MachineSensor().read().memory_free_bytes <= psutil.virtual_memory().total


def test_an_emulated_device_always_reads_the_same() -> None:
    assert FixedSensor(memory_free_bytes=1 << 30).read().memory_free_bytes == 1 << 30
