"""What the devices of a marathon train: the built-in task `digits`, in as many parts as there are devices.

The rate of learning is 0, and so the target out of reach, until `finish` is in the directory of the run; a step does
not end while `hang-<device>` is there.
"""

import os
import time
from pathlib import Path

import attrs
import torch

from crowd.learning.task import Task
from crowd.tasks import digits
from crowd.tasks.partition import Partition
from tests.marathon.incidents import DEVICES

DIRECTORY = "CROWD_MARATHON_DIRECTORY"
"""Names, in the environment, the directory of the run."""
FINISH = "finish"
LOOK_S = 0.1
_DEVICE = "CROWD_MARATHON_DEVICE"
"""Names this device: what is in the functions of a task must be the same on all devices, so it is not there."""


def task(device: str) -> Task:
    """The part of the digits that `device` has."""
    os.environ[_DEVICE] = device
    part = Partition(part=DEVICES.index(device), parts=len(DEVICES))
    return attrs.evolve(digits.task(device, part), augment=_hang, schedule=_rate, epochs_max=1_000_000)


def hang_file(directory: Path, device: str) -> Path:
    """The file during whose existence no step of `device` ends."""
    return directory / f"hang-{device}"


def _hang(inputs: torch.Tensor, labels: torch.Tensor, _: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    file = hang_file(Path(os.environ[DIRECTORY]), os.environ[_DEVICE])
    while file.exists():
        time.sleep(LOOK_S)
    return inputs, labels


def _rate(_: float) -> float:
    return 1.0 if (Path(os.environ[DIRECTORY]) / FINISH).exists() else 0.0
