"""The sandbox in which a lab works, and how nothing of it stays behind: `check_machine`, `Site`, `remove_leftovers`.

Everything that a lab makes has a name that begins with `PREFIX` and says which process made it, so that the next lab
can tell what belongs to one that has died.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from crowd.errors import BadConfig
from devices.lab import cgroups, netns
from devices.lab.cgroups import Group, Hierarchies, make_group
from devices.lab.netns import Net
from devices.lab.programs import find_program

PREFIX = "crowd-lab-"
GONE_S_MAX = 10.0
"""Seconds by which a process that was ended has gone."""

_log = structlog.get_logger(__name__)


def check_machine() -> Hierarchies:
    """The control groups of this machine. Raises `BadConfig`, in one line, on a machine that cannot be a lab."""
    if sys.platform != "linux":
        raise BadConfig(f"the lab needs Linux, found {sys.platform}; 'crowd sim' works everywhere")
    if os.geteuid() != 0:
        raise BadConfig("the lab needs root, for namespaces and limits: run it with sudo; 'crowd sim' needs none")
    for program, package in (("ip", netns.PACKAGE), ("tc", netns.PACKAGE), ("mosquitto", "mosquitto")):
        find_program(program, package=package)
    return cgroups.find_hierarchies(Path("/proc/mounts").read_text(encoding="utf-8").splitlines())


class Site:
    """A network, control groups and a directory of this process, gone when the context is left."""

    def __init__(self, hierarchies: Hierarchies) -> None:
        self._hierarchies = hierarchies
        self._name = owner_name(os.getpid())

    def __enter__(self) -> Self:
        try:
            self.net = Net(self._name)
            make_group(self._hierarchies, self._name).take_precedence()
            self.directory = Path(tempfile.mkdtemp(prefix=f"{self._name}-"))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def group(self, host: str) -> Group:
        """Make a control group for what runs on that host."""
        return make_group(self._hierarchies, f"{self._name}/{host}")

    def _remove(self) -> None:
        _remove(self._hierarchies, self._name)


def owner_name(pid: int) -> str:
    """The beginning of the names of all that process `pid` makes. A number that is used again starts at another
    time."""
    return f"{PREFIX}{pid}-{_started(pid)}"


def remove_leftovers(hierarchies: Hierarchies) -> None:
    """End and remove all that labs have left behind which died before they could."""
    for name in sorted(_owners(hierarchies)):
        pid = int(name.removeprefix(PREFIX).partition("-")[0])
        if _started(pid) is None or owner_name(pid) != name:
            _log.warning("lab_leftovers_removed", lab=name)
            _remove(hierarchies, name)


def _owners(hierarchies: Hierarchies) -> set[str]:
    names = netns.namespaces(prefix=PREFIX) | cgroups.groups(hierarchies, prefix=PREFIX)
    names |= {path.name for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*")}
    parts = (name.removeprefix(PREFIX).split("-") for name in names)
    return {f"{PREFIX}{pid}-{started}" for pid, started, *_ in parts if pid.isdigit() and started.isdigit()}


def _remove(hierarchies: Hierarchies, name: str) -> None:
    hosts = netns.namespaces(prefix=f"{name}-")
    until_s = time.monotonic() + GONE_S_MAX
    while pids := cgroups.processes(hierarchies, name).union(*(netns.processes(host) for host in hosts)):
        if time.monotonic() > until_s:
            raise RuntimeError(f"processes of the lab do not end: {sorted(pids)}")
        for pid in pids:
            _kill(pid)
        time.sleep(0.02)
    for host in hosts:
        netns.remove_namespace(host)
    cgroups.remove_group(hierarchies, name)
    for path in Path(tempfile.gettempdir()).glob(f"{name}-*"):
        shutil.rmtree(path)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _started(pid: int) -> int | None:
    """The time at which a process was started, in ticks since the machine was; `None` if it is not there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
