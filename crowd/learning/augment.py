"""A batch as it is trained: `augmented`, by the task's own function."""

import torch
from torch import Tensor

from crowd.errors import BadConfig
from crowd.learning.task import Task
from crowd.user_code import blamed_on


def augmented(task: Task, inputs: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What the task makes of a batch's `inputs` (batch, …) and `labels` (batch, …), which it may write into; all that
    it draws it draws from `generator`. Raises `BadConfig` if it fails, or makes something of another shape or dtype."""
    if task.augment is None:
        return inputs, labels
    given = [(tuple(tensor.shape), tensor.dtype) for tensor in (inputs, labels)]
    with blamed_on("the task's augment() failed"):
        made = task.augment(inputs, labels, generator)
    if not isinstance(made, tuple | list) or len(made) != 2 or not all(isinstance(part, Tensor) for part in made):
        raise BadConfig(f"the task's augment() returned a {type(made).__name__}; expected (inputs, labels), as tensors")
    for what, (shape, dtype), part in zip(("inputs", "labels"), given, made, strict=True):
        if (tuple(part.shape), part.dtype) != (shape, dtype):
            raise BadConfig(
                f"the task's augment() made {what} {tuple(part.shape)} {part.dtype} of {shape} {dtype}: keep them"
            )
    return made[0], made[1]
