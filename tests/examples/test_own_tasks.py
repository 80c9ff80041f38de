"""Tasks as users write them train on a simulated home, whatever their metric is, to one model on all devices."""

import importlib
from typing import Any

import pytest

from crowd.cli.experiments import read_experiment
from crowd.experiment.experiment import record
from devices.simulation.backend import Simulation
from examples.maintenance.published_runs import ROOT

CLUSTER = ROOT / "examples" / "clusters" / "smart-home.toml"
TASKS = {"diabetes": (0.55, "lower"), "digit_traits": (0.85, "higher"), "rare_digit": (0.9, "higher")}
"""A value that every one of them comes to, and which is better."""


def trained(name: str, policy: str = "crowd_learning", seed: int = 0) -> dict[str, Any]:
    task = f"examples.own_tasks.{name}:task"
    asked = read_experiment(CLUSTER, task=task, policy=policy, seed=seed, target=None, rounds_max=None)
    return record(asked, Simulation().run(asked, lambda news: None))


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("diabetes", "crowd_learning"),
        ("diabetes", "fedavg"),
        ("digit_traits", "crowd_learning"),
        ("rare_digit", "crowd_learning"),
    ],
)
def test_a_task_with_a_metric_of_its_own_ends_with_its_best_state_on_all_devices(name: str, policy: str) -> None:
    enough, better = TASKS[name]
    run = trained(name, policy)
    task = importlib.import_module(f"examples.own_tasks.{name}").task("gateway")
    values = [value for _, value, _ in run["curve"]]
    best = min(values) if better == "lower" else max(values)
    assert run["reached"], "its end"
    assert (run["metric"], run["better"], run["target"]) == (task.metric.name, better, None)
    assert len(set(run["model_digests"].values())) == 1
    assert None not in run["model_digests"].values()
    assert run["final_value"] == best
    assert best <= enough if better == "lower" else best >= enough
    losses = [loss for _, loss in run["loss_curve"]]
    assert losses[-1] < losses[0]
