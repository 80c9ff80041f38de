from pathlib import Path

from crowd.units import MEBIBYTE
from devices.cgroup_limits import memory_free_bytes, processors
from tests.devices.lab.test_cgroups import outcome_of, real

READ = "from devices.sensors import MachineSensor; read = MachineSensor().read()\n"


def proc(tmp_path: Path, *, mounts: list[str], groups: list[str]) -> Path:
    """A process's directory in `/proc`; the mounts are below `tmp_path`."""
    folder = tmp_path / "proc"
    folder.mkdir()
    lines = [f"{30 + index} 23 0:28 {mount}" for index, mount in enumerate(mounts)]
    (folder / "mountinfo").write_text("\n".join(lines).replace("PLACE", str(tmp_path)) + "\n")
    (folder / "cgroup").write_text("\n".join(groups) + "\n")
    return folder


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_a_container_with_version_2_has_its_limits_at_the_root_of_its_mount(tmp_path: Path) -> None:
    process = proc(tmp_path, mounts=["/ PLACE/v2 rw,nosuid shared:9 - cgroup2 cgroup2 rw"], groups=["0::/"])
    write(
        tmp_path / "v2",
        memory__max=str(700 * MEBIBYTE),
        memory__current=str(300 * MEBIBYTE),
        memory__stat=f"anon 5\ninactive_file {100 * MEBIBYTE}\nactive_file 7",
        cpu__max="50000 100000",
    )
    assert memory_free_bytes(process) == 500 * MEBIBYTE, "files that can be dropped are free"
    assert processors(process) == 0.5


def test_the_narrowest_of_all_groups_around_counts(tmp_path: Path) -> None:
    mounts = ["/ PLACE/v2 rw - cgroup2 cgroup2 rw,nsdelegate"]
    process = proc(tmp_path, mounts=mounts, groups=["0::/system.slice/crowd.service"])
    write(tmp_path / "v2")  # the root of all has no limits, not even the files
    write(
        tmp_path / "v2" / "system.slice",
        memory__max="1000",
        memory__high="max",
        memory__current="900",
        memory__stat="inactive_file 0",
        cpu__max="max 100000",
    )
    write(
        tmp_path / "v2" / "system.slice" / "crowd.service",
        memory__max="max",
        memory__high="800",
        memory__current="500",
        memory__stat="inactive_file 0",
        cpu__max="20000 100000",
    )
    assert memory_free_bytes(process) == 100
    assert processors(process) == 0.2


def test_a_container_with_version_1_sees_its_group_mounted_as_a_root(tmp_path: Path) -> None:
    mounts = [
        "/docker/ab PLACE/memory ro - cgroup cgroup rw,memory",
        r"/docker/ab PLACE/cpu\040and\040more ro - cgroup cgroup rw,cpu,cpuacct",
    ]
    process = proc(tmp_path, mounts=mounts, groups=["4:memory:/docker/ab", "2:cpu,cpuacct:/docker/ab", "0::/"])
    write(
        tmp_path / "memory",
        memory__limit_in_bytes="1000",
        memory__usage_in_bytes="1200",
        memory__stat="inactive_file 1\ntotal_inactive_file 300",
    )
    write(tmp_path / "cpu and more", cpu__cfs_quota_us="25000", cpu__cfs_period_us="100000")
    assert memory_free_bytes(process) == 100
    assert processors(process) == 0.25


def test_without_limits_the_whole_machine_is_there(tmp_path: Path) -> None:
    mounts = ["/ PLACE/v2 rw - cgroup2 cgroup2 rw", "/ PLACE/cpu rw - cgroup cgroup rw,cpu"]
    process = proc(tmp_path, mounts=mounts, groups=["0::/", "1:cpu:/"])
    write(tmp_path / "v2", memory__max="max", memory__current="5", memory__stat="inactive_file 0")
    write(tmp_path / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    whole = processors(tmp_path / "no such process")
    assert whole >= 1.0
    assert whole == int(whole)
    assert (memory_free_bytes(process), processors(process)) == (None, whole)
    assert memory_free_bytes(tmp_path / "no such process") is None


@real
def test_a_device_in_a_group_of_this_machine_reads_what_the_group_leaves_it() -> None:
    limit_mib = 300
    said, _ = outcome_of(
        f"{READ}print(read.memory_free_bytes)", lambda group: group.limit_memory(more_bytes=limit_mib * MEBIBYTE)
    )
    assert (limit_mib - 100) * MEBIBYTE < int(said) <= (limit_mib + 1) * MEBIBYTE
    said, _ = outcome_of(f"{READ}print(read.processors)", lambda group: group.limit_cpu(0.5))
    assert float(said) == 0.5
