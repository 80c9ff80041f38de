"""The work, as its user describes it."""

from collections.abc import Callable, Iterable
from typing import Any

import attrs
import torch


@attrs.frozen(kw_only=True)
class Task:
    """What is to be trained, on what, how. A user writes a function from the device's name to a `Task`.

    All devices give the same `model`, `evaluation`, `optimizer`, `loss` and numbers; each gives its own `data`.
    """

    model: Callable[[], torch.nn.Module]
    """Makes the network; its parameters and floating-point buffers must be float32."""
    data: "torch.utils.data.Dataset[Any]"
    """This device's own samples: map-style, of `(input, label)`; all inputs of one shape and dtype. May be empty."""
    evaluation: "torch.utils.data.Dataset[Any] | None" = None
    """The common evaluation set, the same on every device; `None`: each device holds out a tenth of its own data."""
    optimizer: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.nn.functional.cross_entropy
    """From `(outputs, labels)`, batch first, to a scalar."""
    batch_size: int = attrs.field(default=32, validator=attrs.validators.gt(0))
    target_accuracy: float = attrs.field(default=1.0, validator=[attrs.validators.gt(0.0), attrs.validators.le(1.0)])
    epochs_max: int = attrs.field(default=60, validator=attrs.validators.gt(0))
    name: str = "task"
