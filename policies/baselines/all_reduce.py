"""Synchronous data-parallel SGD with all-reduce (Goyal et al. 2017, arXiv 1706.02677, equation 2).

Every trainer k takes one step of its own on a batch of b samples, and all apply the mean of the steps:
w ← w − η/(kb) · Σ_k Σ_{x in B_k} ∇l(x, w). Momentum is linear in the gradients, so the mean of the trainers' steps is
the step of one process with a batch of kb; that is not so for an optimiser such as Adam.

Departures: samples stay where they are and every device draws from its own, so a sample of a device that holds few is
trained more often; the learning rate is the task's, without the paper's linear scaling and warm-up; an epoch's last
batch of a device is smaller, and is topped up with a second step on samples of its next epoch.
"""

from crowd.planning.plan import Plan
from crowd.planning.policy import Cluster, Policy
from policies.baselines.own_data import (
    plan_at_home,
    reduce_scatter,
    rounds_per_epoch,
    samples_of_steps,
    trainers_at_home,
)
from policies.common import nobody_trains


class AllReduce(Policy):
    """No sample moves. All merge after every step, with equal batches and equal slices."""

    def plan(self, cluster: Cluster) -> Plan:
        trainers = trainers_at_home(cluster)
        slices = reduce_scatter(trainers)
        if not slices:
            return nobody_trains(cluster)
        batches = [samples_of_steps(member, 1) for member in trainers]
        return plan_at_home(
            cluster,
            trainers,
            round_samples=batches,
            slices=slices,
            evaluate_every=rounds_per_epoch(trainers, batches),
            why=f"{len(trainers)} of {len(cluster.members)} devices train equal batches of their own samples and merge "
            "after every step",
        )
