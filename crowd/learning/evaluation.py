"""How good a state is, and when a run has reached its target: two consecutive evaluations that meet it."""

import torch
from torch import Tensor

from crowd.errors import BadConfig

EVALUATION_BATCH = 256
REACHED_STREAK = 2


@torch.no_grad()
def evaluate(model: torch.nn.Module, inputs: Tensor, labels: Tensor) -> int:
    """How many samples the model gets right: the largest output along the last axis is the label (all of them, where a
    label has several elements). Runs in evaluation mode and restores the mode of every layer.

    Raises `BadConfig` if outputs and labels cannot be compared so.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        pieces = zip(torch.split(inputs, EVALUATION_BATCH), torch.split(labels, EVALUATION_BATCH), strict=True)
        return sum(_correct(model(piece), expected) for piece, expected in pieces if len(expected))
    finally:
        for module in training:
            module.training = True


def _correct(outputs: Tensor, labels: Tensor) -> int:
    """`outputs` (batch, ..., classes) against `labels` (batch, ...)."""
    predicted = outputs.argmax(dim=-1)
    if predicted.shape != labels.shape or labels.is_floating_point():
        raise BadConfig(
            f"accuracy needs outputs (batch, classes) and class numbers as labels, not outputs "
            f"{tuple(outputs.shape)} and labels {tuple(labels.shape)} {labels.dtype}"
        )
    return int((predicted == labels).reshape(len(labels), -1).all(dim=1).sum())


def next_streak(streak: int, correct: int, evaluated: int, target: float) -> int:
    """How many consecutive evaluations have met `target` after this one. Nothing evaluated is no evaluation."""
    if not evaluated:
        return streak
    return streak + 1 if correct / evaluated >= target else 0


def is_reached(streak: int) -> bool:
    return streak >= REACHED_STREAK
