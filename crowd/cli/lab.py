"""`crowd lab`: one training of a cluster file by real processes, beside what the simulation says of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from crowd.cli.experiments import RunScreen, devices_table, exit_code, model, read_experiment
from crowd.cli.files import check_writable, write_runs
from crowd.cli.terminal import summary
from crowd.experiment.experiment import Experiment, ExperimentResult, backends, record
from crowd.formatting import quality, seconds, size
from crowd.logs import logs_to_stderr
from crowd.run_record import cluster_curve
from crowd.units import SECOND_US

OWNERS_MAX = 2
"""Owners of slices that are named; of more, the number is given."""


def lab(
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
    """Train as a cluster of real processes, with limited links, processors and memory, and compare with the
    simulation. Linux only, as root.

    Parameters
    ----------
    cluster
        A cluster file.
    task
        A built-in task, or module:function.
    policy
        The policy that plans.
    seed
        Decides what the devices draw; real time is never the same twice.
    target
        Train to this value of the task's metric, instead of to the task's own target.
    rounds_max
        Stop after so many rounds.
    json
        Write the figures of the run, and those of the simulated one, to this file.
    """
    experiment = read_experiment(cluster, task=task, policy=policy, seed=seed, target=target, rounds_max=rounds_max)
    if json is not None:
        check_writable(json)
    console = Console()
    logs_to_stderr()
    backend = backends.load("lab")()
    scale = backend.scale(experiment)
    console.print(pace(scale.slower), highlight=False, soft_wrap=True)
    with RunScreen(console) as screen:
        measured = backend.run(scale.experiment, screen.round_done)
    run = _record(scale.experiment, measured, backend="lab", slower=scale.slower)
    if json is not None:
        write_runs(json, [run])  # even if the simulated run fails
    console.print("the same in simulation")
    simulation = backends.load("simulation")()
    with RunScreen(console) as screen:
        predicted = simulation.run(scale.experiment, screen.round_done)
    if json is not None:
        write_runs(json, [run, _record(scale.experiment, predicted, backend="simulation", slower=scale.slower)])
    console.print(devices_table(run, measured))
    console.print(counters_table(scale.experiment, measured))
    console.print(comparison(measured, predicted))
    console.print(plans_table({"lab": measured, "simulation": predicted}))
    console.print(summary(run, model(run)), highlight=False, soft_wrap=True)
    return exit_code(experiment, measured)


def pace(slower: float) -> str:
    """The factor by which a lab's cluster is slower than its file says, for people."""
    if slower == 1.0:
        return "all devices run at full speed"
    return f"played {slower:g} times slower: processors, links and clocks alike; times are the cluster's own"


def _record(experiment: Experiment, outcome: ExperimentResult, *, backend: str, slower: float) -> dict[str, Any]:
    """The run as in `crowd sim`, and its backend; the lab took `slower` times as long."""
    explaining = {
        "plans": [{"at_s": round(at_s, 3)} | planned.record() for planned, at_s in outcome.plans.items()],
        "told_kflops": None
        if outcome.told_kflops is None
        else {name: list(told) for name, told in outcome.told_kflops.items()},
    }
    return record(experiment, outcome) | {"world": backend, "slower": slower} | explaining


def counters_table(experiment: Experiment, outcome: ExperimentResult) -> Table:
    """The table that shows whether each device was what it should be: the speeds that its node published and that of
    its training, and its link's bytes by its interface beside those that its node counts."""
    table = Table(title="what the devices were")
    table.add_column("device", no_wrap=True)
    for heading in ("asked GFLOP/s", "told GFLOP/s", "found GFLOP/s", "interface", "counted"):
        table.add_column(heading, justify="right")
    for name, kind in experiment.kinds.items():
        spans = [span for span in outcome.compute_traces[name].spans if span.flops]
        busy_s = sum(span.ended_s - span.began_s for span in spans)
        found = f"{sum(span.flops for span in spans) / busy_s / 1e9:.4g}" if busy_s else "-"
        metrics = outcome.devices[name]
        counted = "-" if outcome.counted_bytes is None else size(outcome.counted_bytes[name])
        told = [f"{kflops / 1e6:.4g}" for kflops in (outcome.told_kflops or {}).get(name, ())]
        table.add_row(
            name,
            f"{kind.train_gflops:.4g}",
            ", ".join(told) or "-",
            found,
            size(metrics.bytes_up + metrics.bytes_down),
            counted,
        )
    return table


def plans_table(outcomes: Mapping[str, ExperimentResult]) -> Table:
    """The table of the plans that each backend followed: where they differ, so do time and bytes."""
    table = Table(title="plans")
    for heading in ("world", "from", "a round", "deltas", "merged by", "why"):
        table.add_column(heading, no_wrap=heading != "why")
    for backend, outcome in outcomes.items():
        for planned, at_s in outcome.plans.items():
            owners = ", ".join(dict(planned.slices)) if len(planned.slices) <= OWNERS_MAX else str(len(planned.slices))
            round_s = planned.round_us / SECOND_US
            table.add_row(backend, seconds(at_s), seconds(round_s), planned.encoding, owners, planned.why)
    return table


@attrs.frozen(kw_only=True)
class _Pace:
    """The means over the rounds that both backends completed."""

    round_s: float
    round_bytes: float
    value: float


def comparison(measured: ExperimentResult, predicted: ExperimentResult) -> Table:
    """The table of the real run beside the simulated one, over the rounds that both completed."""
    curves = [cluster_curve(outcome.devices) for outcome in (measured, predicted)]
    rounds = min((curve[-1].round if curve else 0) for curve in curves)
    table = Table(title=f"measured and predicted, over {rounds} rounds")
    for heading in ("per round", "lab", "simulation", "difference"):
        table.add_column(heading, justify="right" if heading != "per round" else "left")
    if rounds:
        lab, simulation = (
            _Pace(round_s=point.elapsed_s / rounds, round_bytes=point.traffic_bytes / rounds, value=point.value or 0.0)
            for point in (next(point for point in reversed(curve) if point.round <= rounds) for curve in curves)
        )
        table.add_row(
            "time", seconds(lab.round_s), seconds(simulation.round_s), _percent(lab.round_s, simulation.round_s)
        )
        table.add_row(
            "bytes",
            size(round(lab.round_bytes)),
            size(round(simulation.round_bytes)),
            _percent(lab.round_bytes, simulation.round_bytes),
        )
        metric = measured.goal.metric
        table.add_row(f"{metric} at the end", quality(metric, lab.value), quality(metric, simulation.value), "")
    return table


def _percent(value: float, base: float) -> str:
    return f"{value / base - 1:+.1%}" if base else "-"
