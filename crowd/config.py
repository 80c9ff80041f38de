"""What people write in files: `NodeConfig` (one device), `ClusterConfig` (many, for `sim`, `lab`, `plan` and `bench`)
and `DeviceKind` (an entry of the catalog).

The classes raise `BadConfig` for what is out of range, the readers for all else that a file can get wrong.
"""

import enum
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from crowd import limits
from crowd.errors import BadConfig
from crowd.hints import did_you_mean
from crowd.planning.profile import Prefer, Share
from crowd.strict_toml import read_toml, structure
from crowd.units import MEBIBYTE

LINK_MBPS_ASSUMED = 10.0
"""The rate of a link of which nobody has said anything."""


class PartitionKind(enum.Enum):
    """How a data set is divided among devices."""

    IID = "iid"
    DIRICHLET = "dirichlet"
    """Label skew: each label is divided in proportions drawn from Dirichlet(alpha)."""
    SUBJECT = "subject"
    """One person's recordings per device, where the data set has subjects."""


def bytes_per_second(mbps: float) -> int:
    """Megabits per second as bytes per second, in integers as planning needs them."""
    return round(mbps * 125_000)


# --- one device -------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class PartitionConfig:
    """How the data set of a built-in task is divided."""

    partition: PartitionKind = attrs.field(default=PartitionKind.IID, converter=PartitionKind)
    alpha: float = attrs.field(default=0.3, validator=limits.positive)
    """Of the Dirichlet distribution: the smaller, the more the labels are skewed."""


@attrs.frozen(kw_only=True)
class DataConfig(PartitionConfig):
    """The part of a built-in task's data set that this device plays the owner of."""

    part: int = attrs.field(validator=limits.must("at least 0", lambda value: value >= 0))
    parts: int = attrs.field(validator=limits.at_least_one)

    def __attrs_post_init__(self) -> None:
        if self.part >= self.parts:
            raise BadConfig(f"part: expected less than parts ({self.parts}), found {self.part} (parts count from 0)")


@attrs.frozen(kw_only=True)
class NodeConfig:
    """All that one device needs to know to take part. In a `node.toml` the keys up to `state_dir` are in `[node]`,
    those from `task` on in `[train]`, and `data` is `[data]`."""

    name: str = attrs.field(validator=limits.identifier)
    """This device's ID, unique in its cluster."""
    cluster: str = attrs.field(validator=limits.identifier)
    broker: str = attrs.field(validator=limits.must("a URL as 'mqtt://host:1883'", lambda url: "://" in url))
    username: str | None = attrs.field(default=None, validator=limits.not_empty)
    password_file: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    """Holds the password and nothing else."""
    ca_file: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    """The certificates that the broker's is checked against, in PEM; `None`: those of the system."""
    key_file: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    """This device's Ed25519 key."""
    members_file: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    """The public keys of all members: TOML, `name = "public key"`."""
    state_dir: Path = attrs.field(default=Path("state"), converter=Path)

    task: str = attrs.field(default="digits", validator=limits.not_empty)
    """A task's name or `module:function`."""
    share: Share = attrs.field(default=Share.RAW, converter=Share)
    policy: str = attrs.field(default="crowd_learning", validator=limits.not_empty)
    prefer: Prefer = attrs.field(default=Prefer.TIME, converter=Prefer)
    seed: int = attrs.field(default=0, validator=limits.must("0 to 2^63 - 1", lambda value: 0 <= value < 1 << 63))
    """Devices of one seed begin with the same network; to others it is sent."""
    members_min: int = attrs.field(default=2, validator=limits.at_least_one)
    """A run starts as soon as so many devices are there."""
    cpu_share_max: float = attrs.field(default=0.8, validator=limits.some_or_all)
    uplink_mbps: float = attrs.field(default=LINK_MBPS_ASSUMED, validator=limits.positive)
    downlink_mbps: float = attrs.field(default=LINK_MBPS_ASSUMED, validator=limits.positive)

    data: DataConfig | None = None
    """`None`: a built-in task gives this device the whole data set; a task of your own brings its own data."""

    def read_password(self) -> str | None:
        """What `password_file` holds, without the newline at its end. Raises `BadConfig` if it cannot be read."""
        if self.password_file is None:
            return None
        try:
            return self.password_file.read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfig(f"password_file: {self.password_file} cannot be read: {error}") from error

    @property
    def uplink_bytes_s(self) -> int:
        return bytes_per_second(self.uplink_mbps)

    @property
    def downlink_bytes_s(self) -> int:
        return bytes_per_second(self.downlink_mbps)


_KEYS = [field.name for field in attrs.fields(NodeConfig) if field.name != "data"]
_SECTIONS: Mapping[str, list[str]] = {"node": _KEYS[: _KEYS.index("task")], "train": _KEYS[_KEYS.index("task") :]}
_REQUIRED: Mapping[str, str] = {
    "name": "what is this device called?",
    "cluster": "which cluster does it belong to?",
    "broker": 'where is the broker? As broker = "mqtt://host:1883"',
    "key_file": "make a key with 'crowd keys new NAME'",
    "members_file": "it lists every member's public key, as 'crowd keys show' prints it",
}


def read_node_config(path: Path) -> NodeConfig:
    """The device's own file. Relative paths in it are relative to it.

    Raises `BadConfig`, in one line, for anything that is not right; the files it names must exist, except `state_dir`.
    """
    tables = read_toml(path)
    config = structure(_flat(tables, path), NodeConfig, path=path)
    files: dict[str, Any] = {key: path.parent / file for key in _KEYS if isinstance(file := getattr(config, key), Path)}
    for key, file in files.items():
        if key != "state_dir" and not file.is_file():
            raise BadConfig(f"{path}: {key}: there is no file {file}{_hint(key)}")
    return attrs.evolve(config, **files)


def _hint(key: str) -> str:
    return f"; {_REQUIRED[key]}" if key in _REQUIRED else ""


def _flat(tables: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The keys of all sections in one table; each must be in its own section."""
    flat: dict[str, Any] = {}
    for section, table in tables.items():
        if section == "data":
            flat["data"] = table
            continue
        if section not in _SECTIONS:
            raise BadConfig(f"{path}: unknown key {section!r}; {did_you_mean(section, (*_SECTIONS, 'data'))}")
        if not isinstance(table, dict):
            raise BadConfig(f"{path}: {section}: expected a table [{section}]")
        for key, value in table.items():
            if key not in _SECTIONS[section]:
                raise BadConfig(f"{path}: unknown key {f'{section}.{key}'!r}; {_where_it_belongs(key, section)}")
            flat[key] = value
    for key in _REQUIRED:
        if key not in flat:
            raise BadConfig(f"{path}: the key {f'node.{key}'!r} is missing{_hint(key)}")
    return flat


def _where_it_belongs(key: str, section: str) -> str:
    for other, keys in _SECTIONS.items():
        if key in keys:
            return f"it belongs in [{other}]"
    return did_you_mean(key, _SECTIONS[section])


# --- many devices -----------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class DeviceKind:
    """What a kind of device can do. Rates in decimal units, memory in MiB."""

    train_gflops: float = attrs.field(validator=limits.positive)
    """Sustained while training small networks."""
    memory_mib: int = attrs.field(validator=limits.at_least_one)
    """Free for training, above the idle trainer process."""
    uplink_mbps: float = attrs.field(validator=limits.positive)
    downlink_mbps: float = attrs.field(validator=limits.positive)
    latency_ms: float = attrs.field(default=1.0, validator=limits.not_negative)
    half_duplex: bool = False
    """Whether both directions share one radio channel."""
    battery: bool = False
    source: str = ""
    """Where the figures come from."""

    @property
    def speed_kflops(self) -> int:
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

    name: str = attrs.field(validator=limits.identifier)
    kind: str | None = attrs.field(default=None, validator=limits.not_empty)
    train_gflops: float | None = attrs.field(default=None, validator=limits.positive)
    memory_mib: int | None = attrs.field(default=None, validator=limits.at_least_one)
    uplink_mbps: float | None = attrs.field(default=None, validator=limits.positive)
    downlink_mbps: float | None = attrs.field(default=None, validator=limits.positive)
    latency_ms: float | None = attrs.field(default=None, validator=limits.not_negative)
    half_duplex: bool | None = None
    battery: bool | None = None
    loss: float = attrs.field(default=0.0, validator=limits.not_all)
    """The fraction of packets that the link loses."""
    share: Share = attrs.field(default=Share.RAW, converter=Share)
    broker: bool = False
    """Whether the broker runs here; if on no device, on a wired machine of its own."""
    speed_schedule: tuple[tuple[float, float], ...] = ()
    """`(from_s, factor)`: from then on the device runs at that factor of its speed."""
    fails_at_s: tuple[float, ...] = attrs.field(default=(), validator=limits.times_s)
    returns_at_s: tuple[float, ...] = attrs.field(default=(), validator=limits.times_s)

    def __attrs_post_init__(self) -> None:
        times = tuple(time for time, _ in self.speed_schedule)
        if not limits.increasing(times) or any(
            time < 0 or not 0 < factor < math.inf for time, factor in self.speed_schedule
        ):
            raise BadConfig("speed_schedule: expected [time in s, factor above 0], each time later than the one before")
        failures = [(time, "fails") for time in self.fails_at_s] + [(time, "returns") for time in self.returns_at_s]
        words = [word for _, word in sorted(failures)]
        if any(word != ("fails", "returns")[place % 2] for place, word in enumerate(words)):
            raise BadConfig("returns_at_s: expected one return after each failure, before the next")

    def resolve(self, catalog: Mapping[str, DeviceKind]) -> DeviceKind:
        """What this device can do: its kind's figures, with its own in their place. Raises `BadConfig` if its kind is
        not in the `catalog`, or if without a kind a figure is missing."""
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
    data: PartitionConfig = PartitionConfig()
    devices: tuple[DeviceConfig, ...]
    """At least one; a device's part of the data is its place here."""


@attrs.frozen(kw_only=True)
class _ClusterTable:
    name: str = attrs.field(validator=limits.identifier)
    prefer: Prefer = Prefer.TIME


@attrs.frozen(kw_only=True)
class _ClusterFile:
    cluster: _ClusterTable
    data: PartitionConfig = PartitionConfig()
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
    """A cluster file. Raises `BadConfig`, in one line, for anything that is not right."""
    file = structure(read_toml(path), _ClusterFile, path=path)
    return ClusterConfig(name=file.cluster.name, prefer=file.cluster.prefer, data=file.data, devices=file.device)
