"""A device's own file, `node.toml`: `NodeConfig` and `read_node_config`.

`NodeConfig` raises `BadConfig` for what is out of range, the reader for all else that a file can get wrong.
"""

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from crowd.config import validators
from crowd.config.data import DataConfig
from crowd.config.hints import did_you_mean
from crowd.config.toml import read_toml, structure
from crowd.errors import BadConfig
from crowd.planning.profile import Prefer, Share
from crowd.units import bytes_per_second

LINK_MBPS_ASSUMED = 10.0
"""The rate of a link of which nobody has said anything."""
MODEL_FILE = "model.safetensors"
"""The trained network's file in the `state_dir`, once a run has ended."""


_PERIODS = {
    "m": datetime.timedelta(minutes=1),
    "h": datetime.timedelta(hours=1),
    "d": datetime.timedelta(days=1),
}
"""By the letter at the end of a time between runs."""


def _is_time(text: str) -> bool:
    return re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text) is not None


def _is_period(text: str) -> bool:
    return re.fullmatch(rf"[1-9]\d{{0,5}}[{''.join(_PERIODS)}]", text) is not None


@attrs.frozen(kw_only=True)
class NodeConfig:
    """The configuration of one device. Raises `BadConfig` for a value that is out of range.

    In a `node.toml` the keys up to `state_dir` are in `[node]`, those from `task` on in `[train]`, and `data` is
    `[data]`.

    Args:
        name: This device's ID, unique in its cluster.
        cluster: Name of the cluster that the device belongs to, the same on all its devices.
        broker: URL of the MQTT broker, as `mqtt://host:1883` or, over TLS, `mqtts://host:8883`.
        username: User name for the broker; `None`: the broker asks for none.
        password_file: File that holds the password for the broker and nothing else.
        ca_file: Certificates, in PEM, against which the broker's is checked; `None`: those of the system.
        key_file: File with this device's Ed25519 key, as `crowd keys new` makes it.
        members_file: File with the public keys of all members: TOML, `name = "public key"`.
        state_dir: Directory for what must outlive the process: the trained network, as `model.safetensors`, its card,
            as `model.json`, how often the device has started, as `life`, and how far the run has come, in `checkpoint`.
        task: Name of a built-in task, or `module:function`.
        share: The part of this device's data that may leave it: raw samples, features, or nothing but deltas.
        policy: Entry-point name of the policy that plans, in the group `crowd.policies`. That of the device with the
            lowest ID counts.
        prefer: The cost that plans should save first: time, bytes or energy. That of the device with the lowest ID
            counts.
        seed: Seed of the run's order and network, 0 to 2^63 - 1. Devices of one seed begin with the same network; to
            others it is sent.
        members_min: Devices that must be there for a run to start; the largest number that any of them asks for counts.
        device: What trains: `cpu`, `cuda`, `mps`, `auto` (an accelerator if there is one), or the entry-point name of
            another device, in the group `crowd.devices`. Small networks are often faster on the CPU.
        cpu_share_max: Part of the processors that torch may use under `crowd node`, above 0 and at most 1.
        accelerator_share_max: Part of the accelerator's memory that torch may use under `crowd node`, above 0 and at
            most 1.
        checkpoint_s: Seconds after which the last complete round is saved again, at least; what came later is trained
            anew if the power fails on all devices. Where writing would take over a hundredth of the time, or write over
            1 GB an hour, it is saved less often.
        at: Local time of day at which the next run begins, as `"02:00"`, or up to five minutes later, on all devices at
            once; with `every` on the day on which it is due by that. The device that is first begins it for all.
        every: Time from the end of a run to the next, as `"7d"`, `"12h"` or `"90m"`, and up to a twentieth of it more;
            with `at` whole days.
        when_new: Part by which the samples of the devices that are there must have grown since the last run, as `0.1`
            for a tenth more, for the next to begin. Without any of the three a run begins when somebody asks for it.
        uplink_mbps: Rate of the link to the broker, in Mbit/s, until it has been observed.
        downlink_mbps: Rate of the link from the broker, in Mbit/s, until it has been observed.
        data: This device's part of a built-in task's data set. `None`: the whole data set; a task of your own brings
            its own data.
    """

    name: str = attrs.field(validator=validators.identifier)
    cluster: str = attrs.field(validator=validators.identifier)
    broker: str = attrs.field(validator=validators.must("a URL as 'mqtt://host:1883'", lambda url: "://" in url))
    username: str | None = attrs.field(default=None, validator=validators.not_empty)
    password_file: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    ca_file: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    key_file: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    members_file: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    state_dir: Path = attrs.field(default=Path("state"), converter=Path)

    task: str = attrs.field(default="digits", validator=validators.not_empty)
    share: Share = attrs.field(default=Share.RAW, converter=Share)
    policy: str = attrs.field(default="crowd_learning", validator=validators.not_empty)
    prefer: Prefer = attrs.field(default=Prefer.TIME, converter=Prefer)
    seed: int = attrs.field(
        default=0,
        converter=validators.whole,
        validator=validators.must("0 to 2^63 - 1", lambda value: isinstance(value, int) and 0 <= value < 1 << 63),
    )
    members_min: int = attrs.field(default=2, converter=validators.whole, validator=validators.at_least_one)
    device: str = attrs.field(default="cpu", validator=validators.not_empty)
    cpu_share_max: float = attrs.field(default=0.8, validator=validators.some_or_all)
    accelerator_share_max: float = attrs.field(default=0.8, validator=validators.some_or_all)
    checkpoint_s: float = attrs.field(default=60.0, validator=validators.positive)
    at: str | None = attrs.field(default=None, validator=validators.must('a time as "02:00"', _is_time))
    every: str | None = attrs.field(
        default=None, validator=validators.must('a time as "7d", "12h" or "90m"', _is_period)
    )
    when_new: float | None = attrs.field(default=None, validator=validators.positive)
    uplink_mbps: float = attrs.field(default=LINK_MBPS_ASSUMED, validator=validators.positive)
    downlink_mbps: float = attrs.field(default=LINK_MBPS_ASSUMED, validator=validators.positive)

    data: DataConfig | None = None

    def __attrs_post_init__(self) -> None:
        if self.at is not None and self.every is not None and not self.every.endswith("d"):
            raise BadConfig(f"every: expected whole days, as 'at' is given too, found {self.every!r}")

    @property
    def at_time(self) -> datetime.time | None:
        """Local time of day at which the next run begins."""
        return None if self.at is None else datetime.time.fromisoformat(self.at)

    @property
    def period(self) -> datetime.timedelta | None:
        """Time from the end of a run to the next."""
        return None if self.every is None else int(self.every[:-1]) * _PERIODS[self.every[-1]]

    def read_password(self) -> str | None:
        """The content of `password_file`, without a byte order mark and the newline at its end; `None` without a file.
        Raises `BadConfig` if it cannot be read."""
        if self.password_file is None:
            return None
        try:
            return self.password_file.read_text(encoding="utf-8-sig").removesuffix("\n")
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
    """The configuration in the file `path`. Relative paths in it are relative to it.

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
