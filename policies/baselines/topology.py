"""Graphs of devices that exchange parameters, for policies without a server."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence

from crowd.planning.plan import PPM, MixingEdge
from crowd.units import DeviceId

Edge = tuple[DeviceId, DeviceId]


def ring(devices: Sequence[DeviceId]) -> set[Edge]:
    """The edges of a ring: each device with the next, and the last with the first."""
    around = itertools.pairwise([*devices, devices[0]])
    return {(min(pair), max(pair)) for pair in around if pair[0] != pair[1]}


def random_regular(devices: Sequence[DeviceId], seed: int) -> set[Edge]:
    """The edges of two rings in orders drawn from `seed`: a random graph in which nearly all have four neighbours
    (Friedman 2003, arXiv cs/0405020: such graphs are expanders)."""

    def place(device: DeviceId, number: int) -> bytes:
        return hashlib.blake2b(f"{seed}/{number}/{device}".encode(), digest_size=8).digest()

    orders = [sorted(devices, key=lambda device, number=number: place(device, number)) for number in range(2)]  # type: ignore[misc]
    return ring(orders[0]) | ring(orders[1])


def metropolis(edges: Iterable[Edge]) -> tuple[MixingEdge, ...]:
    """The edges with Metropolis weights `1 / (1 + max(degree, degree'))`, with which mixing is symmetric and doubly
    stochastic (Xiao and Boyd, Systems & Control Letters 2004). Canonical."""
    known = sorted(edges)
    degree: dict[DeviceId, int] = {}
    for device in itertools.chain.from_iterable(known):
        degree[device] = degree.get(device, 0) + 1
    return tuple(
        MixingEdge(first=first, second=second, weight_ppm=PPM // (1 + max(degree[first], degree[second])))
        for first, second in known
    )
