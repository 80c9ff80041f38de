"""LB-BSP: all-reduce with batches in proportion to speed (Chen et al., "Semi-Dynamic Load Balancing", SoCC 2020, arXiv
1806.02508).

Worker i takes a batch b_i in proportion to its speed, so that all finish a step together, and gradients are weighted by
batch: w ← w − η · Σ_i b_i/b · ∇l_i(w).

Σ b_i is as with equal batches.

Departures: no batch is smaller than one sample, or larger than what a device holds. Speeds are the profiles', measured
as training goes on, where the paper predicts them. Samples stay where they are, where the paper's workers draw from one
shared store: a device's samples are trained as often as its speed and their number say.
"""

from crowd.planning.plan import Plan
from crowd.planning.policy import Cluster, Policy
from crowd.planning.profile import Profile
from policies.baselines.own_data import plan_at_home, reduce_scatter, rounds_per_epoch, trainers_at_home
from policies.common import nobody_trains


class AllReduceBalanced(Policy):
    """No sample moves. All merge after every step, with batches in proportion to speed and equal slices."""

    def plan(self, cluster: Cluster) -> Plan:
        trainers = trainers_at_home(cluster)
        slices = reduce_scatter(trainers)
        if not slices:
            return nobody_trains(cluster)
        speed_kflops = sum(member.speed_kflops for member in trainers)

        def batch(member: Profile) -> int:
            balanced = len(trainers) * member.task.batch_size * member.speed_kflops // speed_kflops
            return max(1, min(balanced, member.samples))

        batches = [batch(member) for member in trainers]
        return plan_at_home(
            cluster,
            trainers,
            round_samples=batches,
            batches=batches,
            slices=slices,
            evaluate_every=rounds_per_epoch(trainers, batches),
            why=f"{len(trainers)} of {len(cluster.members)} devices train batches of their own samples in proportion "
            "to their speed and merge after every step",
        )
