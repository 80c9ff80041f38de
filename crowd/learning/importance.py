"""Importance sampling of training samples by their loss (as in Katharopoulos and Fleuret, ICML 2018, and
Mercury, SenSys 2021): the more a sample is still wrong, the more often it is trained, with a smaller weight.
"""

import numpy as np
import torch
from torch import Tensor

from crowd.learning.task import Task

UNIFORM_PART = 0.2
"""Part of the probability that is spread evenly: it bounds the weights, and no sample is left out for ever."""


def losses(task: Task, outputs: Tensor, labels: Tensor) -> Tensor:
    """The loss of each sample alone: (batch,) float32, with gradient. `outputs` (batch, …), `labels` (batch, …)."""
    pairs = zip(torch.split(outputs, 1), torch.split(labels, 1), strict=True)
    return torch.stack([task.loss(output, label) for output, label in pairs])


def draw(values: Tensor, count: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw `count` samples with replacement from a group whose losses are `values` (group,). Returns their indices
    (count,) int64 and weights (count,) float32, so that the weighted mean of anything over the drawn is in expectation
    its mean over the group."""
    group = len(values)
    share = values.double().clamp(min=0.0).numpy()
    total = share.sum()
    even = np.full(group, 1.0 / group)
    chances = even if total <= 0.0 else UNIFORM_PART * even + (1.0 - UNIFORM_PART) * share / total
    drawn = random.choice(group, size=count, p=chances)
    return torch.from_numpy(drawn), torch.from_numpy(1.0 / (group * chances[drawn])).float()
