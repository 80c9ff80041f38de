"""Samples that torch takes and that need care: labels that the loss ignores, and inputs of double precision."""

import pytest
import torch
from torch.utils.data import TensorDataset

from tests.learning.nets import FEATURES
from tests.learning.test_trial import SAMPLES, outputs, prepared, refusal


class Places(torch.nn.CrossEntropyLoss):
    """Of outputs (batch, places, classes) and labels (batch, places)."""

    def forward(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return super().forward(outputs.movedim(-1, 1), labels)


def test_some_of_a_samples_labels_may_be_ignored_by_the_loss_and_then_do_not_count() -> None:
    labels = torch.arange(40).remainder(3)[:, None].repeat(1, 2)
    labels[33, 0] = -100
    model = lambda: torch.nn.Sequential(torch.nn.Linear(FEATURES, 6), torch.nn.Unflatten(1, (2, 3)))  # noqa: E731
    data = TensorDataset(SAMPLES.inputs, labels)
    work = prepared(data=data, evaluation=data, model=model, loss=Places())
    right = torch.nn.functional.one_hot(labels.clamp(min=0), 3).float()
    assert work.quality.metric.sums(right, labels).tolist() == [40, 40]
    labels[33] = -100
    assert refusal(data=data, evaluation=data, model=model, loss=Places()) == (
        "label of data[33] is [-100, -100], which the loss ignores (ignore_index): leave such samples out"
    )


@pytest.mark.parametrize("ignored", [2, 255])
def test_a_sample_whose_one_label_the_loss_ignores_is_refused(ignored: int) -> None:
    labels = (torch.arange(40) % 2).where(torch.arange(40) != 33, ignored)
    data = TensorDataset(SAMPLES.inputs, labels)
    loss = torch.nn.CrossEntropyLoss(ignore_index=ignored)
    said = refusal(data=data, evaluation=data, model=outputs(3), loss=loss)
    assert said == f"label of data[33] is {ignored}, which the loss ignores (ignore_index): leave such samples out"


def test_inputs_of_double_precision_are_told_how_to_be_mended_unless_the_network_converts_them() -> None:
    data = TensorDataset(SAMPLES.inputs.double(), SAMPLES.labels)
    said = refusal(data=data, evaluation=data)
    assert said.endswith("; networks are float32: convert the inputs, as by .float() or numpy's .astype('float32')")
    prepared(data=data, evaluation=data, model=Converts)


class Converts(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(FEATURES, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(inputs.float())
        return result
