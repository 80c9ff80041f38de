"""The record of a run as JSON (docs/experiments.md): `DeviceMetrics` of one device, `run_record` of all of them, and
`RunGoal`, what the run is for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from crowd.units import SECOND_US

if TYPE_CHECKING:
    from crowd.learning.task import Task
    from crowd.protocol.messages import ResultMessage


@attrs.frozen(kw_only=True)
class RunGoal:
    """What a run is for: its task's metric, which of two values of that is better, and the target, if it has one."""

    metric: str
    better: str
    target: float | None

    @classmethod
    def of(cls, task: "Task") -> "RunGoal":
        return cls(metric=task.metric.name, better=task.metric.better, target=task.target)


@attrs.frozen(kw_only=True)
class Point:
    """One completed round, as one device saw it."""

    round: int
    elapsed_s: float
    value: float | None
    """Value of the task's metric of the state before the round; `None` where there was none."""
    loss: float | None = None
    """Mean training loss in the round; `None` where nobody trained."""
    traffic_bytes: int
    """Bytes over this device's link, up and down."""


@attrs.frozen(kw_only=True)
class DeviceMetrics:
    """The metrics of one device in a run. `None`: not known here."""

    elapsed_s: float
    """Seconds until the run's end on this device."""
    away_s: float = 0.0
    """Seconds before the run's end in which the device was switched off."""
    busy_s: float | None
    """Seconds in which the device trained."""
    bytes_up: int
    bytes_down: int
    samples_trained: int | None
    """Samples that the device trained, each as often as it did."""
    generations: int | None
    """Plans that the device followed."""
    digest: str | None
    """Digest of the device's final state, in hexadecimal."""
    final_value: float | None = None
    """Value of the task's metric of the state that the run ended in; `None`: that of the last evaluation."""
    curve: tuple[Point, ...]
    """Completed rounds, in order."""


def metrics_of(result: "ResultMessage") -> DeviceMetrics:
    """The metrics that a device published at the end of its run."""
    return DeviceMetrics(
        elapsed_s=result.elapsed_us / SECOND_US,
        busy_s=result.busy_us / SECOND_US,
        bytes_up=result.bytes_up,
        bytes_down=result.bytes_down,
        samples_trained=result.samples_trained,
        generations=result.generations,
        digest=result.model_digest.hex(),
        final_value=result.value,
        curve=tuple(
            Point(
                round=point.round,
                elapsed_s=point.elapsed_us / SECOND_US,
                value=point.value,
                loss=point.loss,
                traffic_bytes=point.bytes_up + point.bytes_down,
            )
            for point in result.curve
        ),
    )


def run_record(
    devices: Mapping[str, DeviceMetrics],
    *,
    policy: str,
    cluster: str,
    task: str,
    seed: int,
    goal: RunGoal,
    reached: bool,
    idle: Mapping[str, tuple[int, str]],
    hardly_trained: Mapping[str, tuple[int, str]] | None,
    balance_efficiency: float | None = None,
) -> dict[str, Any]:
    """One run of `{"runs": [...]}`: times in seconds, sizes in bytes. A run ends with the round that meets the target,
    so its totals are those to the target. `reached`: whether it did; without a target, whether it came to its end.
    `idle`: for each device with samples that nobody trains, how many and why; `hardly_trained`: with samples that were
    planned to be trained and hardly were, `None` if that is not known. `balance_efficiency` is known only where
    every processor was watched."""
    rounds = _cluster_rounds(devices)
    evaluated = [point for point in rounds if point.value is not None]
    met = reached and goal.target is not None
    bytes_up = sum(metrics.bytes_up for metrics in devices.values())
    bytes_total = bytes_up + sum(metrics.bytes_down for metrics in devices.values())
    seconds_total = _seconds(max(metrics.elapsed_s for metrics in devices.values()))
    return {
        "policy": policy,
        "cluster": cluster,
        "task": task,
        "seed": seed,
        "metric": goal.metric,
        "better": goal.better,
        "target": goal.target,
        "reached": reached,
        "seconds_to_target": seconds_total if met else None,
        "seconds_total": seconds_total,
        "bytes_to_target": bytes_total if met else None,
        "bytes_total": bytes_total,
        "bytes_up": bytes_up,
        "rounds": max((point.round for metrics in devices.values() for point in metrics.curve), default=0),
        "samples_trained": _sum_if_known([metrics.samples_trained for metrics in devices.values()]),
        "final_value": _final_value(devices, evaluated),
        "curve": [[_seconds(point.elapsed_s), point.value, point.traffic_bytes] for point in evaluated],
        "loss_curve": [[_seconds(point.elapsed_s), point.loss] for point in rounds if point.loss is not None],
        "balance_efficiency": None if balance_efficiency is None else round(balance_efficiency, 4),
        "generations": _most([metrics.generations for metrics in devices.values()]),
        "idle": _with_reasons(idle),
        "hardly_trained": None if hardly_trained is None else _with_reasons(hardly_trained),
        "model_digests": {name: metrics.digest for name, metrics in sorted(devices.items())},
        "devices": {name: _device(metrics) for name, metrics in sorted(devices.items())},
    }


def cluster_curve(devices: Mapping[str, DeviceMetrics]) -> list[Point]:
    """The evaluated rounds: when the last device had completed each, and the bytes on all links until then."""
    return [point for point in _cluster_rounds(devices) if point.value is not None]


def _cluster_rounds(devices: Mapping[str, DeviceMetrics]) -> list[Point]:
    """The same of all rounds."""
    seen = {name: {point.round: point for point in metrics.curve} for name, metrics in devices.items()}
    numbers = sorted({number for points in seen.values() for number in points})
    latest: dict[str, Point] = {}
    curve = []
    for number in numbers:
        now = [points[number] for points in seen.values() if number in points]
        latest.update({name: points[number] for name, points in seen.items() if number in points})
        curve.append(
            Point(
                round=number,
                elapsed_s=max(point.elapsed_s for point in now),
                value=next((point.value for point in now if point.value is not None), None),
                loss=next((point.loss for point in now if point.loss is not None), None),
                traffic_bytes=sum(point.traffic_bytes for point in latest.values()),
            )
        )
    return curve


def _final_value(devices: Mapping[str, DeviceMetrics], evaluated: list[Point]) -> float | None:
    told = [metrics.final_value for metrics in devices.values() if metrics.final_value is not None]
    return told[0] if told else evaluated[-1].value if evaluated else None


def _with_reasons(found: Mapping[str, tuple[int, str]]) -> dict[str, list[int | str]]:
    return {name: list(samples_and_reason) for name, samples_and_reason in sorted(found.items())}


def _device(metrics: DeviceMetrics) -> dict[str, Any]:
    busy_s = metrics.busy_s
    return {
        "busy_s": None if busy_s is None else _seconds(busy_s),
        "idle_s": None if busy_s is None else _seconds(max(0.0, metrics.elapsed_s - metrics.away_s - busy_s)),
        "bytes_up": metrics.bytes_up,
        "bytes_down": metrics.bytes_down,
    }


def _sum_if_known(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _most(counts: list[int | None]) -> int | None:
    return max((count for count in counts if count is not None), default=None)


def _seconds(time_s: float) -> float:
    return round(time_s, 3)
