"""The task's fingerprint: equal on two devices exactly if they can train together (docs/protocol.md#rules: fitness)."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from crowd.learning.description import described, network_description, sketch
from crowd.learning.layout import Layout
from crowd.learning.samples import SampleFormat, SampleSet, as_bytes
from crowd.learning.schedule import factor
from crowd.learning.task import Task
from crowd.planning.canonical import digest
from crowd.planning.profile import FINGERPRINT_PARTS, PART_BYTES

_IMPLEMENTATION = frozenset({"params", "foreach", "fused", "capturable", "differentiable"})
"""Settings of an optimiser that choose how, not what, it computes: devices may differ in them."""
_EPOCHS_COMPARED = 1000


def fingerprint(
    task: Task,
    model: torch.nn.Module,
    form: SampleFormat,
    evaluation: SampleSet | None,
    layout: Layout,
    constants: Mapping[str, torch.Tensor],
    loss: Any,
) -> bytes:
    """Digests of what replicas must have in common, one for each of `FINGERPRINT_PARTS`, in that order.

    The network counts as it is printed, and by its `constants`, roughly; its tensors by name, shape and dtype, and by
    which buffers training changes;
    the loss by `loss`, its description before anything was tried with it; the optimiser by class and settings; the
    common evaluation set by format and labels. Initial parameters, the bits of inputs and a device's own data do not
    count. Raises `BadConfig` if the network cannot be printed.
    """
    optimizer = task.optimizer(model.parameters())
    parameters = len(list(model.parameters()))
    state = [*model.named_parameters(), *model.named_buffers()]
    changing = {slot.name for slot in layout.slots} | set(layout.counters)

    def role(name: str) -> list[str]:
        return [] if name in changing else ["constant"]

    parts: dict[str, Any] = {
        "name": task.name,
        "network": [network_description(model), [[name, sketch(constants[name])] for name in sorted(constants)]],
        "state": sorted([name, list(tensor.shape), str(tensor.dtype), *role(name)] for name, tensor in state),
        "samples": form,
        "loss": loss,
        "optimiser": [type(optimizer).__name__, *(_settings(group, parameters) for group in optimizer.param_groups)],
        "batch size": task.batch_size,
        "metric": [task.metric.name, task.metric.better, described(task.metric.sums), described(task.metric.value)],
        "target": repr(task.target),
        "patience": repr(task.patience),
        "epochs": task.epochs_max,
        "evaluation set": _labels(evaluation),
        "augmentation": described(task.augment),
        "schedule": _factors(task),
    }
    return b"".join(digest(parts[name])[:PART_BYTES] for name in FINGERPRINT_PARTS)


def _factors(task: Task) -> list[str]:
    """What the schedule says at the start of each of the first epochs, rounded, as processors differ in the last bits;
    empty without one."""
    if task.schedule is None:
        return []
    return [f"{factor(task, float(epoch)):.5g}" for epoch in range(min(task.epochs_max, _EPOCHS_COMPARED))]


def _labels(evaluation: SampleSet | None) -> list[Any]:
    """Number, format and labels of an evaluation set; not the bits of its inputs, which two kinds of processor may
    have worked out a little differently, nor those of labels that are no whole numbers."""
    if evaluation is None:
        return []
    exact = not evaluation.labels.is_floating_point()
    content = hashlib.blake2b(as_bytes(evaluation.labels).data).digest() if exact else b""
    return [len(evaluation), evaluation.format, content]


def _settings(group: dict[str, Any], parameters: int) -> list[list[str]]:
    """The settings of one parameter group, by `repr`, which distinguishes all that an optimiser takes: numbers, pairs,
    flags; and how many of the network's `parameters` it has, if not all."""
    count = len(group["params"])
    counted: list[list[str]] = [["params", "all" if count == parameters else str(count)]]
    return counted + sorted([name, repr(value)] for name, value in group.items() if name not in _IMPLEMENTATION)
