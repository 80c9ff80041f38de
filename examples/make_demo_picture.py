"""Run the demonstration and draw its final screen: `python examples/make_demo_picture.py docs/demo.svg`."""

import io
import sys

import anyio
from rich.console import Console

from crowd.cli.demo import compare
from crowd.cli.live import final_screen
from crowd.cli.output import logs_to_stderr
from crowd.cli.race import Contest

WIDTH = 100


def main(path: str) -> None:
    logs_to_stderr()
    races = anyio.run(lambda: compare(Contest.of(5, cluster="picture"), Console()))
    canvas = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    canvas.print(final_screen(races), highlight=False)
    canvas.save_svg(path, title="crowd demo")


if __name__ == "__main__":
    main(sys.argv[1])
