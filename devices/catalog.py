"""The catalog of kinds of devices and their abilities, from `catalog.toml` next to this file."""

from collections.abc import Mapping
from pathlib import Path

from crowd.config.cluster_file import DeviceKind
from crowd.config.toml import read_toml, structure

_FILE = Path(__file__).with_name("catalog.toml")


def load() -> Mapping[str, DeviceKind]:
    """Every kind of the catalog by its name. Raises `BadConfig` if the file is not right."""
    return structure(read_toml(_FILE), dict[str, DeviceKind], path=_FILE)
