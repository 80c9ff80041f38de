"""Run the demonstration and draw its final screen: `python examples/maintenance/make_demo_picture.py docs/demo.svg`."""

import io
import sys

import anyio
from rich.console import Console

from crowd.cli.demo.command import compare
from crowd.cli.demo.screen import final_screen
from crowd.cli.demo.setup import DemoSetup
from crowd.logs import logs_to_stderr

WIDTH = 100


def main(path: str) -> None:
    logs_to_stderr()
    runs = anyio.run(lambda: compare(DemoSetup.of(5, cluster="picture"), Console()))
    canvas = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    canvas.print(final_screen(runs), highlight=False)
    canvas.save_svg(path, title="crowd demo")


if __name__ == "__main__":
    main(sys.argv[1])
