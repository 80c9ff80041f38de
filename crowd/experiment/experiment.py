"""One training of a cluster file, in simulation or in the lab: the settings (`Experiment`), where it runs (`Backend`),
the result (`ExperimentResult`), and its `record` as JSON (docs/experiments.md)."""

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from crowd.config import validators
from crowd.config.cluster_file import ClusterConfig, DeviceKind
from crowd.config.data import DataConfig
from crowd.experiment.balance import ComputeTrace, balance_efficiency
from crowd.experiment.metering import LinkBusy
from crowd.experiment.plan_summary import PlanSummary
from crowd.plugins import PluginGroup, subclass_of
from crowd.run_record import DeviceMetrics, Point, RunGoal, run_record
from crowd.units import DeviceId

WARM_UP_ROUNDS = 2
"""Rounds at the beginning, in which samples still move and speeds are still measured, that say nothing of the
balance."""

CORE_KFLOPS = 12_700_000
"""Speed of one processor of a 2-core virtual machine with AVX2 for `digits`, in kFLOP/s, while the other one trains
too."""


@attrs.frozen(kw_only=True)
class RoundReport:
    """What is known of a round of the cluster when the first device has completed it."""

    point: Point
    goal: RunGoal


OnRound = Callable[[RoundReport], None]
"""A function that is called for each round of the cluster."""


@attrs.frozen(kw_only=True)
class Experiment:
    """The settings of one training of a cluster. Raises `BadConfig` for a number that is out of range."""

    cluster: ClusterConfig
    """The cluster, as its file describes it."""
    kinds: Mapping[DeviceId, DeviceKind]
    """Abilities of each device, by its name: rates, memory and speed."""
    task: str
    """Name of a built-in task, or `module:function`."""
    policy: str
    """Entry-point name of the policy that plans, in the group `crowd.policies`."""
    seed: int = attrs.field(validator=validators.must("0 to 2^63 - 1", lambda value: 0 <= value < 1 << 63))
    """Seed of all that is drawn, 0 to 2^63 - 1."""
    target: float | None = attrs.field(default=None, validator=validators.finite)
    """Value of the task's metric that ends the run; `None`: the task's own, if it has one."""
    rounds_max: int | None = attrs.field(default=None, validator=validators.at_least_one)
    """Rounds after which the run stops; `None`: it stops at the target, or at the task's largest number of epochs."""
    seconds_max: float | None = attrs.field(default=None, validator=validators.positive)
    """Seconds, by the cluster's clock, after the first plan with work at which the run stops; `None`: no limit."""
    core_kflops: int = attrs.field(default=CORE_KFLOPS, validator=validators.at_least_one)
    """Speed, in kFLOP/s, at which the processor trains this task on which a message or a merge takes the time that the
    simulation states. On a slower device these take as much longer as its training does."""


@attrs.frozen(kw_only=True)
class ExperimentResult:
    """The result of an experiment."""

    goal: RunGoal
    reached: bool
    """Whether all devices that were there at the end hold a state that meets the target; without one, the state that
    the run ended in."""
    devices: Mapping[str, DeviceMetrics]
    """Metrics of each device, by name; times from the cluster's first plan with work on."""
    compute_traces: Mapping[str, ComputeTrace]
    """Compute trace of each device, by name, on the same clock as `devices`."""
    transfers: Mapping[str, LinkBusy] = attrs.field(factory=dict)
    """Times at which each device's link was busy, by name, on the same clock as `devices`; empty where they are not
    known."""
    counted_bytes: Mapping[str, int] | None = None
    """Bytes that each device's node itself counted over its link, both directions, by the stated formula; `None` where
    `devices` has just these."""
    told_kflops: Mapping[str, tuple[int, ...]] | None = None
    """Speeds that each device's node published, in kFLOP/s, one after the other; `None` where they are just the
    cluster's."""
    idle: Mapping[str, tuple[int, str]] = attrs.field(factory=dict)
    """Samples that nobody trains by the plan that was begun last, by device, and why."""
    hardly_trained: Mapping[str, tuple[int, str]] | None = None
    """Samples that were planned to be trained and hardly were, by device, and why; `None` where that is not known."""
    plans: Mapping[PlanSummary, float] = attrs.field(factory=dict)
    """All plans with work that any device followed, and the seconds at which the first device began to."""


@attrs.frozen(kw_only=True)
class ScaledExperiment:
    """An experiment as a backend can run it."""

    experiment: Experiment
    slower: float
    """Factor by which the backend's clock goes slower, so that the experiment takes so many times as long."""


class Backend(abc.ABC):
    """A place to train a cluster, simulated or real; found by name through the entry-point group `crowd.backends`."""

    def scale(self, experiment: Experiment) -> ScaledExperiment:
        """`experiment` as `run` will run it: unchanged, unless this backend has limits that it does not fit. Raises
        `BadConfig` for an experiment that this backend cannot run at all."""
        return ScaledExperiment(experiment=experiment, slower=1.0)

    @abc.abstractmethod
    def run(self, experiment: Experiment, report: OnRound) -> ExperimentResult:
        """Run the experiment to its end, and call `report` for each round. Raises `BadConfig` for a task, a policy or a
        cluster that cannot work; `KeyboardInterrupt` passes through when all that was started has ended."""


backends: PluginGroup[type[Backend]] = PluginGroup(
    "crowd.backends", "backend", "subclass of Backend", subclass_of(Backend)
)


def part_of(cluster: ClusterConfig, index: int, task: str) -> DataConfig | None:
    """The part of a built-in task's data set that the device at `index` of the file plays the owner of. `None` for a
    task of the user's own, which brings its own data."""
    if ":" in task:
        return None
    return DataConfig(
        partition=cluster.data.partition, alpha=cluster.data.alpha, part=index, parts=len(cluster.devices)
    )


def record(experiment: Experiment, outcome: ExperimentResult) -> dict[str, Any]:
    """The run as JSON (docs/experiments.md#the-figures-of-a-run)."""
    return run_record(
        outcome.devices,
        policy=experiment.policy,
        cluster=experiment.cluster.name,
        task=experiment.task,
        seed=experiment.seed,
        goal=outcome.goal,
        reached=outcome.reached,
        idle=outcome.idle,
        hardly_trained=outcome.hardly_trained,
        balance_efficiency=_balance(outcome),
    )


def _balance(outcome: ExperimentResult) -> float | None:
    """The balance efficiency from the end of the warm-up until the end of the last round, each where it came first: a
    device that only waits for its copy may lag behind those that train."""
    ends_s: dict[int, float] = {}
    for metrics in outcome.devices.values():
        for point in metrics.curve:
            ends_s[point.round] = min(point.elapsed_s, ends_s.get(point.round, math.inf))
    if WARM_UP_ROUNDS not in ends_s or max(ends_s) <= WARM_UP_ROUNDS:
        return None
    return balance_efficiency(
        outcome.compute_traces.values(), from_s=ends_s[WARM_UP_ROUNDS], until_s=ends_s[max(ends_s)]
    )
