"""How good a state of the network is, in one number: `Metric`, and the ones that come with the project.

Devices evaluate on different samples, so a metric is made of *sums*: a few numbers for each batch that add up, over
batches and over devices, to those of all samples. Its value is worked out of the sums alone, once for all devices.

Layout: `Metric` (the port), `Accuracy` and `MacroF1` of classes, `MeanAbsoluteError`, `RootMeanSquaredError` and `R2`
of quantities, `MeanLoss` of anything. Those of torchmetrics are taken by `crowd.learning.summed_states`.
"""

import abc
import copy
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from crowd import metric_facts
from crowd.errors import BadConfig
from crowd.metric_facts import HIGHER

IGNORED_BY_TORCH = -100
"""The label that torch's losses of classes ignore by default."""
NUMBERS_MAX = 500
"""Numbers that the sums of a metric may consist of: at most 4 kB from each device in a round."""
ROUNDING = 1e-6
"""Part by which sums may be off as they are rounded."""
_TWO_OUTPUTS = "; for two classes let the network have 2 outputs and use cross_entropy as the loss"


class Metric(abc.ABC):
    """A measure of how good outputs are; a task has one. Stateless: all calls may come from several threads.

    A subclass has a `name`, says which values are `better`, and makes sums and their value. All its public attributes
    must be the same on all devices of a cluster.
    """

    name: str
    """Its name for people and records, as "accuracy"."""
    better: str = HIGHER
    """Which of two values is better: "higher" or "lower"."""

    @abc.abstractmethod
    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The sums of a batch: (numbers,) float64, the same number for every batch of a task, at most `NUMBERS_MAX`.
        Those of two batches added up must be those of both together. `outputs` (batch, …) are the network's in
        evaluation mode, `labels` (batch, *label_shape). Raises `BadConfig`, in one line, for what it cannot take."""

    @abc.abstractmethod
    def value(self, sums: Tensor) -> float:
        """The value of the sums (numbers,) float64 of one sample or more; NaN where there is none."""

    def classes(self, outputs: Tensor, labels: Tensor) -> int | None:
        """How many classes there are, if these labels are class numbers; `None` if they are not."""
        return None

    def can_be(self, sums: Sequence[float], *, samples: int, labels: int) -> bool:
        """Whether these sums, all finite, can be those of so many samples, one or more, that have so many labels in
        all, by which what other devices say is checked; true where nothing speaks against it. Called on the event loop:
        without operations of torch."""
        return True

    def with_loss(self, loss: Callable[[Tensor, Tensor], Tensor]) -> "Metric":
        """The metric for a task with this loss."""
        return self


# --- classes ----------------------------------------------------------------------------------------------------------


def _class_numbers(outputs: Tensor, labels: Tensor) -> int:
    """The number of classes of outputs (batch, ..., classes), if labels (batch, ...) are class numbers. Raises
    `BadConfig`."""
    classes = outputs.shape[-1] if outputs.dim() else 0
    if classes < 2 or outputs.shape[:-1] != labels.shape or labels.is_floating_point():
        raise BadConfig(
            f"it needs outputs (batch, ..., classes) of 2 classes or more and class numbers (batch, ...) as "
            f"labels, not outputs {tuple(outputs.shape)} and labels {tuple(labels.shape)} {labels.dtype}"
            f"{_TWO_OUTPUTS if classes == 1 else ''}"
        )
    return classes


def ignored_label(loss: Callable[..., Tensor]) -> int | None:
    """The label that `loss` leaves out of its mean, as torch's `ignore_index` is; `None` where that cannot be seen, as
    in a function of one's own."""
    if isinstance(loss, partial):
        given = loss.keywords.get("ignore_index")
        return given if isinstance(given, int) else ignored_label(loss.func)
    if loss in (torch.nn.functional.cross_entropy, torch.nn.functional.nll_loss):
        return IGNORED_BY_TORCH
    found = getattr(loss, "ignore_index", None)
    return found if isinstance(found, int) else None


class _OfClasses(Metric):
    """A metric of class numbers, without the labels that the task's loss ignores."""

    _ignored: int | None = None

    def with_loss(self, loss: Callable[[Tensor, Tensor], Tensor]) -> Metric:
        metric = copy.copy(self)
        metric._ignored = ignored_label(loss)  # noqa: SLF001  # of its own class
        return metric

    def _counting(self, labels: Tensor) -> Tensor:
        """Which of the labels (batch, ...) count: (batch, ...) bool."""
        return torch.ones_like(labels, dtype=torch.bool) if self._ignored is None else labels != self._ignored


class Accuracy(_OfClasses):
    """The part of the samples that are predicted right, from 0 to 1.

    The largest of the outputs (batch, ..., classes) along the last axis is the predicted class; labels (batch, ...) are
    class numbers. Where a sample has several labels, all must be right. Labels that the task's loss ignores
    (`ignore_index`) do not count, nor do samples that have no others.
    """

    name, better = metric_facts.ACCURACY.name, metric_facts.ACCURACY.better

    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Samples that are right, and all."""
        _class_numbers(outputs, labels)
        counting = self._counting(labels).reshape(len(labels), -1)
        right = (outputs.argmax(dim=-1) == labels).reshape(len(labels), -1)
        counted = counting.any(dim=1)
        hits = ((right | ~counting).all(dim=1) & counted).sum()
        return torch.tensor([int(hits), int(counted.sum())], dtype=torch.float64)

    def value(self, sums: Tensor) -> float:
        right, count = sums.tolist()
        return float(right / count) if count else math.nan

    def can_be(self, sums: Sequence[float], *, samples: int, labels: int) -> bool:
        right, count = sums
        return 0 <= right <= count <= samples and right.is_integer() and count.is_integer()

    def classes(self, outputs: Tensor, labels: Tensor) -> int | None:
        return outputs.shape[-1]


class MacroF1(_OfClasses):
    """The mean of all classes' F1 scores, from 0 to 1, by which a rare class counts as much as a common one.

    Of class numbers: outputs (batch, ..., classes), labels (batch, ...); the largest output is the predicted class.
    Of several labels at once: outputs and labels of one shape (batch, columns), labels 0 or 1, each column a class of
    its own, which is predicted where its output (a logit) is above 0. Classes that occur neither among the labels nor
    among the predictions do not count, nor do class numbers that the task's loss ignores (`ignore_index`).
    """

    name, better = metric_facts.MACRO_F1.name, metric_facts.MACRO_F1.better

    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """True positives of each class, then false positives, then false negatives."""
        if outputs.shape == labels.shape and outputs.dim() == 2:
            if not bool(((labels == 0) | (labels == 1)).all()):
                raise BadConfig("labels of the outputs' shape (batch, columns) must be 0 or 1")
            predicted, true = outputs > 0, labels > 0
        else:
            classes = _class_numbers(outputs, labels)
            counting = self._counting(labels)
            predicted = _one_hot(outputs.argmax(dim=-1)[counting], classes)
            true = _one_hot(labels[counting], classes)
        counts = [(predicted & true).sum(dim=0), (predicted & ~true).sum(dim=0), (~predicted & true).sum(dim=0)]
        return torch.cat(counts).double()

    def value(self, sums: Tensor) -> float:
        hits, wrong, missed = sums.reshape(3, -1)
        found = 2 * hits + wrong + missed
        occurs = found > 0
        return float((2 * hits[occurs] / found[occurs]).mean())

    def can_be(self, sums: Sequence[float], *, samples: int, labels: int) -> bool:
        hits, wrong, missed = map(sum, _thirds(sums))
        are_counts = all(each >= 0 and each.is_integer() for each in sums)
        return are_counts and hits + missed <= labels and hits + wrong <= labels

    def classes(self, outputs: Tensor, labels: Tensor) -> int | None:
        return None if outputs.shape == labels.shape else outputs.shape[-1]


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    """Class numbers of any shape as (labels, classes) bool."""
    return labels.reshape(-1, 1) == torch.arange(classes)


def _thirds(sums: Sequence[float]) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
    third = len(sums) // 3
    return sums[:third], sums[third : 2 * third], sums[2 * third :]


# --- quantities -------------------------------------------------------------------------------------------------------


def _differences(outputs: Tensor, labels: Tensor) -> Tensor:
    """Outputs minus labels, (batch, elements) float64. Raises `BadConfig` if they have not one shape."""
    if outputs.shape != labels.shape:
        hint = ""
        if outputs.shape == (*labels.shape, 1):
            hint = ": let the network return its output without the last axis, or give each label the shape (1,)"
        raise BadConfig(
            f"it needs outputs and labels of one shape, not outputs {tuple(outputs.shape)} and labels "
            f"{tuple(labels.shape)}{hint}"
        )
    return (outputs.double() - labels.double()).reshape(len(labels), -1)


class MeanAbsoluteError(Metric):
    """The mean distance of outputs from labels, which have one shape (batch, ...); in the labels' unit."""

    name, better = metric_facts.MEAN_ABSOLUTE_ERROR.name, metric_facts.MEAN_ABSOLUTE_ERROR.better

    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The sum of all distances, and their number."""
        distances = _differences(outputs, labels).abs()
        return torch.tensor([float(distances.sum()), distances.numel()], dtype=torch.float64)

    def can_be(self, sums: Sequence[float], *, samples: int, labels: int) -> bool:
        total, count = sums
        return count == labels and total >= 0

    def value(self, sums: Tensor) -> float:
        total, count = sums.tolist()
        return float(total / count) if count else math.nan


class RootMeanSquaredError(Metric):
    """The root of the mean squared distance of outputs from labels, which have one shape (batch, ...); in the labels'
    unit."""

    name, better = metric_facts.ROOT_MEAN_SQUARED_ERROR.name, metric_facts.ROOT_MEAN_SQUARED_ERROR.better

    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The sum of all squared distances, and their number."""
        squares = _differences(outputs, labels).square()
        return torch.tensor([float(squares.sum()), squares.numel()], dtype=torch.float64)

    def can_be(self, sums: Sequence[float], *, samples: int, labels: int) -> bool:
        total, count = sums
        return count == labels and total >= 0

    def value(self, sums: Tensor) -> float:
        total, count = sums.tolist()
        return math.sqrt(total / count) if count else math.nan


class R2(Metric):
    """The part of the labels' variance that outputs explain: 1 is all of it, 0 no more than their mean would; the
    coefficient of determination. Outputs and labels have one shape (batch, ...); where a sample has several labels, the
    mean over them, each by its own variance. Undefined where one of these does not vary."""

    name, better = metric_facts.R2.name, metric_facts.R2.better

    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Of each label of a sample the sums of squared distances, of labels and of squared labels; and the number of
        samples."""
        squares = _differences(outputs, labels).square()
        flat = labels.double().reshape(len(labels), -1)
        count = torch.tensor([len(labels)], dtype=torch.float64)
        return torch.cat([squares.sum(dim=0), flat.sum(dim=0), flat.square().sum(dim=0), count])

    def can_be(self, sums: Sequence[float], *, samples: int, labels: int) -> bool:
        residuals, totals, squares = _thirds(sums[:-1])
        # no sum is larger than that of so many equal labels, but for what rounding adds
        most = [samples * each * (1 + ROUNDING) for each in squares]
        fit = all(total * total <= limit for total, limit in zip(totals, most, strict=True))
        return sums[-1] == samples and fit and min(*residuals, *squares) >= 0

    def value(self, sums: Tensor) -> float:
        count = sums[-1]
        residual, total, squares = sums[:-1].reshape(3, -1)
        varied = squares - total.square() / count
        return float((1 - residual / varied).mean()) if bool((varied > 0).all()) else math.nan


class MeanLoss(Metric):
    """The mean of the task's own loss over the samples; the loss must be a mean over its batch."""

    name, better = metric_facts.MEAN_LOSS.name, metric_facts.MEAN_LOSS.better

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        """Measure `loss`; `None`: that of the task."""
        self._loss = loss

    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss times the number of samples, and that number."""
        assert self._loss is not None, "the task's loss is given by with_loss"
        return torch.tensor([self._loss(outputs, labels).item() * len(labels), len(labels)], dtype=torch.float64)

    def can_be(self, sums: Sequence[float], *, samples: int, labels: int) -> bool:
        return sums[-1] == samples

    def value(self, sums: Tensor) -> float:
        total, count = sums.tolist()
        return float(total / count) if count else math.nan

    def with_loss(self, loss: Callable[[Tensor, Tensor], Tensor]) -> "MeanLoss":
        return self if self._loss is not None else MeanLoss(loss)
