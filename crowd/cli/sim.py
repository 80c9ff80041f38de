"""`crowd sim`: one training of a cluster file under virtual time."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from crowd import plugins
from crowd.cli.cluster import load_policy, read_cluster
from crowd.cli.output import check_place, logs_to_stderr, summary, write_runs
from crowd.cli.shown import Shown
from crowd.runs import Point
from crowd.trial import Outcome, Trial, World, record
from crowd.units import SECOND_US
from crowd.wording import duration, size

DONE, NOT_REACHED = 0, 1
BAR_WIDTH = 40


def sim(
    cluster: Path,
    /,
    *,
    task: str = "fashion",
    policy: str = "crowd_learning",
    seed: int = 0,
    target_accuracy: float | None = None,
    rounds_max: int | None = None,
    json: Path | None = None,
) -> int:
    """Simulate one training of a cluster: real maths, simulated time and links.

    Parameters
    ----------
    cluster
        A cluster file.
    task
        A built-in task, or module:function.
    policy
        The policy that plans.
    seed
        Decides everything that is drawn; the same seed gives the same figures.
    target_accuracy
        Train to this accuracy, above 0 and at most 1, instead of the task's own.
    rounds_max
        Stop after so many rounds.
    json
        Write the figures of the run to this file.
    """
    trial = read_trial(
        cluster, task=task, policy=policy, seed=seed, target_accuracy=target_accuracy, rounds_max=rounds_max
    )
    if json is not None:
        check_place(json)
    console = Console()
    logs_to_stderr()
    world: World = plugins.load("crowd.worlds", "simulation")()
    began_s = time.monotonic()
    with Screen(console, trial) as screen:
        outcome = world.run(trial, screen.round_done)
    wall_s = time.monotonic() - began_s
    run = record(trial, outcome)
    if json is not None:
        write_runs(json, [run])
    console.print(devices_table(run, outcome))
    console.print(f"{summary(run, model(run))}; simulated in {seconds(wall_s)}", highlight=False, soft_wrap=True)
    return exit_code(trial, outcome)


def read_trial(
    cluster: Path, *, task: str, policy: str, seed: int, target_accuracy: float | None, rounds_max: int | None
) -> Trial:
    """What a command was asked for. Raises `BadConfig` for a file, a task or a policy that is of no use."""
    config, kinds = read_cluster(cluster)
    trial = Trial(
        cluster=config,
        kinds=kinds,
        task=task,
        policy=policy,
        seed=seed,
        target_accuracy=target_accuracy,
        rounds_max=rounds_max,
    )
    load_policy(policy)
    plugins.task_function(task)
    return trial


def exit_code(trial: Trial, outcome: Outcome) -> int:
    """Rounds that were asked for without a target are done when they are over."""
    asked_for_target = trial.target_accuracy is not None or trial.rounds_max is None
    return NOT_REACHED if asked_for_target and not outcome.reached else DONE


class Screen(Shown):
    """Shows each round as it comes: on a terminal one line that is drawn anew, else a line for each."""

    def __init__(self, console: Console, trial: Trial) -> None:
        super().__init__(console, Live("the devices measure themselves", console=console, transient=True))
        self._trial = trial

    def round_done(self, point: Point) -> None:
        accuracy = "   -  " if point.accuracy is None else f"{point.accuracy:6.1%}"
        line = f"round {point.round:3d}  {accuracy}  {seconds(point.elapsed_s):>9}  {size(point.traffic_bytes):>8}"
        if not self._console.is_terminal:
            self._console.print(line, highlight=False, soft_wrap=True)
            return
        target = self._trial.target_accuracy or 1.0
        grid = Table.grid(padding=(0, 2))
        grid.add_row(line, ProgressBar(total=target, completed=min(point.accuracy or 0.0, target), width=BAR_WIDTH))
        self._live.update(grid)


def devices_table(run: dict[str, Any], outcome: Outcome) -> Table:
    """What each device did: its processor's time, its link, the samples that it trained (each as often as it did)."""
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


def seconds(time_s: float) -> str:
    """`time_s` for people."""
    return duration(int(time_s * SECOND_US))
