"""D-PSGD on a random graph, in which nearly every device has four neighbours instead of a ring's two.

Opinions cross such a graph in a number of steps that grows with the logarithm of the number of devices, a ring in one
that grows with its square. Everything else is as in `d_psgd`.
"""

from crowd.units import DeviceId
from policies.baselines.d_psgd import DPSGD
from policies.baselines.topology import Edge, random_regular


class DPSGDRandom(DPSGD):
    """No sample moves. Every device exchanges its parameters with up to four neighbours after every step."""

    graph = "a random graph"

    def edges(self, devices: list[DeviceId], seed: int) -> set[Edge]:
        return random_regular(devices, seed)
