"""What kind of processor this is: from kind to kind the same arithmetic comes out differently in its last bits."""

import functools
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_KEYS = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU architecture", "CPU variant", "CPU part")
"""Of x86 the first three, of Arm the others."""


@functools.cache
def processor() -> tuple[str, ...]:
    """Its kind and the instructions that torch uses on it, which the environment can limit."""
    import torch  # takes a second, which a mistake in the command need not wait for

    return (*kind(CPUINFO), torch.backends.cpu.get_cpu_capability())


def kind(cpuinfo: Path) -> tuple[str, ...]:
    """By what Linux says of the first of its processors, elsewhere by what Python knows."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine(), platform.processor()
    pairs = [line.partition(":") for line in lines]
    said = {name.strip(): value.strip() for name, _, value in reversed(pairs)}
    return platform.machine(), *(said[key] for key in _KEYS if key in said)
