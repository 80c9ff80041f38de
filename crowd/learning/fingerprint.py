"""The task's fingerprint: equal on two devices exactly if they can train together (docs/protocol.md#rules: fitness)."""

from typing import Any

import torch

from crowd.learning.layout import Layout
from crowd.learning.samples import SampleFormat, SampleSet
from crowd.learning.schedule import factor
from crowd.learning.task import Task
from crowd.planning.canonical import digest

_IMPLEMENTATION = frozenset({"params", "foreach", "fused", "capturable", "differentiable"})
"""Settings of an optimiser that choose how, not what, it computes: devices may differ in them."""
_EPOCHS_COMPARED = 1000


def fingerprint(
    task: Task, model: torch.nn.Module, form: SampleFormat, evaluation: SampleSet | None, layout: Layout
) -> bytes:
    """Digest of what replicas must have in common: task name; names, shapes and dtypes of the network's tensors, and
    which buffers training changes; sample format; loss; augmentation; optimiser class and settings, schedule; batch,
    target, epochs; content of the common evaluation set. Initial parameters and a device's own data do not count."""
    optimizer = task.optimizer(model.parameters())
    state = [*model.named_parameters(), *model.named_buffers()]
    changing = {slot.name for slot in layout.slots} | set(layout.counters)

    def role(name: str) -> list[str]:
        return [] if name in changing else ["constant"]

    return digest(
        [
            task.name,
            sorted([name, list(tensor.shape), str(tensor.dtype), *role(name)] for name, tensor in state),
            form,
            loss_name(task.loss),
            type(optimizer).__name__,
            [_settings(group) for group in optimizer.param_groups],
            [task.batch_size, repr(task.target_accuracy), task.epochs_max],
            evaluation.digest if evaluation is not None else b"",
            *([] if task.augment is None else [loss_name(task.augment)]),
            *([] if task.schedule is None else [_factors(task)]),
        ]
    )


def _factors(task: Task) -> list[str]:
    """What the schedule says at the start of each of the first epochs, rounded, as processors differ in the last
    bits."""
    return [f"{factor(task, float(epoch)):.5g}" for epoch in range(min(task.epochs_max, _EPOCHS_COMPARED))]


def loss_name(loss: Any) -> str:
    """The qualified name of a loss function; for any other callable that of its class."""
    name = getattr(loss, "__qualname__", None)
    return name if isinstance(name, str) else type(loss).__qualname__


def _settings(group: dict[str, Any]) -> list[list[str]]:
    """The settings of one parameter group, by `repr`, which distinguishes all that an optimiser takes: numbers, pairs,
    flags."""
    counted: list[list[str]] = [["params", str(len(group["params"]))]]
    return counted + sorted([name, repr(value)] for name, value in group.items() if name not in _IMPLEMENTATION)
