"""The accuracy of a state, and how many evaluations in a row have met the target."""

import torch
from torch import Tensor

from crowd.errors import BadConfig
from crowd.learning.placement import CPU, Placement

EVALUATION_BATCH = 256
"""Samples of one forward pass of an evaluation."""


@torch.no_grad()
def evaluate(model: torch.nn.Module, inputs: Tensor, labels: Tensor, placement: Placement = CPU) -> int:
    """Count the samples of `inputs` (samples, …) whose labels (samples, …) the model, which is where `placement` says,
    predicts.

    The largest output along the last axis is the predicted label; where a label has several elements, all must be
    right. Runs in evaluation mode and restores the mode of every layer. Raises `BadConfig` if outputs and labels cannot
    be compared so.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        pieces = zip(torch.split(inputs, EVALUATION_BATCH), torch.split(labels, EVALUATION_BATCH), strict=True)
        return sum(
            _correct(placement.here(model(placement.there(piece))), expected)
            for piece, expected in pieces
            if len(expected)
        )
    finally:
        for module in training:
            module.training = True


def _correct(outputs: Tensor, labels: Tensor) -> int:
    """Count the samples for which `outputs` (batch, ..., classes) are right about `labels` (batch, ...)."""
    predicted = outputs.argmax(dim=-1)
    if predicted.shape != labels.shape or labels.is_floating_point():
        raise BadConfig(
            f"accuracy needs outputs (batch, classes) and class numbers as labels, not outputs "
            f"{tuple(outputs.shape)} and labels {tuple(labels.shape)} {labels.dtype}"
        )
    return int((predicted == labels).reshape(len(labels), -1).all(dim=1).sum())


def next_streak(streak: int, correct: int, evaluated: int, target: float) -> int:
    """Consecutive evaluations that have met `target`, this one included. Nothing evaluated is no evaluation."""
    if not evaluated:
        return streak
    return streak + 1 if correct / evaluated >= target else 0
