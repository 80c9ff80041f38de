"""Times, sizes and the values of metrics for people: `seconds`, `size` and `quality`."""

from crowd.metric_facts import FRACTIONS


def seconds(time_s: float) -> str:
    """`time_s` for people: "850 ms", "3.2 s", "2 min 5 s"."""
    if time_s < 1.0:
        return f"{time_s * 1_000:.0f} ms"
    if time_s < 99.95:
        return f"{time_s:.1f} s"
    minutes, rest = divmod(round(time_s), 60)
    return f"{minutes} min {rest} s"


def size(size_bytes: int) -> str:
    """`size_bytes` for people, in decimal units: "12 B", "1.4 kB", "20.0 MB"."""
    for unit_bytes, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size_bytes >= unit_bytes:
            return f"{size_bytes / unit_bytes:.1f} {unit}"
    return f"{size_bytes} B"


def quality(metric: str, value: float) -> str:
    """`value` of the metric of that name for people: "91.2%", "43.71"."""
    return f"{value:.1%}" if metric in FRACTIONS else f"{value:.4g}"
