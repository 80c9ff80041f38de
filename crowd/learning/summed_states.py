"""Metrics of torchmetrics as metrics of a task: `as_metric`."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from crowd.errors import BadConfig
from crowd.metric_facts import HIGHER, LOWER
from crowd.metrics import Metric

_SUM = "dim_zero_sum"
"""Name of the function by which torchmetrics adds up a state."""


class SummedStates(Metric):
    """A metric of torchmetrics (https://lightning.ai/docs/torchmetrics), all of whose states are added up over
    batches. Nothing of torchmetrics is imported."""

    def __init__(self, metric: Any) -> None:
        """Take `metric`, of which a copy is kept. Raises `BadConfig` if a state of it is not a sum, if it does not say
        which values are better, or has none."""
        self.name = name = type(metric).__name__
        self._metric = copy.deepcopy(metric)
        self._states: Mapping[str, Any] = metric._defaults  # noqa: SLF001  # there is no public way to a state
        for state, default in self._states.items():
            reduction = metric._reductions[state]  # noqa: SLF001
            if not isinstance(default, Tensor) or getattr(reduction, "__name__", None) != _SUM:
                raise BadConfig(
                    f"the task's metric: the state {state} of {name} is not a sum over batches: choose another metric, "
                    "or other arguments of this one"
                )
        if not self._states:
            raise BadConfig(f"the task's metric: {name} has no states of its own: choose a single metric")
        if metric.higher_is_better is None:
            raise BadConfig(f"the task's metric: {name} does not say whether higher values are better: choose another")
        self.better = HIGHER if metric.higher_is_better else LOWER
        self.settings = [
            f"{key} = {value!r}"
            for key, value in sorted(vars(metric).items())
            if not key.startswith("_") and isinstance(value, bool | int | float | str)
        ]
        """Its own plain attributes, which all devices must have in common."""

    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """All states of a batch, one after the other, flat."""
        metric = self._fresh()
        # of its class: on the object lie wrappers that count calls and gather from processes of torch.distributed
        type(metric).update(metric, outputs, labels)
        for state, default in self._states.items():
            if getattr(metric, state).shape != default.shape:
                found, expected = tuple(getattr(metric, state).shape), tuple(default.shape)
                raise BadConfig(f"the state {state} of {self.name} becomes {found} from {expected}: it must stay")
        return torch.cat([getattr(metric, state).detach().double().reshape(-1) for state in self._states])

    def value(self, sums: Tensor) -> float:
        metric, start = self._fresh(), 0
        for state, default in self._states.items():
            part = sums[start : start + default.numel()]
            setattr(metric, state, part.to(default.dtype).reshape(default.shape))
            start += default.numel()
        value = torch.as_tensor(type(metric).compute(metric))
        if value.numel() != 1:
            raise BadConfig(
                f"the value of {self.name} is of shape {tuple(value.shape)}; expected one number: choose an average"
            )
        return float(value)

    def _fresh(self) -> Any:
        metric = copy.copy(self._metric)
        for state, default in self._states.items():
            setattr(metric, state, default.detach().clone())
        return metric


def as_metric(value: Any) -> Any:
    """`value` as a `Metric`, if it is one of torchmetrics, else as it is. Raises `BadConfig` like `SummedStates`."""
    names = ("_defaults", "_reductions", "update", "compute", "higher_is_better")
    looks_like_one = not isinstance(value, Metric | type) and all(hasattr(value, name) for name in names)
    return SummedStates(value) if looks_like_one else value
