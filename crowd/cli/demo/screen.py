"""What a demonstration shows: who does what while it runs, and the comparison at the end.

Layout: `Screen` (a terminal's live view, or plain lines where there is no terminal), `devices_table`, `comparison`,
`final_screen`.
"""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crowd.cli.demo.run import Race
from crowd.cli.live_view import Shown
from crowd.formatting import duration, size
from crowd.units import SECOND_US

REFRESH_PER_SECOND = 4
BAR_WIDTH = 12
TITLES = {"crowd_learning": "crowd", "fedavg": "FedAvg", "ship_once": "ship once"}


class Screen(Shown):
    """Shows the races as they come. On a terminal a view that is drawn anew; else a line for every round."""

    def __init__(self, console: Console) -> None:
        self._races: list[Race] = []
        live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
        )
        super().__init__(console, live)

    def begin(self, race: Race) -> None:
        """From now on this race is shown."""
        self._races.append(race)
        if not self._console.is_terminal:
            self._line(f"{TITLES[race.policy]}: the devices measure themselves")

    def round_done(self, race: Race) -> None:
        if not self._console.is_terminal:
            accuracy = "-" if race.accuracy is None else f"{race.accuracy:.1%}"
            spent = f"{_time(race.elapsed_s)}, {size(race.traffic_bytes)}"
            self._line(f"{TITLES[race.policy]}: round {race.rounds}, {accuracy}, {spent}")

    def end(self, race: Race) -> None:
        """The race is over, or was stopped."""
        verdict = _verdict(race)
        if self._console.is_terminal:
            self._console.print(verdict, highlight=False)
        else:
            self._line(verdict)

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _draw(self) -> RenderableType:
        if not self._races:
            return Text("")
        race = self._races[-1]
        target = race.target_accuracy
        accuracy = race.accuracy or 0.0
        head = Text.assemble((TITLES[race.policy], "bold"), f"   {_time(race.elapsed_s)}   {size(race.traffic_bytes)}")
        progress = Table.grid(padding=(0, 1))
        progress.add_row(
            f"round {race.rounds}, accuracy {accuracy:.1%} of {target:.1%}",
            ProgressBar(total=1.0, completed=min(1.0, accuracy / target) if target else 0.0, width=40),
        )
        return Group("", head, progress, devices_table(race), Text(race.why or "the devices measure themselves"))


def devices_table(race: Race) -> Table:
    """Who does what: samples of its own that a device trains, borrows and lends; its processor's time; its link."""
    table = Table()
    table.add_column("device", no_wrap=True)
    table.add_column("GFLOP/s")
    for heading in ("own", "borrows", "lends"):
        table.add_column(heading, justify="right")
    table.add_column("busy")
    table.add_column("up", justify="right")
    table.add_column("down", justify="right")
    fastest = max(device.speed_kflops for device in race.contest.devices)
    for device in race.contest.devices:
        news = race.latest[device.name]
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


def comparison(races: Sequence[Race]) -> Table:
    """All races against the first. One that was stopped has not reached the target: its time is a lower bound, and its
    bytes are no comparison."""
    first = races[0]
    table = Table(title=f"to {first.target_accuracy:.0%} accuracy on {len(first.contest.devices)} devices")
    table.add_column("", no_wrap=True)
    for heading in ("time", "x crowd", "bytes", "x crowd", "rounds", "accuracy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for race in races:
        more = "" if race.reached else "> "
        table.add_row(
            TITLES[race.policy],
            more + _time(race.elapsed_s),
            more + _ratio(race.elapsed_s, first.elapsed_s),
            size(race.traffic_bytes) if race.reached else "-",
            _ratio(race.traffic_bytes, first.traffic_bytes) if race.reached else "-",
            str(race.rounds),
            "-" if race.accuracy is None else f"{race.accuracy:.1%}",
        )
    return table


def final_screen(races: Sequence[Race]) -> RenderableType:
    """Who did what in the first race, all races compared, and the models that they ended with."""
    first = races[0]
    models = [
        f"{TITLES[race.policy]}: the same model on all {len(race.latest)} devices: {', '.join(map(str, race.digests))}"
        for race in races
        if race.reached
    ]
    return Group(devices_table(first), first.why, "", comparison(races), "", *models)


def _verdict(race: Race) -> str:
    if race.reached:
        return f"{TITLES[race.policy]}: reached in {_time(race.elapsed_s)}, {size(race.traffic_bytes)}"
    return f"{TITLES[race.policy]}: stopped after {_time(race.elapsed_s)}, target not reached"


def _bar(fraction: float, label: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=1.0, completed=fraction, width=BAR_WIDTH), label)
    return grid


def _ratio(value: float, first: float) -> str:
    return f"{value / first:.2f}" if first else "-"


def _time(time_s: float) -> str:
    return duration(int(time_s * SECOND_US))
