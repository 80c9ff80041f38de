"""The limits of the control groups that this process is in, as a container or a service has them: `memory_free_bytes`
and `processors`.

Of version 2 (kernel documentation, `admin-guide/cgroup-v2.rst`) and of version 1 (`admin-guide/cgroup-v1/memory.rst`,
`scheduler/sched-bwc.rst`), each controller in whichever has it. A group's limit holds for the groups within it, so all
up to the root of the mount are read, as far as a container shows them.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import attrs

PROC = Path("/proc/self")
_ESCAPED = re.compile(r"\\([0-7]{3})")


def memory_free_bytes(proc: Path = PROC) -> int | None:
    """The memory that the process may still take by the limits of its groups: less what they use, but for the files in
    it that the kernel would drop. `None` without a limit. `proc` is the process's directory in `/proc`."""
    free: list[int] = []
    for group in _groups("memory", proc):
        if group.version == 1:
            limits, usage, droppable = ["memory.limit_in_bytes"], "memory.usage_in_bytes", "total_inactive_file"
        else:
            limits, usage, droppable = ["memory.max", "memory.high"], "memory.current", "inactive_file"
        known = [limit for name in limits if (limit := _number(group.folder / name)) is not None]
        used = _number(group.folder / usage)
        if known and used is not None:
            kept = max(0, used - _statistics(group.folder / "memory.stat").get(droppable, 0))
            free.append(max(0, min(known) - kept))
    return min(free, default=None)


def processors(proc: Path = PROC) -> float:
    """The processors on which the process may run: the whole ones that it is allowed, or less by the quotas of its
    groups."""
    counts = [float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)]
    for group in _groups("cpu", proc):
        if group.version == 1:
            quota = _number(group.folder / "cpu.cfs_quota_us")
            period = _number(group.folder / "cpu.cfs_period_us")
        else:
            quota, period = _numbers(group.folder / "cpu.max")
        if quota is not None and quota > 0 and period:  # -1: no quota
            counts.append(quota / period)
    return min(counts)


@attrs.frozen
class _Group:
    version: int
    folder: Path


def _groups(controller: str, proc: Path) -> Iterator[_Group]:
    """The groups that hold the process, from its own up to the topmost that can be seen."""
    paths = [line.split(":", 2) for line in _lines(proc / "cgroup")]
    for line in _lines(proc / "mountinfo"):  # proc(5): ... ROOT PLACE OPTIONS ... - KIND SOURCE OPTIONS
        left, _, right = line.partition(" - ")
        root, place = (_ESCAPED.sub(lambda code: chr(int(code[1], 8)), part) for part in left.split()[3:5])
        kind, _, options = right.split(maxsplit=2)
        if kind not in ("cgroup", "cgroup2") or (kind == "cgroup" and controller not in options.split(",")):
            continue
        for number, controllers, path in paths:
            if (kind == "cgroup2" and number == "0") or (kind == "cgroup" and controller in controllers.split(",")):
                version = 2 if kind == "cgroup2" else 1
                yield from (_Group(version, folder) for folder in _upwards(Path(place), Path(root), Path(path)))


def _upwards(place: Path, root: Path, path: Path) -> Iterator[Path]:
    """The folders of the group `path` and of those around it, where the group `root` is mounted at `place`."""
    inner = path.relative_to(root) if path.is_relative_to(root) else Path()
    folder = place / inner
    yield folder
    while folder != place:
        folder = folder.parent
        yield folder


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:  # not Linux, or a group of which a container shows nothing
        return []


def _number(file: Path) -> int | None:
    """The number in a file; `None` if there is no such file, or "max" in it."""
    return _numbers(file)[0]


def _numbers(file: Path) -> tuple[int | None, int | None]:
    words = [word for line in _lines(file)[:1] for word in line.split()]
    first, second = (int(word) if word.lstrip("-").isdigit() else None for word in [*words, "", ""][:2])
    return first, second


def _statistics(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in _lines(file))
    return {name: int(value) for name, value in pairs}
