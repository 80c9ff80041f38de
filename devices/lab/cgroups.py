"""Limits on the processor time and memory of processes: control groups, version 1 (kernel documentation,
`admin-guide/cgroup-v1/memory.rst` and `scheduler/sched-bwc.rst`).

Layout: `find_hierarchies` (where they are), `Group` (some processes under common limits), `groups` and `remove_group`
(what is left of a name).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from crowd.errors import BadConfig

CONTROLLERS = ("cpu", "memory")
PERIOD_US = 10_000
"""Short beside a piece of training, so that its pace is even."""
PERIOD_US_MAX = 1_000_000
SHARES_MAX = 262_144
QUOTA_US_MIN = 1_000
"""The kernel takes no less; a smaller share has a longer period."""


def find_hierarchies(mounts: Iterable[str]) -> Mapping[str, Path]:
    """Where each of `CONTROLLERS` is, by the lines of `/proc/mounts`. Raises `BadConfig` if one is nowhere."""
    places: dict[str, Path] = {}
    unified = False
    for line in mounts:
        _, place, kind, options, *_ = line.split()
        unified = unified or kind == "cgroup2"
        if kind == "cgroup":
            places |= {name: Path(place) for name in CONTROLLERS if name in options.split(",")}
    missing = [name for name in CONTROLLERS if name not in places]
    if missing:
        found = "only version 2 is mounted" if unified and not places else "not mounted"
        raise BadConfig(
            f"the lab needs the control groups of version 1 for {' and '.join(missing)}: {found}; "
            "where systemd knows it, start Linux with systemd.unified_cgroup_hierarchy=0"
        )
    return places


class Group:
    """Processes that share one limit of processor time and one of memory; none until they are set. The group is made
    with this object, and goes with `remove_group`."""

    def __init__(self, hierarchies: Mapping[str, Path], name: str) -> None:
        """`name` may be a path, below a group that is there."""
        self._places = {controller: place / name for controller, place in hierarchies.items()}
        for place in self._places.values():
            place.mkdir()

    def add(self, pid: int) -> None:
        for place in self._places.values():
            (place / "cgroup.procs").write_text(str(pid))

    def take_precedence(self) -> None:
        """They and the groups within get what their limits allow before whatever else runs on this machine."""
        (self._places["cpu"] / "cpu.shares").write_text(str(SHARES_MAX))

    def free_cpu(self) -> None:
        """Set no limit to their time."""
        (self._places["cpu"] / "cpu.cfs_quota_us").write_text("-1")

    def limit_cpu(self, cores: float) -> None:
        """Give them together as much time as `cores` processors have, which may be a fraction of one."""
        period_us, quota_us = bandwidth(cores)
        cpu = self._places["cpu"]
        self.free_cpu()  # as the kernel refuses a pair that is out of range for a moment
        (cpu / "cpu.cfs_period_us").write_text(str(period_us))
        (cpu / "cpu.cfs_quota_us").write_text(str(quota_us))

    def limit_memory(self, *, more_bytes: int) -> None:
        """Let them use so much more than they do now; past it the kernel ends one of them."""
        memory = self._places["memory"]
        used_bytes = int((memory / "memory.usage_in_bytes").read_text())
        (memory / "memory.limit_in_bytes").write_text(str(used_bytes + more_bytes))


def bandwidth(cores: float) -> tuple[int, int]:
    """Period and quota in microseconds that give `cores` processors' time. Raises `ValueError` for less than the kernel
    can give."""
    if cores * PERIOD_US_MAX < QUOTA_US_MIN:
        raise ValueError(f"expected at least {QUOTA_US_MIN / PERIOD_US_MAX} of a processor, found {cores}")
    period_us = max(PERIOD_US, min(PERIOD_US_MAX, round(QUOTA_US_MIN / cores)))
    return period_us, max(QUOTA_US_MIN, round(cores * period_us))


def groups(hierarchies: Mapping[str, Path], *, prefix: str) -> set[str]:
    """The names, of one part, of the groups that begin with `prefix`."""
    return {place.name for root in hierarchies.values() for place in root.glob(f"{prefix}*")}


def processes(hierarchies: Mapping[str, Path], name: str) -> set[int]:
    """All that are in a group of that name or in one within it."""
    files = [file for root in hierarchies.values() for file in (root / name).rglob("cgroup.procs")]
    return {int(pid) for file in files for pid in file.read_text().split()}


def remove_group(hierarchies: Mapping[str, Path], name: str) -> None:
    """Remove the group and those within it. Raises `OSError` while processes are in them."""
    for root in hierarchies.values():
        place = root / name
        if place.is_dir():
            inner = sorted((path for path in place.rglob("*") if path.is_dir()), reverse=True)
            for path in (*inner, place):
                path.rmdir()
