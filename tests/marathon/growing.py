"""What the devices of many runs train: the built-in task `digits`, in as many parts as there are devices, of which each
has so many samples as a file in the directory of the runs says. A run takes two epochs, and keeps its best state."""

import os
from pathlib import Path

import attrs
import torch

from crowd.learning.task import Task
from crowd.tasks import digits
from crowd.tasks.partition import Partition
from tests.marathon.incidents import DEVICES
from tests.marathon.task import DIRECTORY as DIRECTORY

COUNT_FILE = "count"
FIRST = 100
"""Samples of each device before the file is there."""


def task(device: str) -> Task:
    """The part of the digits that `device` has by now."""
    file = Path(os.environ[DIRECTORY]) / COUNT_FILE
    count = int(file.read_text()) if file.exists() else FIRST
    whole = digits.task(device, Partition(part=DEVICES.index(device), parts=len(DEVICES)))
    rows = range(min(count, len(whole.data)))  # type: ignore[arg-type]  # map-style, so it has a length
    return attrs.evolve(whole, data=torch.utils.data.Subset(whole.data, rows), target=None, epochs_max=2)
