"""The screen of a demonstration: who does what while it runs, and the comparison at the end.

Layout: `DemoScreen` (a terminal's live view, or plain lines where there is no terminal), `devices_table`, `comparison`,
`final_screen`.
"""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from crowd.cli.demo.run import DemoRun
from crowd.cli.live_view import LiveView
from crowd.cli.terminal import bar, progress_to
from crowd.formatting import quality, seconds, size

REFRESH_PER_SECOND = 4
SHORT_BAR_WIDTH = 12
TITLES = {"crowd_learning": "crowd", "fedavg": "FedAvg", "ship_once": "ship once"}


class DemoScreen(LiveView):
    """The demonstration's runs as they come: on a terminal a view that is drawn anew, else a line for every round."""

    def __init__(self, console: Console) -> None:
        self._races: list[DemoRun] = []
        live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
        )
        super().__init__(console, live)

    def begin(self, run: DemoRun) -> None:
        """Show this run from now on."""
        self._races.append(run)
        if not self._console.is_terminal:
            self._line(f"{TITLES[run.policy]}: the devices measure themselves")

    def round_done(self, run: DemoRun) -> None:
        """Show a round that was completed."""
        if not self._console.is_terminal:
            spent = f"{seconds(run.elapsed_s)}, {size(run.traffic_bytes)}"
            self._line(f"{TITLES[run.policy]}: round {run.rounds}, {_value(run)}, {spent}")

    def end(self, run: DemoRun) -> None:
        """Show that the run is over, or was stopped."""
        verdict = _verdict(run)
        if self._console.is_terminal:
            self._console.print(verdict, highlight=False)
        else:
            self._line(verdict)

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _draw(self) -> RenderableType:
        if not self._races:
            return Text("")
        run = self._races[-1]
        goal = run.goal
        head = Text.assemble((TITLES[run.policy], "bold"), f"   {seconds(run.elapsed_s)}   {size(run.traffic_bytes)}")
        progress = Table.grid(padding=(0, 1))
        progress.add_row(
            f"round {run.rounds}, {_value(run)} {goal.metric} of {_target(run)}",
            bar(progress_to(goal.target, run.value, better=goal.better), width=40),
        )
        return Group("", head, progress, devices_table(run), Text(run.why or "the devices measure themselves"))


def devices_table(run: DemoRun) -> Table:
    """The table of devices: samples of its own that each trains, borrows and lends; its processor's time; its link."""
    table = Table()
    table.add_column("device", no_wrap=True)
    table.add_column("GFLOP/s")
    for heading in ("own", "borrows", "lends"):
        table.add_column(heading, justify="right")
    table.add_column("busy")
    table.add_column("up", justify="right")
    table.add_column("down", justify="right")
    fastest = max(device.speed_kflops for device in run.setup.devices)
    for device in run.setup.devices:
        news = run.latest[device.name]
        busy = min(1.0, news.busy_s / news.elapsed_s) if news.elapsed_s else 0.0
        table.add_row(
            device.name,
            _bar(device.speed_kflops / fastest, f"{device.speed_kflops / 1e6:.2f}"),
            *(f"{count:,}" if count else "-" for count in (news.own, news.borrowed, news.lent)),
            _bar(busy, f"{busy:4.0%}"),
            size(news.bytes_up),
            size(news.bytes_down),
        )
    return table


def comparison(runs: Sequence[DemoRun]) -> Table:
    """The table of all runs against the first. One that was stopped has not reached the target: its time is
    right-censored, and its bytes are no comparison."""
    first = runs[0]
    table = Table(title=f"to {_target(first)} {first.goal.metric} on {len(first.setup.devices)} devices")
    table.add_column("", no_wrap=True)
    for heading in ("time", "x crowd", "bytes", "x crowd", "rounds", first.goal.metric):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        more = "" if run.reached else "> "
        table.add_row(
            TITLES[run.policy],
            more + seconds(run.elapsed_s),
            more + _ratio(run.elapsed_s, first.elapsed_s),
            size(run.traffic_bytes) if run.reached else "-",
            _ratio(run.traffic_bytes, first.traffic_bytes) if run.reached else "-",
            str(run.rounds),
            _value(run),
        )
    return table


def final_screen(runs: Sequence[DemoRun]) -> RenderableType:
    """The devices of the first run, all runs compared, and the models that they ended with."""
    first = runs[0]
    models = [
        f"{TITLES[run.policy]}: the same model on all {len(run.latest)} devices: {', '.join(map(str, run.digests))}"
        for run in runs
        if run.reached
    ]
    return Group(devices_table(first), first.why, "", comparison(runs), "", *models)


def _value(run: DemoRun) -> str:
    return "-" if run.value is None else quality(run.goal.metric, run.value)


def _target(run: DemoRun) -> str:
    return "-" if run.goal.target is None else quality(run.goal.metric, run.goal.target).replace(".0%", "%")


def _verdict(run: DemoRun) -> str:
    if run.reached:
        return f"{TITLES[run.policy]}: reached in {seconds(run.elapsed_s)}, {size(run.traffic_bytes)}"
    return f"{TITLES[run.policy]}: stopped after {seconds(run.elapsed_s)}, target not reached"


def _bar(fraction: float, label: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(bar(fraction, width=SHORT_BAR_WIDTH), label)
    return grid


def _ratio(value: float, first: float) -> str:
    return f"{value / first:.2f}" if first else "-"
