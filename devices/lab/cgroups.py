"""Limits on the processor time and memory of processes: control groups of version 2 (kernel documentation,
`admin-guide/cgroup-v2.rst`, whose sections are named below) or of version 1 (`admin-guide/cgroup-v1/memory.rst` and
`scheduler/sched-bwc.rst`), whichever of them a machine has its controllers in.

Layout: `find_hierarchies` (where they are: `Hierarchies`), `make_group` (a `Group`: some processes under common
limits, as `GroupV1` or `GroupV2`), `groups`, `processes` and `remove_group` (what is left of a name).

A lab has a group of its own directly under the root of the mount, with its devices' groups within, in both versions. In
version 2 a group that holds processes cannot give limits to groups within, unless it is the root of all ("No Internal
Process Constraint"): the caller's own group holds the caller at least, the root need not be empty, and systemd leaves
alone there what it has not made.
"""

import abc
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import attrs

from crowd.errors import BadConfig

CONTROLLERS = ("cpu", "memory")
PERIOD_US = 10_000
"""Microseconds of a period of limits: short beside a piece of training, so that its pace is even."""
PERIOD_US_MAX = 1_000_000
SHARES_MAX = 262_144
WEIGHT_MAX = 10_000
"""Largest weight of version 2 ("Weights"). To the kernel a weight of 100 is what 1,024 shares are, so this is
102,400."""
QUOTA_US_MIN = 1_000
"""Smallest quota that the kernel takes, in microseconds; a smaller share has a longer period."""


@attrs.frozen(kw_only=True)
class Hierarchies:
    """The mount points of `CONTROLLERS`; in version 2 both are one."""

    version: Literal[1, 2]
    cpu: Path
    memory: Path

    @property
    def roots(self) -> frozenset[Path]:
        return frozenset((self.cpu, self.memory))


def find_hierarchies(mounts: Iterable[str]) -> Hierarchies:
    """The hierarchies of this machine: those of version 1 if both controllers are mounted there, else those of version
    2, by the lines of `/proc/mounts` and the content of `cgroup.controllers` ("Mounting", "Controlling Controllers"):
    no controller is in both. Raises `BadConfig` if neither has the two."""
    old: dict[str, Path] = {}
    unified: list[Path] = []
    for line in mounts:
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup":
            old |= {name: Path(place) for name in CONTROLLERS if name in options.split(",")}
        elif kind == "cgroup2":
            unified.append(Path(place))
    if old.keys() >= set(CONTROLLERS):
        return Hierarchies(version=1, **old)
    for root in unified:
        if _controllers(root) >= set(CONTROLLERS):
            return Hierarchies(version=2, cpu=root, memory=root)
    raise BadConfig(_lack(old, unified))


def _controllers(root: Path) -> set[str]:
    """The controllers of the hierarchy at `root`; none if another mount hides it."""
    file = root / "cgroup.controllers"
    return set(file.read_text().split()) if file.is_file() else set()


def _lack(old: dict[str, Path], unified: list[Path]) -> str:
    found = [f"{name} of version 1 in {place}" for name, place in old.items()]
    for root in unified:
        names = [name for name in CONTROLLERS if name in _controllers(root)]
        found.append(f"{' and '.join(names) or 'neither'} of version 2 in {root}")
    mend = (
        "do not disable one where Linux is started (a Raspberry Pi wants cgroup_enable=memory in "
        "/boot/firmware/cmdline.txt), nor mount one in version 1 without the other"
        if found
        else "mount them with 'mount -t cgroup2 cgroup2 /sys/fs/cgroup'"
    )
    return f"the lab needs the control groups cpu and memory in one version, found {', '.join(found) or 'none'}; {mend}"


class Group(abc.ABC):
    """Processes that share one limit of processor time and one of memory; none until they are set. A group has either
    processes or groups within. It goes with `remove_group`."""

    def __init__(self, *, cpu: Path, memory: Path) -> None:
        """Stand for a group whose directories are there: `make_group` makes them."""
        self._cpu = cpu
        self._memory = memory

    def add(self, pid: int) -> None:
        """Add a process. Raises `OSError` if there is no such process; in version 2 also if groups with limits are
        within."""
        for place in {self._cpu, self._memory}:
            (place / "cgroup.procs").write_text(str(pid))

    @abc.abstractmethod
    def take_precedence(self) -> None:
        """Give the processes, and those of groups within, what their limits allow before whatever else runs on this
        machine."""

    @abc.abstractmethod
    def free_cpu(self) -> None:
        """Remove the limit of processor time."""

    @abc.abstractmethod
    def limit_cpu(self, cores: float) -> None:
        """Give the processes together as much time as `cores` processors have, which may be a fraction of one. Raises
        `ValueError` for less than the kernel can give."""

    @abc.abstractmethod
    def limit_memory(self, *, more_bytes: int) -> None:
        """Let the processes use so much more memory than they do now; past it the kernel ends one of them."""


class GroupV1(Group):
    """A group of version 1. The kernel may first move to swap what is past a limit of memory, if this machine has
    any."""

    def take_precedence(self) -> None:
        (self._cpu / "cpu.shares").write_text(str(SHARES_MAX))

    def free_cpu(self) -> None:
        (self._cpu / "cpu.cfs_quota_us").write_text("-1")

    def limit_cpu(self, cores: float) -> None:
        period_us, quota_us = bandwidth(cores)
        self.free_cpu()  # as the kernel refuses a pair that is out of range for a moment
        (self._cpu / "cpu.cfs_period_us").write_text(str(period_us))
        (self._cpu / "cpu.cfs_quota_us").write_text(str(quota_us))

    def limit_memory(self, *, more_bytes: int) -> None:
        used_bytes = int((self._memory / "memory.usage_in_bytes").read_text())
        (self._memory / "memory.limit_in_bytes").write_text(str(used_bytes + more_bytes))


class GroupV2(Group):
    """A group of version 2 ("CPU Interface Files", "Memory Interface Files"). Limited memory is never in swap."""

    def take_precedence(self) -> None:
        (self._cpu / "cpu.weight").write_text(str(WEIGHT_MAX))

    def free_cpu(self) -> None:
        (self._cpu / "cpu.max").write_text("max")

    def limit_cpu(self, cores: float) -> None:
        period_us, quota_us = bandwidth(cores)
        (self._cpu / "cpu.max").write_text(f"{quota_us} {period_us}")

    def limit_memory(self, *, more_bytes: int) -> None:
        swap = self._memory / "memory.swap.max"
        if swap.exists():  # not in a kernel without swap
            swap.write_text("0")
        used_bytes = int((self._memory / "memory.current").read_text())
        (self._memory / "memory.max").write_text(str(used_bytes + more_bytes))


def make_group(hierarchies: Hierarchies, name: str) -> Group:
    """Make a new group; `name` may be a path, below a group that is there and holds no processes. Raises `BadConfig` if
    the machine lets no group have limits there, and `OSError` if it cannot be made."""
    if hierarchies.version == 2:
        _pass_controllers_down((hierarchies.cpu / name).parent)
    for root in hierarchies.roots:
        (root / name).mkdir()
    kind = GroupV2 if hierarchies.version == 2 else GroupV1
    return kind(cpu=hierarchies.cpu / name, memory=hierarchies.memory / name)


def _pass_controllers_down(parent: Path) -> None:
    """Let the groups directly within `parent` have limits ("Top-down Constraint"); no change where they may already."""
    try:
        (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in CONTROLLERS))
    except OSError as error:
        raise BadConfig(
            f"the lab cannot limit processes in {parent}: {error.strerror}; run it outside of a container, or in one "
            "that is started with --privileged and --cgroupns=host"
        ) from error


def bandwidth(cores: float) -> tuple[int, int]:
    """Period and quota in microseconds that give `cores` processors' time. Raises `ValueError` for less than the kernel
    can give."""
    if cores * PERIOD_US_MAX < QUOTA_US_MIN:
        raise ValueError(f"expected at least {QUOTA_US_MIN / PERIOD_US_MAX} of a processor, found {cores}")
    period_us = max(PERIOD_US, min(PERIOD_US_MAX, round(QUOTA_US_MIN / cores)))
    return period_us, max(QUOTA_US_MIN, round(cores * period_us))


def groups(hierarchies: Hierarchies, *, prefix: str) -> set[str]:
    """The names, of one part, of the groups that begin with `prefix`."""
    return {place.name for root in hierarchies.roots for place in root.glob(f"{prefix}*")}


def processes(hierarchies: Hierarchies, name: str) -> set[int]:
    """All processes that are in a group of that name or in one within it."""
    files = [file for root in hierarchies.roots for file in (root / name).rglob("cgroup.procs")]
    return {int(pid) for file in files for pid in file.read_text().split()}


def remove_group(hierarchies: Hierarchies, name: str) -> None:
    """Remove the group and those within it. Raises `OSError` while processes are in them."""
    for root in hierarchies.roots:
        place = root / name
        if place.is_dir():
            inner = sorted((path for path in place.rglob("*") if path.is_dir()), reverse=True)
            for path in (*inner, place):
                path.rmdir()
