"""What is no classification is tried with the task's own loss and metric, and trained if they can take it."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from crowd.metrics import MacroF1, MeanAbsoluteError, MeanLoss
from tests.learning.test_trial import SAMPLES, TWO_CLASSES, outputs, prepared, refusal

ABSOLUTE: dict[str, Any] = {"metric": MeanAbsoluteError()}
FEATURE = SAMPLES.inputs[:, 0]


@pytest.mark.parametrize(
    ("labels", "changes"),
    [
        pytest.param(SAMPLES.inputs[:, :1], {"model": outputs(1), **ABSOLUTE}, id="regression"),
        pytest.param(
            FEATURE,
            {"model": lambda: torch.nn.Sequential(outputs(1)(), torch.nn.Flatten(0)), **ABSOLUTE},
            id="regression, squeezed",
        ),
        pytest.param(SAMPLES.inputs, {"model": outputs(6), "metric": MeanLoss()}, id="autoencoder"),
        pytest.param(
            (SAMPLES.inputs > 0).float(),
            {"model": outputs(6), "loss": torch.nn.BCEWithLogitsLoss(), "metric": MacroF1()},
            id="many labels",
        ),
        pytest.param(TWO_CLASSES, {"model": outputs(2), "loss": cross_entropy, "metric": MacroF1()}, id="two classes"),
    ],
)
@pytest.mark.parametrize("common", [True, False])
def test_whatever_loss_and_metric_can_take_is_trained(
    labels: torch.Tensor, changes: dict[str, Any], common: bool
) -> None:
    data = TensorDataset(SAMPLES.inputs, labels)
    work = prepared(data=data, evaluation=data if common else None, **{"loss": torch.nn.MSELoss()} | changes)
    assert sum(work.own.latest.store.label_counts) + (0 if common else len(work.own.latest.evaluation)) == 40
    assert len(work.own.latest.store.label_counts) == (2 if labels is TWO_CLASSES else 1), "quantities are of one kind"


def test_outputs_that_a_metric_would_have_to_stretch_are_refused() -> None:
    data = TensorDataset(SAMPLES.inputs, FEATURE)
    with pytest.warns(UserWarning, match="broadcasting"):
        said = refusal(data=data, evaluation=data, model=outputs(1), loss=torch.nn.MSELoss(), **ABSOLUTE)
    assert "it needs outputs and labels of one shape, not outputs (8, 1) and labels (8,)" in said
