"""The files of devices that are played by processes of one machine: keys made for the occasion, the members' file, and
each device's `node.toml`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomli_w

from crowd.config.node_file import NodeConfig
from crowd.protocol.identity import generate_key, public_line, write_key


def write_files(directory: Path, configs: Iterable[NodeConfig]) -> dict[str, Path]:
    """Write all that the devices of `configs` need into `directory`, with a new key for each. Returns, by name, the
    file that each is started with."""
    paths, lines = {}, []
    for config in configs:
        key = generate_key()
        write_key(directory / f"{config.name}.key", key)
        lines.append(public_line(config.name, key))
        paths[config.name] = path = directory / f"{config.name}.toml"
        path.write_bytes(tomli_w.dumps(_tables(config)).encode())
    (directory / "members.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


def _tables(config: NodeConfig) -> dict[str, dict[str, Any]]:
    """The `node.toml` from which the device's process reads `config`, beside its key and the members' file."""
    tables: dict[str, dict[str, Any]] = {
        "node": {
            "name": config.name,
            "cluster": config.cluster,
            "broker": config.broker,
            "key_file": f"{config.name}.key",
            "members_file": "members.toml",
        },
        "train": {
            "task": config.task,
            "share": config.share.value,
            "policy": config.policy,
            "prefer": config.prefer.value,
            "seed": config.seed,
            "members_min": config.members_min,
            "uplink_mbps": config.uplink_mbps,
            "downlink_mbps": config.downlink_mbps,
        },
    }
    if config.data is not None:
        tables["data"] = {
            "partition": config.data.partition.value,
            "alpha": config.data.alpha,
            "part": config.data.part,
            "parts": config.data.parts,
        }
    return tables
