"""The profiles that the devices of a cluster file would publish: `read_cluster`, `make_profiles`, `load_policy`."""

from collections.abc import Mapping
from pathlib import Path

from crowd import plugins
from crowd.config.cluster_file import ClusterConfig, DeviceKind, read_cluster_config
from crowd.errors import BadConfig
from crowd.experiment.experiment import part_of
from crowd.planning.policy import Policy
from crowd.planning.profile import Profile
from crowd.protocol.messages import PROTOCOL_VERSION
from crowd.units import DeviceId, Life, device_id


def read_cluster(path: Path) -> tuple[ClusterConfig, dict[DeviceId, DeviceKind]]:
    """The cluster of the file `path`, and the abilities of each of its devices by the catalog. Raises `BadConfig`."""
    cluster = read_cluster_config(path)
    catalog = plugins.catalogs.load("built-in")()
    try:
        return cluster, {device_id(device.name): device.resolve(catalog) for device in cluster.devices}
    except BadConfig as error:
        raise BadConfig(f"{path}: {error}") from error


def make_profiles(
    cluster: ClusterConfig, kinds: Mapping[DeviceId, DeviceKind], *, task: str, policy: str, seed: int = 0
) -> tuple[Profile, ...]:
    """The profiles that all devices would publish before a run, had they measured just what their `kinds` say. Reads
    the task's data.

    Raises `BadConfig` if the task or the policy cannot be used.
    """
    from crowd.learning.work import prepare  # loads torch, which a mistake in the file or --help need not wait for

    version = load_policy(policy).version
    profiles = []
    for index, device in enumerate(cluster.devices):
        name = device_id(device.name)
        kind, made = kinds[name], plugins.make_task(task, name, part_of(cluster, index, task))
        try:
            work = prepare(made, memory_bytes=kind.memory_bytes)
        except BadConfig as error:
            raise BadConfig(f"device {name!r}: {error}") from error
        profiles.append(
            Profile(
                device=name,
                life=Life(incarnation=0, boot=bytes(16)),
                revision=0,
                run=0,
                started=False,
                members_min=1,
                policy=policy,
                policy_version=version,
                protocol_version=PROTOCOL_VERSION,
                prefer=cluster.prefer,
                seed=seed,
                task=work.facts,
                speed_kflops=kind.speed_kflops,
                memory_bytes=kind.memory_bytes,
                uplink_bytes_s=kind.uplink_bytes_s,
                downlink_bytes_s=kind.downlink_bytes_s,
                link_assumed=False,
                share=device.share,
                data_epoch=0,
                label_counts=work.own.latest.store.label_counts,
            )
        )
    return tuple(profiles)


def load_policy(name: str) -> Policy:
    """The policy that is installed as `name`; raises `BadConfig`."""
    return plugins.policies.load(name)()
