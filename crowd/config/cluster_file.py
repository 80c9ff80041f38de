"""A cluster file, for the commands `sim`, `lab`, `plan` and `bench`: `ClusterConfig`, `DeviceConfig` (one device),
`DeviceKind` (an entry of the catalog) and `read_cluster_config`.

The classes raise `BadConfig` for what is out of range, the reader for all else that a file can get wrong.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import attrs

from crowd.config import validators
from crowd.config.data import PartitionConfig
from crowd.config.hints import did_you_mean
from crowd.config.toml import read_toml, structure
from crowd.errors import BadConfig
from crowd.planning.profile import Prefer, Share
from crowd.units import MEBIBYTE, bytes_per_second


@attrs.frozen(kw_only=True)
class DeviceKind:
    """The abilities of a kind of device. Rates in decimal units, memory in MiB."""

    train_gflops: float = attrs.field(validator=validators.positive)
    """Sustained speed while training small networks, in GFLOP/s."""
    memory_mib: int = attrs.field(validator=validators.at_least_one)
    """Memory free for training, above the idle trainer process."""
    uplink_mbps: float = attrs.field(validator=validators.positive)
    downlink_mbps: float = attrs.field(validator=validators.positive)
    latency_ms: float = attrs.field(default=1.0, validator=validators.not_negative)
    """Delay of the link, in each direction."""
    half_duplex: bool = False
    """Whether both directions share one radio channel."""
    battery: bool = False
    source: str = ""
    """Source of these numbers."""

    @property
    def speed_kflops(self) -> int:
        """Sustained training speed, in kFLOP/s."""
        return max(1, round(self.train_gflops * 1_000_000))

    @property
    def memory_bytes(self) -> int:
        return self.memory_mib * MEBIBYTE

    @property
    def uplink_bytes_s(self) -> int:
        return bytes_per_second(self.uplink_mbps)

    @property
    def downlink_bytes_s(self) -> int:
        return bytes_per_second(self.downlink_mbps)


@attrs.frozen(kw_only=True)
class DeviceConfig:
    """One `[[device]]` of a cluster file. `None` means: as the catalog says of its `kind`."""

    name: str = attrs.field(validator=validators.identifier)
    kind: str | None = attrs.field(default=None, validator=validators.not_empty)
    """Name of an entry of the catalog; `None`: the file gives all that the device can do."""
    train_gflops: float | None = attrs.field(default=None, validator=validators.positive)
    memory_mib: int | None = attrs.field(default=None, validator=validators.at_least_one)
    uplink_mbps: float | None = attrs.field(default=None, validator=validators.positive)
    downlink_mbps: float | None = attrs.field(default=None, validator=validators.positive)
    latency_ms: float | None = attrs.field(default=None, validator=validators.not_negative)
    half_duplex: bool | None = None
    battery: bool | None = None
    loss: float = attrs.field(default=0.0, validator=validators.not_all)
    """Fraction of packets that the link loses."""
    share: Share = attrs.field(default=Share.RAW, converter=Share)
    """The part of the device's data that may leave it."""
    broker: bool = False
    """Whether the broker runs on this device; if on no device, on a wired machine of its own."""
    speed_schedule: tuple[tuple[float, float], ...] = ()
    """Pairs `(from_s, factor)`: from that second on the device runs at that factor of its speed."""
    fails_at_s: tuple[float, ...] = attrs.field(default=(), validator=validators.times_s)
    """Seconds at which the device fails, ascending."""
    returns_at_s: tuple[float, ...] = attrs.field(default=(), validator=validators.times_s)
    """Seconds at which it returns, one after each failure, before the next."""

    def __attrs_post_init__(self) -> None:
        times = tuple(time for time, _ in self.speed_schedule)
        if not validators.increasing(times) or any(
            time < 0 or not 0 < factor < math.inf for time, factor in self.speed_schedule
        ):
            raise BadConfig("speed_schedule: expected [time in s, factor above 0], each time later than the one before")
        failures = [(time, "fails") for time in self.fails_at_s] + [(time, "returns") for time in self.returns_at_s]
        words = [word for _, word in sorted(failures)]
        if any(word != ("fails", "returns")[place % 2] for place, word in enumerate(words)):
            raise BadConfig("returns_at_s: expected one return after each failure, before the next")

    def resolve(self, catalog: Mapping[str, DeviceKind]) -> DeviceKind:
        """The abilities of this device: its kind's, with its own in their stead. Raises `BadConfig` if its kind is not
        in the `catalog`, or if without a kind a value is missing."""
        own = {
            field.name: value
            for field in attrs.fields(DeviceKind)
            if field.name != "source" and (value := getattr(self, field.name)) is not None
        }
        if self.kind is not None:
            if self.kind not in catalog:
                raise BadConfig(f"device {self.name!r}: unknown kind {self.kind!r}; {did_you_mean(self.kind, catalog)}")
            return attrs.evolve(catalog[self.kind], **own)
        for field in attrs.fields(DeviceKind):
            if field.default is attrs.NOTHING and field.name not in own:
                raise BadConfig(f"device {self.name!r}: the key {field.name!r} is missing; give it, or a kind")
        return DeviceKind(**own)


@attrs.frozen(kw_only=True)
class ClusterConfig:
    """A cluster that is simulated, emulated or planned for."""

    name: str
    prefer: Prefer = Prefer.TIME
    """The cost that plans should save first."""
    data: PartitionConfig = attrs.field(factory=PartitionConfig)
    """The division of the task's data set among the devices."""
    devices: tuple[DeviceConfig, ...]
    """The devices, at least one; a device's index here is its part of the data."""


@attrs.frozen(kw_only=True)
class _ClusterTable:
    name: str = attrs.field(validator=validators.identifier)
    prefer: Prefer = Prefer.TIME


@attrs.frozen(kw_only=True)
class _ClusterFile:
    cluster: _ClusterTable
    data: PartitionConfig = attrs.field(factory=PartitionConfig)
    device: tuple[DeviceConfig, ...]

    def __attrs_post_init__(self) -> None:
        if not self.device:
            raise BadConfig("device: expected at least one [[device]]")
        names = [device.name for device in self.device]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise BadConfig(f"device: expected names of their own, found {min(repeated)!r} more than once")
        if sum(device.broker for device in self.device) > 1:
            raise BadConfig("device: expected broker = true on one device at most")


def read_cluster_config(path: Path) -> ClusterConfig:
    """The cluster that the file `path` describes. Raises `BadConfig`, in one line, for anything that is not right."""
    file = structure(read_toml(path), _ClusterFile, path=path)
    return ClusterConfig(name=file.cluster.name, prefer=file.cluster.prefer, data=file.data, devices=file.device)
