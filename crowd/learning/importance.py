"""Importance sampling of training samples by their loss (as in Katharopoulos and Fleuret, ICML 2018, and
Mercury, SenSys 2021): the more a sample is still wrong, the more often it is trained, with a smaller weight.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from crowd.learning.task import Task
from crowd.metrics import ignored_label

UNIFORM_PART = 0.2
"""Part of the probability that is spread evenly: it bounds the weights, and no sample is left out for ever."""

_OF_CLASSES = (torch.nn.functional.cross_entropy, torch.nn.functional.nll_loss)


def losses(task: Task, outputs: Tensor, labels: Tensor) -> Tensor:
    """The loss of each sample alone: (batch,) float32, with gradient. `outputs` (batch, …), `labels` (batch, …)."""
    pairs = zip(torch.split(outputs, 1), torch.split(labels, 1), strict=True)
    return torch.stack([task.loss(output, label) for output, label in pairs])


def shares(loss: Callable[..., Tensor], labels: Tensor) -> Tensor:
    """How much each sample counts in `loss` of all of them together, 1 on average: (batch,) float32. The mean of their
    losses alone, so weighted, is that loss.

    They differ where torch's losses of classes divide by the weights of the labels: by class weights, which cancel out
    in the loss of one sample alone, or by labels that are ignored. `labels` (batch, …).
    """
    function = loss.func if isinstance(loss, partial) else loss
    given = loss.keywords if isinstance(loss, partial) else {}
    is_of_classes = isinstance(function, torch.nn.CrossEntropyLoss | torch.nn.NLLLoss) or function in _OF_CLASSES
    divides = is_of_classes and getattr(function, "reduction", given.get("reduction", "mean")) == "mean"
    ignored = ignored_label(loss)
    if not divides or ignored is None or labels.is_floating_point():
        return torch.ones(len(labels), device=labels.device)
    weight: Tensor | None = getattr(function, "weight", given.get("weight"))
    each = torch.ne(labels, ignored).float()
    if weight is not None:
        each = each * weight.to(labels.device)[labels.masked_fill(each == 0, 0)]
    of_sample = each.reshape(len(labels), -1).sum(dim=1)
    return of_sample / of_sample.mean()


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
