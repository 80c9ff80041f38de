"""Run the demonstration and draw its final screen: `python examples/maintenance/make_demo_picture.py docs/demo.svg`.

Its times are of this machine: nothing else should run meanwhile.
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import anyio
from rich.console import Console

from crowd.cli.demo.command import POLICIES, compare
from crowd.cli.demo.screen import final_screen
from crowd.cli.demo.setup import DemoSetup
from crowd.logs import logs_to_stderr

WIDTH = 100


def draw(path: Path, setup: DemoSetup, policies: Sequence[str] = POLICIES) -> None:
    """Run `policies` one after the other on the devices of `setup`, and write what is shown at the end as SVG."""
    runs = anyio.run(lambda: compare(setup, Console(), policies=policies))
    canvas = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    canvas.print(final_screen(runs), highlight=False)
    canvas.save_svg(str(path), title="crowd demo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="the picture")
    parser.add_argument("--devices", type=int, default=5, help="how many (default: 5, as crowd demo)")
    arguments = parser.parse_args()
    logs_to_stderr()
    draw(arguments.path, DemoSetup.of(arguments.devices, cluster="picture"))


if __name__ == "__main__":
    main()
