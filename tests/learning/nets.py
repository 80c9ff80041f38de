"""Small networks, data and tasks that the tests of this folder share."""

from typing import Any

import torch
from torch.utils.data import TensorDataset

from crowd.learning.layout import Layout
from crowd.learning.pool import EpochSampler, TrainingPool
from crowd.learning.samples import SampleSet
from crowd.learning.task import Task
from crowd.learning.work import LocalTrainer, StepReport
from crowd.units import DeviceId, Life

A, B, C = DeviceId("a"), DeviceId("b"), DeviceId("c")
LIFE = Life(incarnation=1, boot=b"boot")
FEATURES, CLASSES = 6, 3


def normalised() -> torch.nn.Sequential:
    """With batch normalisation: floating-point and integer buffers."""
    layers = [torch.nn.Linear(FEATURES, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, CLASSES)]
    return torch.nn.Sequential(*layers)


def layout_of(model: torch.nn.Module) -> Layout:
    """Of a network whose only buffers are those of batch normalisation."""
    return Layout.of(model, ())


def linear() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(FEATURES, CLASSES))


def separable(count: int, seed: int = 0) -> SampleSet:
    """Samples whose class is a linear function of the input."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, FEATURES, generator=generator)
    return SampleSet(inputs, inputs[:, :CLASSES].argmax(dim=1))


def dataset(samples: SampleSet) -> TensorDataset:
    return TensorDataset(samples.inputs, samples.labels)


def train(
    local: LocalTrainer, pool: TrainingPool, sampler: EpochSampler, samples: int, *, batch_size: int = 8, group: int = 1
) -> StepReport:
    """Train about so many samples."""
    return local.steps(pool, sampler, sampler.batches(samples, batch_size, group=group), lambda: False)


def make_task(**changes: Any) -> Task:
    defaults: dict[str, Any] = {
        "model": normalised,
        "data": dataset(separable(40)),
        "evaluation": dataset(separable(20, seed=1)),
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
        "batch_size": 8,
    }
    return Task(**defaults | changes)
