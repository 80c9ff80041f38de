"""The task that a user wants to be trained: `Task`."""

import contextlib
import math
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import torch

from crowd.config.validators import whole
from crowd.errors import BadConfig
from crowd.learning.summed_states import as_metric
from crowd.metric_facts import FRACTIONS
from crowd.metrics import Accuracy, Metric


def _must(expected: str, holds: Callable[[Any], bool]) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    def validate(_: Any, field: "attrs.Attribute[Any]", value: Any) -> None:
        if not holds(value):
            found = repr(value) if isinstance(value, str | float | int) else f"a {type(value).__name__}"
            raise BadConfig(f"the task's {field.name}: expected {expected}, found {found}")

    return validate


def _real(value: Any) -> Any:
    """`value` as a float, if it is a number of whatever type, else as it is."""
    with contextlib.suppress(TypeError, ValueError):
        return value if isinstance(value, str | bytes) else float(value)
    return value


def _is_target(task: "Task", field: "attrs.Attribute[Any]", value: Any) -> None:
    """Raise `BadConfig` for what no value of the task's metric can be."""
    if value is not None and isinstance(task.metric, Metric):
        is_share = task.metric.name in FRACTIONS
        _must(
            f"a number above 0 and at most 1 for {task.metric.name}" if is_share else "a number",
            lambda value: isinstance(value, float) and (0 < value <= 1 if is_share else math.isfinite(value)),
        )(task, field, value)


def _is_count_or_none(value: Any) -> bool:
    return value is None or _is_count(value)


def _is_metric(value: Any) -> bool:
    return isinstance(value, Metric)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def _is_function(value: Any) -> bool:
    """Whether `value` makes something anew when it is called, which a network or an optimiser does not."""
    return callable(value) and not isinstance(value, torch.nn.Module)


def _is_own(value: Any) -> bool:
    return value is None or _is_loss(value)


def _is_loss(value: Any) -> bool:
    return callable(value) and not isinstance(value, type)


@attrs.frozen(kw_only=True)
class Task:
    """A training task: network, data, optimiser, loss, metric and target.

    A user writes a function from the device's name to its `Task`. All devices give the same `model`, `evaluation`,
    `optimizer`, `loss`, `augment` and numbers, or those in the minority are left out of the training; each gives its
    own `data`. The node reads all data into memory before it trains, tries the network on some of them, and raises
    `BadConfig`, in one line, if something does not fit together.

    Args:
        model: Makes the network, on the CPU; its parameters and floating-point buffers must be float32.
            Called more than once, for a new network each time; the one that a run begins with is made under a seed that
            follows from `NodeConfig.seed`. Its `forward` takes inputs (batch, *input_shape) and returns one tensor
            (batch, …), as loss and metric take it. All its tensors exist from the start: lazy layers have been run
            once. Buffers that a training step changes (running statistics, counters) are part of the shared state; the
            others (masks, position tables) are constants, and must be the same wherever the network is made.
        data: This device's own samples: a map-style dataset of `(input, label)`; may be empty, and others when the
            task is made anew (`Node.data_changed`). All inputs have one shape and dtype, all labels too; both are
            converted by `torch.as_tensor`, and labels that are single integers become int64. These, from 0 to 9999,
            are classes, by which plans spread the samples; quantities are floating-point numbers. Each sample is read
            before the training: what a dataset draws at random is drawn once for all epochs (see `augment`).
        evaluation: The common evaluation set, map-style and in the format of `data`, the same on every device.
            The devices divide its evaluation among them. `None`: each device holds out about a tenth of its own data,
            the same samples after a restart and as data grow, and evaluates states on it, even if it only lends.
        series_gap: Says that `data` are a series, in order of time, and how many samples must lie between what is
            trained and what is held out, as `gap` of scikit-learn's `TimeSeriesSplit`: windows of 24 values from which
            the next 6 are told, one window for each step, have values in common up to the 29th neighbour, so 29. Whole
            stretches of the series are held out then, and what lies between is left out. `None`: any sample may be
            held out. Without effect where there is an evaluation set.
        optimizer: Makes the optimiser of a device's local steps from the network's parameters, as `lambda parameters:
            torch.optim.SGD(parameters, lr=0.05)`. Its `step` must work without a closure.
        loss: Makes a scalar from `(outputs, labels)`: the network's outputs (batch, …) and the labels
            (batch, *label_shape). Should average over the batch, as torch's losses do by default. A label that it
            ignores is seen by its attribute `ignore_index`, as of `CrossEntropyLoss`, and does not count in accuracy or
            macro F1 either. Class weights act as in torch, which divides by the sum of a batch's weights: in a batch of
            one class alone they cancel out, and a round's training loss is the mean of what the batches' losses were.
        augment: Changes each batch before it is trained: `(inputs, labels, generator) -> (inputs, labels)`.
            Inputs are (batch, *input_shape), labels (batch, *label_shape); both are copies, and keep shape and dtype.
            Called anew at every step, on the device that trains, whoever's samples they are; never in an evaluation.
            What it draws it draws from `generator`, a `torch.Generator` seeded by the device, the generation and the
            step. `None`: nothing is changed.
        schedule: Factor of the learning rate, by the epochs that the run has behind it (0.0 at its start), which all
            devices count alike: `lambda epochs: 0.5 ** (epochs / 10)`. Asked at the beginning of each round; of all
            parameter groups the `lr` that `optimizer` set is multiplied by it. `None`: 1.
        batch_size: Samples of one local step, unless the policy chooses another number.
        metric: How good a state is, on the evaluation set: one of `crowd.metrics`, a subclass of its `Metric`, or a
            metric of torchmetrics whose states are all summed. By default the accuracy of a classification: outputs
            (batch, ..., classes), class numbers (batch, ...) as labels.
        target: Value of the metric that ends the run when two evaluations in a row meet it. `None`: the run ends after
            `epochs_max` or `patience`, and keeps the best state that was evaluated.
        patience: Evaluations without an improvement that end a run without a target; `None`: as many as there are.
            With a target, and where a policy lets trainers keep parameters of their own, it has no effect.
        epochs_max: Epochs after which the run ends, at the target or not; an epoch is as many samples as are assigned
            to trainers.
        name: Name of the task, part of what devices must have in common; also for logs and results.
    """

    model: Callable[[], torch.nn.Module] = attrs.field(
        validator=_must("a function that makes the network, as `lambda: Network()`", _is_function)
    )
    data: "torch.utils.data.Dataset[Any]"
    evaluation: "torch.utils.data.Dataset[Any] | None" = None
    series_gap: int | None = attrs.field(
        default=None, converter=whole, validator=_must("a whole number above 0, or None", _is_count_or_none)
    )
    optimizer: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer] = attrs.field(
        validator=_must("a function that makes the optimiser, as `lambda parameters: SGD(parameters)`", _is_function)
    )
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = attrs.field(
        default=torch.nn.functional.cross_entropy,
        validator=_must("a function of outputs and labels, as `cross_entropy` or `CrossEntropyLoss()`", _is_loss),
    )
    augment: Callable[[torch.Tensor, torch.Tensor, torch.Generator], tuple[torch.Tensor, torch.Tensor]] | None = (
        attrs.field(default=None, validator=_must("a function of inputs, labels and a generator", _is_own))
    )
    schedule: Callable[[float], float] | None = attrs.field(
        default=None, validator=_must("a function of the epochs so far, as `lambda epochs: 0.9**epochs`", _is_own)
    )
    batch_size: int = attrs.field(default=32, converter=whole, validator=_must("a whole number above 0", _is_count))
    metric: Metric = attrs.field(
        factory=Accuracy,
        converter=as_metric,
        validator=_must("a metric, as `crowd.metrics.Accuracy()`", _is_metric),
    )
    target: float | None = attrs.field(default=None, converter=_real, validator=_is_target)
    patience: int | None = attrs.field(
        default=None, converter=whole, validator=_must("a whole number above 0, or None", _is_count_or_none)
    )
    epochs_max: int = attrs.field(default=60, converter=whole, validator=_must("a whole number above 0", _is_count))
    name: str = attrs.field(default="task", validator=_must("some text", lambda value: isinstance(value, str)))
