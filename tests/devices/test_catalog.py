from pathlib import Path

import pytest

from crowd.config.cluster_file import read_cluster_config
from devices.catalog import load

CLUSTERS = Path(__file__).parents[2] / "examples" / "clusters"


@pytest.mark.parametrize("name", sorted(load()))
def test_every_kind_says_where_its_figures_come_from(name: str) -> None:
    assert load()[name].source.startswith(("estimate: ", "https://"))


def test_newer_boards_of_a_family_are_faster() -> None:
    catalog = load()
    family = ["raspberry-pi-zero-2-w", "raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5"]
    speeds = [catalog[name].speed_kflops for name in family]
    assert speeds == sorted(speeds)


@pytest.mark.parametrize("path", sorted(CLUSTERS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_cluster_is_of_kinds_in_the_catalog(path: Path) -> None:
    cluster = read_cluster_config(path)
    assert cluster.name == path.stem
    assert all(device.resolve(load()).speed_kflops > 0 for device in cluster.devices)
