"""One training of a cluster file, in simulation or in the lab: what is asked (`Experiment`), who can do it (`Backend`),
what came of it (`ExperimentResult`), and its `record` as JSON (docs/experiments.md)."""

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
from crowd.plugins import Group, subclass_of
from crowd.run_record import DeviceMetrics, Point, run_record
from crowd.units import DeviceId

WARM_UP_ROUNDS = 2
"""The first rounds, in which samples still move and speeds are still measured, say nothing of the balance."""

CORE_KFLOPS = 12_700_000
"""One processor of a 2-core virtual machine with AVX2, and `digits`, while the other one trains too."""

OnRound = Callable[[Point], None]
"""Called for each round of the cluster with what is known when the first device has completed it."""


@attrs.frozen(kw_only=True)
class Experiment:
    """What is to be trained, where and how. Raises `BadConfig` for a number that is out of range."""

    cluster: ClusterConfig
    kinds: Mapping[DeviceId, DeviceKind]
    """What each device can do."""
    task: str
    """A built-in task's name, or `module:function`."""
    policy: str
    seed: int = attrs.field(validator=validators.must("0 to 2^63 - 1", lambda value: 0 <= value < 1 << 63))
    target_accuracy: float | None = attrs.field(default=None, validator=validators.some_or_all)
    """`None`: the task's own."""
    rounds_max: int | None = attrs.field(default=None, validator=validators.at_least_one)
    """Stop after so many rounds; `None`: when the target is reached, or the task's largest number of epochs."""
    seconds_max: float | None = attrs.field(default=None, validator=validators.positive)
    """Stop so many seconds, by the cluster's clock, after its first plan with work; `None`: as above."""
    core_kflops: int = attrs.field(default=CORE_KFLOPS, validator=validators.at_least_one)
    """How fast the processor trains this task on which a message or a merge takes the time that the simulation states;
    on the devices these take as much longer as their training does."""


@attrs.frozen(kw_only=True)
class ExperimentResult:
    """How a trial went."""

    target_accuracy: float
    reached: bool
    """Whether all devices that were there at the end hold a state that meets the target."""
    devices: Mapping[str, DeviceMetrics]
    """Times from the cluster's first plan with work on."""
    compute_traces: Mapping[str, ComputeTrace]
    """On the same clock as the figures."""
    transfers: Mapping[str, LinkBusy] = attrs.field(factory=dict)
    """When each device's link was busy, on the same clock; empty where that is not known."""
    counted_bytes: Mapping[str, int] | None = None
    """What each device's node itself counted over its link, both ways, by the stated formula; `None` where the figures
    say just that."""
    told_kflops: Mapping[str, tuple[int, ...]] | None = None
    """The speeds that each device's node published, one after the other; `None` where they are just the cluster's."""
    plans: Mapping[PlanSummary, float] = attrs.field(factory=dict)
    """All plans with work that any device followed, and when the first one began to."""


@attrs.frozen(kw_only=True)
class ScaledExperiment:
    """An experiment as a backend can run it."""

    experiment: Experiment
    slower: float
    """How many times as long as on the devices themselves it takes: the backend's clock goes so much slower."""


class Backend(abc.ABC):
    """Where a cluster can be trained; in the entry-point group `crowd.backends`."""

    def scale(self, experiment: Experiment) -> ScaledExperiment:
        """`experiment` as `run` will run it: as it is, unless this backend has limits. What fits already is left as it
        is. Raises `BadConfig` for an experiment that this backend cannot run at all."""
        return ScaledExperiment(experiment=experiment, slower=1.0)

    @abc.abstractmethod
    def run(self, experiment: Experiment, report: OnRound) -> ExperimentResult:
        """Train to the end. Raises `BadConfig` for a task, a policy or a cluster that cannot work; `KeyboardInterrupt`
        passes through when all that was started has ended."""


backends: Group[type[Backend]] = Group("crowd.backends", "backend", "subclass of Backend", subclass_of(Backend))


def part_of(cluster: ClusterConfig, index: int, task: str) -> DataConfig | None:
    """The part of a built-in task's data set that the device at `index` of the file plays the owner of; a task of the
    user's own brings its own data: `None`."""
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
        target_accuracy=outcome.target_accuracy,
        reached=outcome.reached,
        balance_efficiency=_balance(outcome),
    )


def _balance(outcome: ExperimentResult) -> float | None:
    """From the end of the warm-up until the end of the last round, each where it came first: a device that only waits
    for its copy may lag behind those that train."""
    ends_s: dict[int, float] = {}
    for metrics in outcome.devices.values():
        for point in metrics.curve:
            ends_s[point.round] = min(point.elapsed_s, ends_s.get(point.round, math.inf))
    if WARM_UP_ROUNDS not in ends_s or max(ends_s) <= WARM_UP_ROUNDS:
        return None
    return balance_efficiency(
        outcome.compute_traces.values(), from_s=ends_s[WARM_UP_ROUNDS], until_s=ends_s[max(ends_s)]
    )
