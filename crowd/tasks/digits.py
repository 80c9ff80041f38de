"""The smallest built-in task: scikit-learn's handwritten digits and a multilayer perceptron.

1,797 images of 8×8 pixels, uint8 from 0 to 16: 1,437 to train and 360 to evaluate, stratified, seed 0.
"""

import functools

import numpy as np
import torch

from crowd.errors import BadConfig
from crowd.learning.task import Task
from crowd.tasks.partition import Partition
from crowd.tasks.recipe import LabelledSamples, sgd
from crowd.tasks.scale import Scale


def task(device: str, part: Partition) -> Task:
    """The digits task, with the part of the data that `device` plays the owner of. Raises `BadConfig` without
    scikit-learn."""
    train, evaluation = _samples()
    return Task(
        name="digits",
        model=network,
        data=train.part(part),
        evaluation=evaluation.dataset(),
        optimizer=sgd,
        target=0.95,
        epochs_max=120,
    )


def network() -> torch.nn.Module:
    """The network: from (batch, 64) uint8 pixels to (batch, 10) float32 logits; 99,530 parameters."""
    return torch.nn.Sequential(
        Scale(16.0),
        torch.nn.Linear(64, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )


@functools.cache
def _samples() -> tuple[LabelledSamples, LabelledSamples]:
    """Training and evaluation samples, decoded once for each process."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError as error:
        raise BadConfig("the task digits needs scikit-learn: pip install 'crowdlearning[demo]'") from error
    images, labels = load_digits(return_X_y=True)
    train_images, images, train_labels, labels = train_test_split(
        images.astype(np.uint8), labels.astype(np.int64), test_size=360, stratify=labels, random_state=0
    )
    return (
        LabelledSamples(inputs=torch.from_numpy(train_images), labels=torch.from_numpy(train_labels)),
        LabelledSamples(inputs=torch.from_numpy(images), labels=torch.from_numpy(labels)),
    )
