"""The kind of this processor: from kind to kind the same arithmetic comes out differently in its last bits."""

import functools
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_KEYS = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU architecture", "CPU variant", "CPU part")
"""Keys of `/proc/cpuinfo` that tell the kind: of x86 the first three, of Arm the others."""


@functools.cache
def processor() -> tuple[str, ...]:
    """The kind of this processor and the instructions that torch uses on it, which the environment can limit."""
    import torch  # takes a second, which a mistake in the command need not wait for

    return (*kind(CPUINFO), torch.backends.cpu.get_cpu_capability())


def kind(cpuinfo: Path) -> tuple[str, ...]:
    """The kind of the first processor that Linux lists in `cpuinfo`; elsewhere what Python knows of it."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine(), platform.processor()
    pairs = [line.partition(":") for line in lines]
    said = {name.strip(): value.strip() for name, _, value in reversed(pairs)}
    return platform.machine(), *(said[key] for key in _KEYS if key in said)
