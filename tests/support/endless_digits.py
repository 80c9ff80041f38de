"""The built-in task `digits`, with more samples and a target that no device reaches: for tests in which training must
still go on.
"""

import attrs
from torch.utils.data import ConcatDataset

from crowd.learning.task import Task
from crowd.tasks import digits
from crowd.tasks.partition import Partition
from tests.support.processes import NAMES

COPIES = 4
"""Of each sample, so that a round takes long beside the messages that it costs."""


def task(device: str) -> Task:
    """The part of the digits that `device` has in a `Home`."""
    part = Partition(kind="dirichlet", part=NAMES.index(device), parts=len(NAMES))
    once = digits.task(device, part)
    return attrs.evolve(once, data=ConcatDataset([once.data] * COPIES), target=1.0, epochs_max=100_000)
