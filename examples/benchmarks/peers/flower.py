"""Train a cluster file with Flower's FedAvg, on this machine as `crowd lab` plays its devices.

    sudo .venv/bin/python examples/benchmarks/peers/flower.py CLUSTER --task digits [--compare]
        [--rounds-max R] [--json F]

Needs what `crowd lab` needs, and `make peers`. The figures have the keys of every run, with the policy "flower-fedavg".
With `--compare`, `crowd lab` trains the same cluster first, with the policy `fedavg`, and one table shows both.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from flower_lab import FlowerLab
from rich.console import Console
from rich.table import Table

from crowd.cli.experiments import RunScreen, devices_table, exit_code, read_experiment
from crowd.cli.files import check_writable, write_runs
from crowd.cli.lab import pace
from crowd.cli.main import report
from crowd.errors import INTERRUPTED
from crowd.experiment.experiment import Backend, ExperimentResult, ScaledExperiment, backends, record
from crowd.formatting import quality, seconds, size
from crowd.logs import logs_to_stderr

FLOWER, CROWD = "flower-fedavg", "fedavg"


def main(words: Sequence[str] | None = None) -> int:
    """The exit code, as those of `crowd`."""
    try:
        return run(parser().parse_args(words))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        return report(error)


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description="A cluster file trained by Flower's FedAvg.")
    words.add_argument("cluster", type=Path, help="a cluster file")
    words.add_argument("--task", default="fashion", help="a built-in task, or module:function")
    words.add_argument("--seed", type=int, default=0, help="of the first state and of the order of the samples")
    words.add_argument("--target", type=float, help="train to this value instead of the task's own target")
    words.add_argument("--rounds-max", type=int, help="stop after so many rounds")
    words.add_argument("--json", type=Path, help="write the figures of all runs to this file")
    words.add_argument("--compare", action="store_true", help="run crowd's policy fedavg in the lab as well")
    return words


def run(arguments: argparse.Namespace) -> int:
    experiment = read_experiment(
        arguments.cluster,
        task=arguments.task,
        policy=CROWD,
        seed=arguments.seed,
        target=arguments.target,
        rounds_max=arguments.rounds_max,
    )
    if arguments.json is not None:
        check_writable(arguments.json)
    console = Console()
    logs_to_stderr()
    flower = FlowerLab()
    fit = flower.scale(experiment)
    console.print(pace(fit.slower), highlight=False, soft_wrap=True)
    runs = []
    if arguments.compare:
        lab = backends.load("lab")()
        runs.append(_train(console, lab, fit, policy=CROWD)[0])
        if arguments.json is not None:
            write_runs(arguments.json, runs)  # whatever becomes of the other one
    run, outcome = _train(console, flower, fit, policy=FLOWER)
    runs.append(run)
    if arguments.json is not None:
        write_runs(arguments.json, runs)
    console.print(comparison(runs))
    return exit_code(fit.experiment, outcome)


def _train(
    console: Console, backend: Backend, fit: ScaledExperiment, *, policy: str
) -> tuple[dict[str, Any], ExperimentResult]:
    """The record of one run; shows its rounds, and then its devices."""
    with RunScreen(console) as screen:
        outcome = backend.run(fit.experiment, screen.round_done)
    run = record(attrs.evolve(fit.experiment, policy=policy), outcome) | {"world": "lab", "slower": fit.slower}
    console.print(devices_table(run, outcome))
    return run, outcome


def comparison(runs: Sequence[dict[str, Any]]) -> Table:
    """The runs side by side."""
    table = Table(
        title=f"{runs[0]['cluster']}, {runs[0]['task']}, target {quality(runs[0]['metric'], runs[0]['target'])}"
    )
    table.add_column("policy")
    for run in runs:
        table.add_column(run["policy"], justify="right", no_wrap=True)
    for name, cells in rows(runs).items():
        table.add_row(name, *cells)
    return table


def rows(runs: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The cells of the comparison, by what they tell. A crowd round tells the value of the state before it, so that
    such a run has one round more than it needed."""
    ends_s = [run["curve"][-1][0] if run["curve"] else 0.0 for run in runs]
    rounds = [max(1, run["rounds"]) for run in runs]
    return {
        "rounds": [str(run["rounds"]) for run in runs],
        runs[0]["metric"]: [
            "-" if run["final_value"] is None else quality(run["metric"], run["final_value"]) for run in runs
        ],
        "time per round": [seconds(end_s / count) for end_s, count in zip(ends_s, rounds, strict=True)],
        "time to target": [seconds(run["seconds_to_target"]) if run["reached"] else "not reached" for run in runs],
        "bytes per round": [size(run["bytes_total"] // count) for run, count in zip(runs, rounds, strict=True)],
        "bytes": [size(run["bytes_total"]) for run in runs],
    }


if __name__ == "__main__":
    sys.exit(main())
