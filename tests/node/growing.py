"""Devices whose data change: `Growing` (the task of one), `first` (so many of one and the same samples), `counts`."""

from typing import Any

import attrs
from torch.utils.data import TensorDataset

from crowd.learning.task import Task
from crowd.node import Node
from tests.node.cluster import blobs, draw
from tests.node.living import FEW

BEFORE, AFTER = 3000, 3300


class Growing:
    """The task of a device whose data are whatever they are when they are read."""

    def __init__(self, data: Any, **changes: Any) -> None:
        self.data = data
        self._changes = dict(FEW) | changes
        self.reads = 0

    def __call__(self, device: str) -> Task:
        self.reads += 1
        return attrs.evolve(blobs(**self._changes)(device), data=self.data)


def first(count: int) -> TensorDataset:
    """Of one and the same data."""
    inputs, labels = draw(AFTER, 7).tensors
    return TensorDataset(inputs[:count], labels[:count])


def counts(node: Node) -> int:
    """Samples that the present plan places of this device."""
    assert node.plan is not None
    return sum(
        span.stop - span.start
        for assignment, ranges in node.plan.ranges()
        if assignment.lender == node.name
        for span in ranges
    )
