"""How good a state is: `evaluate`, and `Quality`, which makes one value of what evaluations say."""

import math

import attrs
import torch
from torch import Tensor

from crowd.errors import MalformedMessage
from crowd.learning.evaluation import Evaluation, total
from crowd.learning.placement import CPU, Placement
from crowd.metrics import Metric
from crowd.user_code import blamed_on

EVALUATION_BATCH = 256
"""Samples of one forward pass of an evaluation."""


@torch.no_grad()
def evaluate(
    metric: Metric, model: torch.nn.Module, inputs: Tensor, labels: Tensor, placement: Placement = CPU
) -> Evaluation:
    """The sums of `metric` over the samples with these `inputs` (samples, …) and `labels` (samples, …), as `model`,
    which is where `placement` says, predicts them.

    Runs in evaluation mode and restores the mode of every layer. Raises `BadConfig` if the metric cannot take outputs
    and labels.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        pieces = zip(torch.split(inputs, EVALUATION_BATCH), torch.split(labels, EVALUATION_BATCH), strict=True)
        return total(
            _of_batch(metric, placement.here(model(placement.there(piece))), expected)
            for piece, expected in pieces
            if len(expected)
        )
    finally:
        for module in training:
            module.training = True


def _of_batch(metric: Metric, outputs: Tensor, labels: Tensor) -> Evaluation:
    sums = metric.sums(outputs, labels).to(torch.float64)
    return Evaluation(sums=tuple(sums.tolist()), samples=len(labels))


@attrs.frozen(kw_only=True)
class Quality:
    """What a task's evaluations are made of."""

    metric: Metric
    numbers: int
    """How many numbers its sums are."""
    label_elements: int
    """Numbers in one sample's label."""

    def check(self, sender: str, evaluation: Evaluation) -> None:
        """Raise `MalformedMessage` if what `sender` says cannot be an evaluation of this task."""
        sums, samples = evaluation.sums, evaluation.samples
        if samples < 0 or len(sums) != (self.numbers if samples else 0):
            raise MalformedMessage(f"{sender} evaluated {samples} samples, and says {len(sums)} numbers of them")
        if not all(map(math.isfinite, sums)):
            raise MalformedMessage(f"{sender} says sums of its evaluation that are not finite")
        if samples and not self._can_be(evaluation):
            raise MalformedMessage(f"{sender} says sums that {samples} samples cannot have by {self.metric.name}")

    def _can_be(self, evaluation: Evaluation) -> bool:
        with blamed_on(f"the metric {self.metric.name} cannot check sums"):
            labels = evaluation.samples * self.label_elements
            return self.metric.can_be(evaluation.sums, samples=evaluation.samples, labels=labels)

    def value(self, evaluation: Evaluation) -> float | None:
        """The metric's value; `None` where there is none, of no samples or by the metric itself."""
        if not evaluation.samples:
            return None
        with blamed_on(f"the metric {self.metric.name} has no value"):
            value = float(self.metric.value(torch.tensor(evaluation.sums, dtype=torch.float64)))
        return value if math.isfinite(value) else None
