"""Times and sizes for people: `duration`, `seconds` and `size`."""

from crowd.units import SECOND_US


def duration(time_us: int) -> str:
    """`time_us` for people: "850 ms", "3.2 s", "2 min 5 s"."""
    if time_us < SECOND_US:
        return f"{time_us / 1_000:.0f} ms"
    seconds = time_us / SECOND_US
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def seconds(time_s: float) -> str:
    """`time_s` for people, in the form of `duration`: "850 ms", "3.2 s", "2 min 5 s"."""
    return duration(int(time_s * SECOND_US))


def size(size_bytes: int) -> str:
    """`size_bytes` for people, in decimal units: "12 B", "1.4 kB", "20.0 MB"."""
    for unit_bytes, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size_bytes >= unit_bytes:
            return f"{size_bytes / unit_bytes:.1f} {unit}"
    return f"{size_bytes} B"
