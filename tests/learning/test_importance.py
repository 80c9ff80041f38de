from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from crowd.learning.importance import draw, losses, shares
from tests.learning.nets import make_task

WEIGHT = torch.tensor([1.0, 0.5, 4.0])
CLASS_NUMBERS = torch.arange(12) % 3
SEQUENCES = (torch.arange(48) % 3).reshape(12, 4).where(torch.arange(48).reshape(12, 4) % 7 > 1, -100)


class Sequences(torch.nn.CrossEntropyLoss):
    """Of outputs (batch, places, classes) and labels (batch, places)."""

    def forward(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return super().forward(outputs.movedim(-1, 1), labels)


def test_the_losses_of_samples_average_to_the_loss_of_their_batch() -> None:
    torch.manual_seed(0)
    task = make_task()
    outputs, labels = torch.randn(12, 2, requires_grad=True), torch.randint(0, 2, (12,))
    apart = losses(task, outputs, labels)
    torch.testing.assert_close(apart.mean(), task.loss(outputs, labels))
    (gradient,) = torch.autograd.grad(apart.mean(), outputs, retain_graph=True)
    (expected,) = torch.autograd.grad(task.loss(outputs, labels), outputs)
    torch.testing.assert_close(gradient, expected)


def test_samples_with_a_larger_loss_are_drawn_more_often_and_weigh_less() -> None:
    drawn, weights = draw(torch.tensor([0.0, 1.0, 3.0, 4.0]), 40_000, np.random.default_rng(0))
    chances = torch.bincount(drawn, minlength=4) / 40_000
    assert chances.tolist() == pytest.approx([0.05, 0.15, 0.35, 0.45], abs=0.01)
    assert {(int(place), round(float(weight), 4)) for place, weight in zip(drawn, weights, strict=True)} == {
        (0, 5.0),
        (1, 1.6667),
        (2, 0.7143),
        (3, 0.5556),
    }


def test_the_weighted_mean_over_the_drawn_is_the_mean_over_all_in_expectation() -> None:
    generator = torch.Generator().manual_seed(0)
    values, of_interest = torch.rand(64, generator=generator), torch.randn(64, generator=generator)
    drawn, weights = draw(values, 200_000, np.random.default_rng(0))
    assert float((weights * of_interest[drawn]).mean()) == pytest.approx(float(of_interest.mean()), abs=0.01)


def test_where_nothing_is_wrong_any_more_all_are_drawn_alike() -> None:
    drawn, weights = draw(torch.zeros(8), 16, np.random.default_rng(0))
    assert len(drawn) == 16
    assert torch.equal(weights, torch.ones(16))


@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        (torch.nn.CrossEntropyLoss(weight=WEIGHT), CLASS_NUMBERS),
        (torch.nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1), CLASS_NUMBERS),
        (partial(torch.nn.functional.cross_entropy, weight=WEIGHT), CLASS_NUMBERS),
        (torch.nn.functional.cross_entropy, CLASS_NUMBERS),
        (torch.nn.CrossEntropyLoss(weight=WEIGHT), torch.rand(12, 3)),
        (Sequences(weight=WEIGHT), SEQUENCES),
        (Sequences(), SEQUENCES),
    ],
)
def test_the_losses_of_samples_by_what_they_count_are_the_loss_of_their_batch(loss: Any, labels: torch.Tensor) -> None:
    outputs = torch.randn(12, *labels.shape[1:2], 3) if labels is SEQUENCES else torch.randn(12, 3)
    apart = losses(make_task(loss=loss), outputs, labels) * shares(loss, labels)
    torch.testing.assert_close(apart.mean(), loss(outputs, labels))
