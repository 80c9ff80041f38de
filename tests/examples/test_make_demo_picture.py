"""The picture in the README: a real demonstration, drawn."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from crowd.cli.demo.setup import DemoDevice, DemoSetup
from examples.maintenance.make_demo_picture import draw

pytestmark = pytest.mark.alone

FAST = (
    DemoDevice(name="fast", speed_kflops=3_000_000, mbps=1000.0),
    DemoDevice(name="slow", speed_kflops=1_000_000, mbps=1000.0),
)


def test_a_picture_shows_who_did_what_and_the_comparison(tmp_path: Path) -> None:
    path = tmp_path / "demo.svg"
    draw(path, DemoSetup(devices=FAST, cluster="drawn"), policies=("crowd_learning", "ship_once"))
    shown = " ".join("".join(text.split()) for text in ElementTree.parse(path).getroot().itertext())
    for words in ("fast", "slow", "crowd", "ship", "to95%accuracyon2devices", "thesamemodelonall2devices"):
        assert words in shown
