"""The images of `fashion` and a perceptron so wide that sending it costs more than training it."""

import torch

from crowd.learning.task import Task
from crowd.tasks import fashion
from crowd.tasks.partition import Partition
from crowd.tasks.recipe import sgd
from crowd.tasks.scale import Scale


def task(device: str, part: Partition) -> Task:
    """The wide task, with the images that `device` plays the owner of. Raises `BadConfig` if the data set is missing or
    damaged."""
    train, evaluation = fashion.small_samples()
    return Task(
        name="wide",
        model=network,
        data=train.part(part),
        evaluation=evaluation.dataset(),
        optimizer=sgd,
        target=0.81,
        epochs_max=20,
    )


def network() -> torch.nn.Module:
    """The network: from (batch, 1, 28, 28) uint8 pixels to (batch, 10) float32 logits; 20,037,642 parameters."""
    return torch.nn.Sequential(
        Scale(255.0),
        torch.nn.Flatten(),  # (batch, 784)
        torch.nn.Linear(784, 4096),
        torch.nn.ReLU(),
        torch.nn.Linear(4096, 4096),
        torch.nn.ReLU(),
        torch.nn.Linear(4096, 10),
    )
