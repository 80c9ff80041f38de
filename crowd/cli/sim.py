"""`crowd sim`: one training of a cluster file under virtual time."""

import time
from pathlib import Path

from rich.console import Console

from crowd.cli.experiments import RunScreen, devices_table, exit_code, model, read_experiment
from crowd.cli.files import check_writable, write_runs
from crowd.cli.terminal import hardly_trained_lines, idle_lines, summary
from crowd.experiment.experiment import backends, record
from crowd.formatting import seconds
from crowd.logs import logs_to_stderr


def sim(
    cluster: Path,
    /,
    *,
    task: str = "fashion",
    policy: str = "crowd_learning",
    seed: int = 0,
    target: float | None = None,
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
    target
        Train to this value of the task's metric, instead of to the task's own target.
    rounds_max
        Stop after so many rounds.
    json
        Write the figures of the run to this file.
    """
    experiment = read_experiment(cluster, task=task, policy=policy, seed=seed, target=target, rounds_max=rounds_max)
    if json is not None:
        check_writable(json)
    console = Console()
    logs_to_stderr()
    backend = backends.load("simulation")()
    began_s = time.monotonic()
    with RunScreen(console) as screen:
        outcome = backend.run(experiment, screen.round_done)
    wall_s = time.monotonic() - began_s
    run = record(experiment, outcome)
    if json is not None:
        write_runs(json, [run])
    console.print(devices_table(run, outcome))
    for line in idle_lines(outcome.idle) + hardly_trained_lines(outcome.hardly_trained):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"{summary(run, model(run))}; simulated in {seconds(wall_s)}", highlight=False, soft_wrap=True)
    return exit_code(experiment, outcome)
