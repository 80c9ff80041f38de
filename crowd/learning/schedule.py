"""The learning rate in the course of a run: `factor`, and `Rates` of one optimiser."""

import math
from numbers import Real

import torch

from crowd.errors import BadConfig
from crowd.learning.task import Task
from crowd.user_code import blamed_on

BILLION = 1_000_000_000


def factor(task: Task, epochs: float) -> float:
    """The factor of the learning rate after so many epochs of the run, 1 without a schedule. Raises `BadConfig` if the
    task's function fails, or gives no number of at least 0."""
    if task.schedule is None:
        return 1.0
    with blamed_on("the task's schedule() failed"):
        value = task.schedule(epochs)
    if not isinstance(value, Real) or not 0 <= value < math.inf:
        raise BadConfig(f"the task's schedule() gave {value!r} for epoch {epochs:g}; expected a number of at least 0")
    return float(value)


class Rates:
    """The learning rates of an optimiser, of which each parameter group has its own. Raises `BadConfig` where the task
    has a schedule and a group has no learning rate."""

    def __init__(self, task: Task, optimizer: torch.optim.Optimizer) -> None:
        self._task = task
        self._optimizer = optimizer
        if task.schedule is None:
            return
        if not all("lr" in group for group in optimizer.param_groups):
            raise BadConfig(f"the optimiser {type(optimizer).__name__} has no lr that schedule could change")
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]

    def follow(self, epochs_ppb: int) -> None:
        """Set the rates for what follows after so many billionths of an epoch."""
        if self._task.schedule is None:
            return
        now = factor(self._task, epochs_ppb / BILLION)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = now * rate
