"""Control groups: where they are, what is written into those of version 2, and what the kernel makes of them here."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crowd.errors import BadConfig
from crowd.units import MEBIBYTE
from devices.lab import cgroups
from devices.lab.cgroups import Group, GroupV2, Hierarchies, bandwidth, find_hierarchies, make_group, remove_group

V1 = [
    "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0",
    "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0",
]
NAME = f"crowd-test-{os.getpid()}"
V2_FILES = {"cpu.max": "max 100000", "cpu.weight": "100", "memory.current": "5000", "memory.max": "max"}
"""What the kernel puts into a group whose parent passes both controllers down, and what it says there."""


def v2_mount(root: Path, controllers: str) -> str:
    """A line of `/proc/mounts`, and what is in that place."""
    (root / "cgroup.controllers").write_text(f"{controllers}\n")
    (root / "cgroup.subtree_control").write_text("")
    return f"cgroup2 {root} cgroup2 rw,nosuid 0 0"


@pytest.mark.parametrize("cores", [1.0, 0.9, 0.25, 0.1, 0.05, 0.013, 0.001])
def test_a_share_of_a_processor_is_a_quota_of_a_period_that_the_kernel_takes(cores: float) -> None:
    period_us, quota_us = bandwidth(cores)
    assert quota_us >= 1_000
    assert 10_000 <= period_us <= 1_000_000
    assert quota_us / period_us == pytest.approx(cores, rel=0.01)


# --- where they are ---------------------------------------------------------------------------------------------------


def test_control_groups_of_version_1_are_found_wherever_they_are_mounted() -> None:
    assert find_hierarchies(V1) == Hierarchies(
        version=1, cpu=Path("/sys/fs/cgroup/cpu,cpuacct"), memory=Path("/sys/fs/cgroup/memory")
    )


def test_control_groups_of_version_2_are_found_by_their_controllers(tmp_path: Path) -> None:
    found = find_hierarchies([v2_mount(tmp_path, "cpuset cpu io memory pids")])
    assert found == Hierarchies(version=2, cpu=tmp_path, memory=tmp_path)


def test_a_hybrid_machine_s_controllers_are_those_of_version_1(tmp_path: Path) -> None:
    assert find_hierarchies([v2_mount(tmp_path, "hugetlb"), *V1]).version == 1


def test_a_mount_of_version_2_that_is_hidden_or_has_a_part_of_the_tree_is_passed_over(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    for place in (whole, part):
        place.mkdir()
    hidden = f"cgroup2 {tmp_path} cgroup2 rw 0 0"
    assert find_hierarchies([hidden, v2_mount(part, "cpu"), v2_mount(whole, "cpu memory")]).cpu == whole


@pytest.mark.parametrize(
    ("controllers", "old", "expected"),
    [
        (None, [], r"found none; mount them with 'mount -t cgroup2"),
        (None, V1[:1], r"found cpu of version 1 in /sys/fs/cgroup/cpu,cpuacct; do not disable one"),
        ("cpu io pids", [], r"found cpu of version 2 in {place}; .*cgroup_enable=memory in /boot/firmware/cmdline.txt"),
        ("memory", V1[:1], r"found cpu of version 1 in \S+, memory of version 2 in {place}; .*without the other$"),
        ("hugetlb", [], r"found neither of version 2 in {place}; do not"),
    ],
)
def test_controllers_that_are_not_in_one_version_are_named(
    controllers: str | None, old: list[str], expected: str, tmp_path: Path
) -> None:
    mounts = old if controllers is None else [*old, v2_mount(tmp_path, controllers)]
    with pytest.raises(BadConfig, match=expected.format(place=tmp_path)) as caught:
        find_hierarchies(mounts)
    assert "\n" not in str(caught.value)


# --- what is written into a tree of version 2 -------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    v2_mount(tmp_path, "cpu memory")
    return tmp_path


def lab_of(tree: Path, *, swap: bool = True) -> tuple[Group, Group]:
    """A lab's group and a device's, with the files that the kernel would make."""
    hierarchies = Hierarchies(version=2, cpu=tree, memory=tree)
    lab, device = (make_group(hierarchies, name) for name in ("lab", "lab/device"))
    for place in (tree / "lab", tree / "lab" / "device"):
        for file, text in (V2_FILES | ({"memory.swap.max": "max"} if swap else {})).items():
            (place / file).write_text(text)
    return lab, device


def test_controllers_are_passed_down_to_the_devices_and_no_further(tree: Path) -> None:
    lab_of(tree)
    passed = {path.parent: path.read_text() for path in tree.rglob("cgroup.subtree_control")}
    assert passed == dict.fromkeys((tree, tree / "lab"), "+cpu +memory")


def test_a_group_where_no_limits_can_be_set_is_bad_input(tree: Path) -> None:
    control = tree / "cgroup.subtree_control"
    control.unlink()
    control.mkdir()  # writing into it fails, as it does while processes are in a group
    with pytest.raises(BadConfig, match=f"cannot limit processes in {tree}: Is a directory; run it outside"):
        lab_of(tree)
    assert not (tree / "lab").exists()


def test_a_share_of_a_processor_is_written_in_one_word_with_its_period_and_taken_back(tree: Path) -> None:
    _, device = lab_of(tree)
    file = tree / "lab" / "device" / "cpu.max"
    device.limit_cpu(0.25)
    assert file.read_text() == "2500 10000"
    device.limit_cpu(0.01)
    assert file.read_text() == "1000 100000"
    device.free_cpu()
    assert file.read_text() == "max"


def test_the_lab_has_the_greatest_weight_there_is(tree: Path) -> None:
    lab, _ = lab_of(tree)
    lab.take_precedence()
    weights = {name: (tree / name / "cpu.weight").read_text() for name in ("lab", "lab/device")}
    assert weights == {"lab": "10000", "lab/device": "100"}


@pytest.mark.parametrize("swap", [True, False])
def test_memory_is_limited_above_what_is_used_and_not_moved_to_swap(swap: bool, tree: Path) -> None:
    _, device = lab_of(tree, swap=swap)
    device.limit_memory(more_bytes=300)
    place = tree / "lab" / "device"
    assert (place / "memory.max").read_text() == "5300"
    files = {path.name for path in place.iterdir()}
    assert files == V2_FILES.keys() | ({"memory.swap.max"} if swap else set()), "only what the kernel has made"
    assert not swap or (place / "memory.swap.max").read_text() == "0"


# --- real ones: as root -----------------------------------------------------------------------------------------------

BURN = """
import time
end_s, begin_s = time.monotonic() + 1, time.process_time()
while time.monotonic() < end_s:
    pass
print(time.process_time() - begin_s)
"""
ALLOCATE = f"print(len(b'x' * {128 * MEBIBYTE}))"


def real(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that asks the kernel of this machine."""
    unable = sys.platform != "linux" or os.geteuid() != 0
    marked: Callable[..., None] = pytest.mark.skipif(unable, reason="needs Linux and root")(pytest.mark.alone(test))
    return marked


@contextmanager
def waiting(code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `code` when it is told something."""
    command = [sys.executable, "-c", f"input()\n{code}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def outcome_of(code: str, limit: Callable[[Group], None]) -> tuple[str, int]:
    """What `code` says and how it ends, in a group of this machine with that limit."""
    hierarchies = find_hierarchies(Path("/proc/mounts").read_text().splitlines())
    try:
        make_group(hierarchies, NAME).take_precedence()
        group = make_group(hierarchies, f"{NAME}/device")
        with waiting(code) as process:
            group.add(process.pid)
            assert cgroups.processes(hierarchies, NAME) == {process.pid}
            limit(group)
            said, _ = process.communicate("go\n")
        return said, process.returncode
    finally:
        remove_group(hierarchies, NAME)
        assert not cgroups.groups(hierarchies, prefix=NAME)


@real
def test_the_kernel_gives_a_group_the_share_of_a_processor_that_is_asked_for() -> None:
    limited_s = float(outcome_of(BURN, lambda group: group.limit_cpu(0.2))[0])
    free_s = float(outcome_of(BURN, Group.free_cpu)[0])
    assert 0.02 < limited_s < 0.3
    assert free_s > 1.5 * limited_s


@real
def test_the_kernel_ends_what_takes_more_memory_than_it_has() -> None:
    assert outcome_of(ALLOCATE, lambda group: group.limit_memory(more_bytes=16 * MEBIBYTE))[1] == -signal.SIGKILL
    assert outcome_of(ALLOCATE, lambda group: group.limit_memory(more_bytes=256 * MEBIBYTE))[1] == 0


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A real tree of version 2, which every kernel has; its controllers may be elsewhere."""
    mount = subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(tmp_path)], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip(f"no cgroup2 can be mounted: {mount.stderr.decode()}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@real
def test_a_real_group_of_version_2_holds_processes_and_is_removed_when_they_have_gone(mounted: Path) -> None:
    hierarchies = Hierarchies(version=2, cpu=mounted, memory=mounted)
    place = mounted / NAME / "device"
    place.mkdir(parents=True)
    try:
        with waiting("") as process:
            GroupV2(cpu=place, memory=place).add(process.pid)
            assert cgroups.groups(hierarchies, prefix=NAME) == {NAME}
            assert cgroups.processes(hierarchies, NAME) == {process.pid}
            with pytest.raises(OSError, match="busy"):
                remove_group(hierarchies, NAME)
    finally:
        remove_group(hierarchies, NAME)
    assert cgroups.groups(hierarchies, prefix=NAME) == set()


@real
def test_a_real_group_of_version_2_that_holds_processes_takes_no_groups_with_limits(mounted: Path) -> None:
    """Nor does one without the controllers, as on this machine perhaps."""
    hierarchies = Hierarchies(version=2, cpu=mounted, memory=mounted)
    place = mounted / NAME
    place.mkdir()
    try:
        with waiting("") as process:
            GroupV2(cpu=place, memory=place).add(process.pid)
            with pytest.raises(BadConfig, match=f"the lab cannot limit processes in {place}: "):
                make_group(hierarchies, f"{NAME}/device")
    finally:
        remove_group(hierarchies, NAME)
