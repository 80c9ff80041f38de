"""D-PSGD (Lian et al., NeurIPS 2017, arXiv 1705.09056, algorithm 1) on a ring.

After every step each worker i averages with its neighbours: x_i ← Σ_j W_ij · x_j, then takes its gradient step. All end
with the mean of the x_i. W is symmetric and doubly stochastic.

Departures: the gradient is taken before the exchange and applied before it (the paper takes it at the same point, but
applies it after), so that a step is local work, then one exchange; momentum is each worker's own. Samples stay where
they are, where the paper's workers draw from one distribution. Accuracy is that of the workers' own models, each on its
part of the evaluation set, and the end of an epoch is waited for by all. A device that comes back during a run begins
with the common start, and is drawn to the others' by its neighbours.
"""

from crowd.planning.plan import Consistency, Mixing, Plan
from crowd.planning.policy import Cluster, Policy
from crowd.units import DeviceId
from policies.baselines.own_data import one_server, plan_at_home, samples_of_steps, steps_per_epoch, trainers_at_home
from policies.baselines.topology import Edge, metropolis, ring
from policies.common import nobody_trains


class DPSGD(Policy):
    """No sample moves. Every device exchanges its parameters with two neighbours after every step."""

    graph = "a ring"

    def edges(self, devices: list[DeviceId], seed: int) -> set[Edge]:
        """The pairs of devices that exchange parameters."""
        return ring(devices)

    def plan(self, cluster: Cluster) -> Plan:
        trainers = trainers_at_home(cluster)
        slices = one_server(cluster, trainers)
        if not trainers or not slices:
            return nobody_trains(cluster)
        steps = steps_per_epoch(trainers)
        links = metropolis(self.edges([member.device for member in trainers], cluster.seed))
        return plan_at_home(
            cluster,
            trainers,
            round_samples=[samples_of_steps(member, steps) for member in trainers],
            slices=slices,
            consistency=Consistency.AT_END,
            mixing=Mixing(every_steps=1, exchanges=steps, links=links),
            why=f"{len(trainers)} of {len(cluster.members)} devices train their own samples and average with their "
            f"neighbours on {self.graph} after every step",
        )
