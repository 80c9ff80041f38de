"""A metric's sums add up, over batches and devices, to the value of all samples together."""

import math
import re
from functools import partial
from typing import Any

import pytest
import torch
import torchmetrics
from hypothesis import given
from hypothesis import strategies as st

import crowd
from crowd.errors import BadConfig
from crowd.learning.summed_states import as_metric
from crowd.metric_facts import BUILT_IN
from crowd.metrics import (
    R2,
    Accuracy,
    MacroF1,
    MeanAbsoluteError,
    MeanLoss,
    Metric,
    RootMeanSquaredError,
)
from tests.learning.nets import CLASSES, FEATURES, dataset, make_task, separable
from tests.learning.test_trial import prepared, refusal

COUNT = 50
CHANCE = torch.Generator().manual_seed(0)
LOGITS = torch.randn(COUNT, 3, generator=CHANCE)
CLASS_NUMBERS = torch.randint(0, 3, (COUNT,), generator=CHANCE)
COLUMNS = (torch.randn(COUNT, 3, generator=CHANCE) > 0).float()
QUANTITIES = torch.randn(COUNT, 3, generator=CHANCE)
LOSS = MeanLoss().with_loss(torch.nn.functional.mse_loss)


def value(metric: Metric, outputs: torch.Tensor, labels: torch.Tensor) -> float:
    return metric.value(metric.sums(outputs, labels))


@pytest.mark.parametrize(
    ("metric", "labels"),
    [
        (Accuracy(), CLASS_NUMBERS),
        (MacroF1(), CLASS_NUMBERS),
        (MacroF1(), COLUMNS),
        (MeanAbsoluteError(), QUANTITIES),
        (RootMeanSquaredError(), QUANTITIES),
        (R2(), QUANTITIES),
        (LOSS, QUANTITIES),
        (as_metric(torchmetrics.MeanSquaredError()), QUANTITIES),
        (as_metric(torchmetrics.classification.MulticlassF1Score(3)), CLASS_NUMBERS),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@given(cut=st.integers(1, COUNT - 1))
def test_the_sums_of_two_batches_are_those_of_both(metric: Metric, labels: torch.Tensor, cut: int) -> None:
    first, second = (metric.sums(LOGITS[rows], labels[rows]) for rows in (slice(cut), slice(cut, None)))
    whole = metric.sums(LOGITS, labels)
    assert metric.can_be(whole.tolist(), samples=COUNT, labels=labels.numel())
    assert metric.can_be(first.tolist(), samples=cut, labels=labels[:cut].numel())
    assert first.dtype == torch.float64
    assert torch.allclose(first + second, whole, rtol=1e-5)
    assert metric.value(first + second) == pytest.approx(metric.value(whole), rel=1e-5)


# --- what they say ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "reference", "outputs", "labels"),
    [
        (Accuracy(), torchmetrics.classification.MulticlassAccuracy(3, average="micro"), LOGITS, CLASS_NUMBERS),
        (MacroF1(), torchmetrics.classification.MulticlassF1Score(3), LOGITS, CLASS_NUMBERS),
        (MacroF1(), torchmetrics.classification.MultilabelF1Score(3), LOGITS, COLUMNS),
        (MeanAbsoluteError(), torchmetrics.MeanAbsoluteError(), LOGITS, QUANTITIES),
        (RootMeanSquaredError(), torchmetrics.MeanSquaredError(squared=False), LOGITS, QUANTITIES),
        (R2(), torchmetrics.R2Score(), LOGITS[:, 0], QUANTITIES[:, 0]),
        (R2(), torchmetrics.R2Score(), LOGITS, QUANTITIES),
        (LOSS, torchmetrics.MeanSquaredError(), LOGITS, QUANTITIES),
    ],
    ids=lambda value: getattr(value, "name", None) or type(value).__name__,
)
def test_they_say_what_torchmetrics_does(
    own: Metric, reference: Any, outputs: torch.Tensor, labels: torch.Tensor
) -> None:
    probabilities = outputs.sigmoid() if labels is COLUMNS else outputs
    reference.update(probabilities, labels)
    assert value(own, outputs, labels) == pytest.approx(float(reference.compute()), rel=1e-5)
    if own is not LOSS:
        assert own.better == ("higher" if reference.higher_is_better else "lower")


IGNORED = CLASS_NUMBERS.where(torch.arange(COUNT) % 4 > 0, 2)
"""Of class 2 some are real; a loss that ignores it ignores all."""


@pytest.mark.parametrize(
    "loss",
    [
        torch.nn.CrossEntropyLoss(ignore_index=2),
        torch.nn.NLLLoss(ignore_index=2),
        partial(torch.nn.functional.cross_entropy, ignore_index=2),
    ],
)
def test_labels_that_the_loss_ignores_count_in_no_metric_of_classes(loss: Any) -> None:
    kept = IGNORED != 2
    for metric in (Accuracy(), MacroF1()):
        assert value(metric.with_loss(loss), LOGITS, IGNORED) == value(metric, LOGITS[kept], IGNORED[kept])
        assert value(metric.with_loss(torch.nn.MSELoss()), LOGITS, IGNORED) == value(metric, LOGITS, IGNORED)


def test_torch_s_own_ignored_label_is_left_out_by_default() -> None:
    labels = torch.tensor([[0, -100], [1, 1], [-100, -100]])
    right = torch.nn.functional.one_hot(labels.clamp(min=0), 2).float()
    metric = Accuracy().with_loss(partial(torch.nn.functional.cross_entropy, reduction="mean"))
    assert metric.sums(right, labels).tolist() == [2, 2]


def test_a_class_that_does_not_occur_does_not_count() -> None:
    outputs = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 1]), 4).float()
    assert value(MacroF1(), outputs, torch.tensor([0, 1, 1, 1])) == pytest.approx((2 / 3 + 4 / 5) / 2)


@pytest.mark.parametrize(
    ("metric", "outputs", "labels"),
    [
        (MacroF1(), torch.full((4, 2), -1.0), torch.zeros(4, 2)),
        (R2(), torch.zeros(4), torch.ones(4)),
        (R2(), torch.zeros(1), torch.ones(1)),
    ],
)
def test_where_there_is_no_value_it_is_not_a_number(
    metric: Metric, outputs: torch.Tensor, labels: torch.Tensor
) -> None:
    assert math.isnan(value(metric, outputs, labels))


def test_rounding_makes_no_sums_of_equal_labels_impossible() -> None:
    metric, labels = R2(), torch.full((49,), 3.3)
    sums = metric.sums(torch.zeros(49), labels).tolist()
    _, total, squares, _ = sums
    assert total**2 > 49 * squares
    assert metric.can_be(sums, samples=49, labels=49)


def test_direction_and_form_of_a_metric_are_said_without_torch() -> None:
    own = [Accuracy, MacroF1, MeanAbsoluteError, RootMeanSquaredError, R2, MeanLoss]
    assert [(metric.name, metric.better) for metric in own] == [(facts.name, facts.better) for facts in BUILT_IN]
    assert {facts.name for facts in BUILT_IN if facts.is_fraction} == {"accuracy", "macro F1"}


# --- what they cannot take --------------------------------------------------------------------------------------------


def test_a_column_beside_flat_labels_is_told_how_to_mend_it() -> None:
    with pytest.raises(BadConfig, match=r"outputs \(4, 1\) and labels \(4,\): let the network return its output with"):
        MeanAbsoluteError().sums(torch.zeros(4, 1), torch.zeros(4))


def test_columns_must_be_labelled_0_or_1() -> None:
    with pytest.raises(BadConfig, match="must be 0 or 1"):
        MacroF1().sums(torch.zeros(4, 2), torch.full((4, 2), 0.5))


@pytest.mark.parametrize(
    ("metric", "complaint"),
    [
        (torchmetrics.classification.BinaryAUROC(), "the state preds of BinaryAUROC is not a sum over batches"),
        (torchmetrics.PearsonCorrCoef(), "the state mean_x of PearsonCorrCoef is not a sum over batches"),
        (torchmetrics.MeanMetric(), "MeanMetric does not say whether higher values are better"),
        (
            torchmetrics.MeanSquaredError() + torchmetrics.MeanAbsoluteError(),
            "CompositionalMetric has no states of its own",
        ),
    ],
)
def test_a_metric_of_torchmetrics_that_does_not_add_up_is_refused(metric: Any, complaint: str) -> None:
    with pytest.raises(BadConfig, match=rf"^the task's metric: {complaint}"):
        make_task(metric=metric)


def test_a_metric_of_torchmetrics_is_told_with_one_number_of_one_size() -> None:
    regression: dict[str, Any] = {
        "model": lambda: torch.nn.Linear(FEATURES, 3),
        "loss": torch.nn.MSELoss(),
        "data": torch.utils.data.TensorDataset(separable(40).inputs, QUANTITIES[:40]),
        "evaluation": None,
    }
    assert prepared(metric=torchmetrics.MeanSquaredError(), **regression).quality.numbers == 2
    assert "the state sum_squared_error of R2Score becomes (3,)" in refusal(metric=torchmetrics.R2Score(), **regression)
    f1 = torchmetrics.classification.MulticlassF1Score(CLASSES, average="none")
    assert "the value of MulticlassF1Score is of shape (3,)" in refusal(metric=f1)


# --- in a task --------------------------------------------------------------------------------------------------------


class Counting(Metric):
    """As many numbers as it is told to have."""

    name = "count"

    def __init__(self, numbers: Any) -> None:
        self.numbers = numbers

    def sums(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.full((self.numbers,), float(len(labels)), dtype=torch.float64)

    def value(self, sums: torch.Tensor) -> float:
        return float(sums[0])


def test_a_metric_may_have_500_numbers_and_not_one_more() -> None:
    assert prepared(metric=Counting(500)).quality.numbers == 500
    for numbers in (0, 501):
        said = refusal(metric=Counting(numbers))
        assert f"its sums are of shape ({numbers},); expected 1 to 500 numbers" in said


def test_a_metric_of_ones_own_that_fails_is_one_line_with_its_place() -> None:
    said = refusal(metric=Counting("many"))
    assert re.match(r"the metric count cannot take outputs of shape \(8, 3\) .*test_metrics.py, line \d+", said)


def test_the_mean_loss_is_that_of_the_task_unless_it_has_one_of_its_own() -> None:
    evaluation = separable(20, seed=1)
    task = make_task(metric=MeanLoss(), evaluation=dataset(evaluation))
    metric = task.metric.with_loss(task.loss)
    outputs = task.model().eval()(evaluation.inputs)
    assert value(metric, outputs, evaluation.labels) == pytest.approx(float(task.loss(outputs, evaluation.labels)))
    assert MeanLoss(torch.nn.functional.l1_loss).with_loss(task.loss).sums(outputs, outputs).tolist() == [0.0, 20.0]


def test_metrics_come_with_the_package() -> None:
    assert crowd.metrics.MacroF1 is MacroF1
