"""The task that a user wants to be trained: `Task`."""

from collections.abc import Callable, Iterable
from typing import Any

import attrs
import torch


@attrs.frozen(kw_only=True)
class Task:
    """A training task: network, data, optimiser, loss and target.

    A user writes a function from the device's name to its `Task`.

    All devices give the same `model`, `evaluation`, `optimizer`, `loss` and numbers, or those in the minority are left
    out of the training; each gives its own `data`. The node reads the data once, into memory, and raises `BadConfig`,
    in one line, if something does not fit together.
    """

    model: Callable[[], torch.nn.Module]
    """Makes the network, on the CPU; its parameters and floating-point buffers must be float32.

    Called more than once; the network that a run begins with is made under a seed that follows from `NodeConfig.seed`.
    Its `forward` takes inputs (batch, *input_shape). Lazy layers must have been run once before it is returned.
    """
    data: "torch.utils.data.Dataset[Any]"
    """This device's own samples: a map-style dataset of `(input, label)`; may be empty.

    All inputs have one shape and dtype, all labels too; both are converted by `torch.as_tensor`, and labels that are
    single integers become int64. These, from 0 to 9999, are classes, by which plans spread the samples.
    """
    evaluation: "torch.utils.data.Dataset[Any] | None" = None
    """The common evaluation set, map-style and in the format of `data`, the same on every device. The devices divide
    its evaluation among them. `None`: each device holds out a tenth of its own data."""
    optimizer: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]
    """Makes the optimiser of a device's local steps from the network's parameters, as `lambda parameters:
    torch.optim.SGD(parameters, lr=0.05)`. Its `step` must work without a closure."""
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.nn.functional.cross_entropy
    """Makes a scalar from `(outputs, labels)`: the network's outputs (batch, …) and the labels (batch, *label_shape).
    Should average over the batch, as torch's losses do by default."""
    batch_size: int = attrs.field(default=32, validator=attrs.validators.gt(0))
    """Samples of one local step, unless the policy chooses another number."""
    target_accuracy: float = attrs.field(default=1.0, validator=[attrs.validators.gt(0.0), attrs.validators.le(1.0)])
    """Accuracy on the evaluation set, above 0 and at most 1, that ends the run when two evaluations in a row meet it.
    Counted by the largest output along the last axis: outputs (batch, ..., classes), labels (batch, ...)."""
    epochs_max: int = attrs.field(default=60, validator=attrs.validators.gt(0))
    """Epochs after which the run ends without reaching the target; an epoch is as many samples as are assigned to
    trainers."""
    name: str = "task"
    """Name of the task, part of what devices must have in common; also for logs and results."""
