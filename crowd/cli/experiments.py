"""The common parts of the commands that train a cluster file: `read_experiment` (the settings), `RunScreen` (a line for
each round), `devices_table`, `model` and `exit_code` (the result)."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from crowd import plugins
from crowd.cli.cluster import load_policy, read_cluster
from crowd.cli.live_view import LiveView
from crowd.cli.terminal import bar, progress_to, round_words
from crowd.errors import DONE, NOT_REACHED
from crowd.experiment.experiment import Experiment, ExperimentResult, RoundReport
from crowd.formatting import seconds, size


def read_experiment(
    cluster: Path, *, task: str, policy: str, seed: int, target: float | None, rounds_max: int | None
) -> Experiment:
    """The experiment that a command was asked for. Raises `BadConfig` for a file, a task or a policy that is of no
    use."""
    config, kinds = read_cluster(cluster)
    experiment = Experiment(
        cluster=config,
        kinds=kinds,
        task=task,
        policy=policy,
        seed=seed,
        target=target,
        rounds_max=rounds_max,
    )
    load_policy(policy)
    plugins.task_function(task)
    return experiment


def exit_code(experiment: Experiment, outcome: ExperimentResult) -> int:
    """The exit code of a command. Rounds that were asked for without a target are done when they are over."""
    asked_for_target = experiment.target is not None or experiment.rounds_max is None
    return NOT_REACHED if asked_for_target and not outcome.reached else DONE


class RunScreen(LiveView):
    """The progress of a run, round by round: on a terminal one line that is drawn anew, else a line for each."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, Live("the devices measure themselves", console=console, transient=True))

    def round_done(self, report: RoundReport) -> None:
        point, goal = report.point, report.goal
        words = round_words(point.round, goal.metric, point.value, point.loss)
        line = f"{words}  {seconds(point.elapsed_s):>9}  {size(point.traffic_bytes):>8}"
        if not self._console.is_terminal:
            self._console.print(line, highlight=False, soft_wrap=True)
            return
        grid = Table.grid(padding=(0, 2))
        if goal.target is None:
            grid.add_row(line)
        else:
            grid.add_row(line, bar(progress_to(goal.target, point.value, better=goal.better)))
        self._live.update(grid)


def devices_table(run: dict[str, Any], outcome: ExperimentResult) -> Table:
    """The table of devices: their processors' time, their links, the samples that they trained (each as often as it
    did)."""
    table = Table(title=f"{run['cluster']}, {run['task']}, {run['policy']}, seed {run['seed']}")
    table.add_column("device", no_wrap=True)
    for heading in ("busy", "idle", "up", "down", "samples"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, device in run["devices"].items():
        table.add_row(
            name,
            seconds(device["busy_s"]),
            seconds(device["idle_s"]),
            size(device["bytes_up"]),
            size(device["bytes_down"]),
            f"{outcome.devices[name].samples_trained:,}",
        )
    return table


def model(run: dict[str, Any]) -> str:
    """The digest of the state that the devices ended with, if it is the same on all."""
    digests = {digest for digest in run["model_digests"].values() if digest is not None}
    return digests.pop() if len(digests) == 1 else "in common: none"
