"""Contributions that are out of all proportion: one of them would move the mean to where nobody can train on."""

import math
import statistics
from collections.abc import Mapping

import torch
from torch import Tensor

from crowd.learning.layout import Pieces
from crowd.units import DeviceId

TIMES_MAX = 10.0
"""How many times the median of the others a contribution's size may be."""
CONTRIBUTORS_MIN = 4
"""From how many on there is a median to go by."""


def size(delta: Tensor, samples: int, pieces: Pieces) -> float:
    """The size of a delta (elements,) that `samples` led to, whose tensors lie as `pieces` says: root mean square of
    its parameters over the square root of the samples, as the steps of a random walk would add up. Statistics, which
    may be of any size, do not count."""
    if pieces.statistics:
        delta = delta.clone()
        for start, stop in pieces.statistics:
            delta[start:stop] = 0.0
    norm = float(torch.linalg.vector_norm(delta, dtype=torch.float64))
    return norm / math.sqrt(max(1, sum(pieces.parameters)) * max(1, samples))


class Outliers:
    """Judges the sizes of contributions, round by round.

    A network learns in ever smaller steps, and whoever comes late with something new is right to take larger ones: so
    the median of the others counts as what it was at its largest.
    """

    def __init__(self) -> None:
        self._largest_median = 0.0

    def among(self, sizes: Mapping[DeviceId, float]) -> frozenset[DeviceId]:
        """Which contributions of one slice, by their `sizes`, are over ten times the median of the others; none of
        fewer than four."""
        if len(sizes) < CONTRIBUTORS_MIN:
            return frozenset()
        found = set()
        for sender, own in sizes.items():
            others = statistics.median(other for device, other in sizes.items() if device != sender)
            if others > 0 and own > TIMES_MAX * max(others, self._largest_median):
                found.add(sender)
        kept = [own for sender, own in sizes.items() if sender not in found]
        self._largest_median = max(self._largest_median, statistics.median(kept))
        return frozenset(found)
