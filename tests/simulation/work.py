"""The work of simulated devices: a small classification problem whose every sample can be told from all others.

Each sample carries its number in its first feature, which the network leaves aside but tells to whoever `listens`: so a
check sees which samples are trained without asking the code that hands them out.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from crowd.learning.layout import Layout
from crowd.learning.task import Task

FEATURES = 8
HIDDEN = 16
SAMPLES_MAX = 1000
"""Of one device."""
EVALUATED = 40

Listener = Callable[[Tensor], None]
"""Called with the numbers (batch,) of the samples of one training step; 0 is no sample."""


def number_of(device: int, index: int) -> int:
    """Of a device's sample; 1 or above."""
    return device * SAMPLES_MAX + index + 1


def owner_of(number: int) -> int:
    """Whose sample it is."""
    return (number - 1) // SAMPLES_MAX


def index_of(number: int) -> int:
    """Which of its owner's it is."""
    return (number - 1) % SAMPLES_MAX


class Told(torch.nn.Module):
    """`network` on all features but the first, which goes to `listen` in training."""

    deaf: ClassVar[bool] = False
    """Whether networks are only tried out now, and nothing goes to `listen`."""

    def __init__(self, network: torch.nn.Module, listen: Listener) -> None:
        super().__init__()
        self.network = network
        self._listen = listen

    def forward(self, inputs: Tensor) -> Tensor:  # (batch, 1 + FEATURES) -> (batch, 2)
        if self.training and torch.is_grad_enabled() and not self.deaf:
            self._listen(inputs[:, 0])
        outputs: Tensor = self.network(inputs[:, 1:])
        return outputs


def make_task(
    device: int,
    *,
    samples: int,
    data: range,
    normalises: bool,
    epochs_max: int,
    target: float | None,
    patience: int | None,
    listen: Listener,
) -> Task:
    """The task of the device of that number: to tell two overlapping blobs apart. Of its samples, of which there are
    `samples` at first, it has those in `data`."""
    return Task(
        name="normalised" if normalises else "plain",
        model=lambda: Told(_network(normalises, seed=device), listen),
        data=_data(device, samples, data),
        evaluation=_data(-1, EVALUATED, range(EVALUATED)),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05),
        batch_size=4,
        target=target,
        patience=patience,
        epochs_max=epochs_max,
    )


@functools.cache
def _data(device: int, samples: int, data: range) -> TensorDataset:
    first, later = np.random.default_rng(device + 1), np.random.default_rng((device + 1, 1))
    drawn = [_draw(random, count) for random, count in ((first, samples), (later, SAMPLES_MAX - samples))]
    inputs, labels = (np.concatenate(both) for both in zip(*drawn, strict=True))
    numbers = [[0.0 if device < 0 else float(number_of(device, index))] for index in range(SAMPLES_MAX)]
    features = np.hstack([np.array(numbers), inputs]).astype(np.float32)
    held = slice(data.start, data.stop)
    return TensorDataset(torch.from_numpy(features[held].copy()), torch.from_numpy(labels[held].copy()))


def _draw(random: np.random.Generator, samples: int) -> tuple[Any, Any]:
    labels = random.permutation(np.arange(samples) % 2)
    return random.standard_normal((samples, FEATURES)) + (labels[:, None] - 0.5), labels


def _network(normalises: bool, seed: int) -> torch.nn.Module:
    """Like any user's network it starts differently on each device."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first, last = torch.nn.Linear(FEATURES, HIDDEN), torch.nn.Linear(HIDDEN, 2)
    between = [torch.nn.BatchNorm1d(HIDDEN)] if normalises else []
    return torch.nn.Sequential(first, *between, torch.nn.ReLU(), last)


def layout(normalises: bool) -> Layout:
    """Of the network of every device."""
    return Layout.of(_network(normalises, seed=0), ())
