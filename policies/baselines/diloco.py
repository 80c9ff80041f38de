"""DiLoCo (Douillard et al. 2023, arXiv 2311.08105, algorithm 1).

Every worker i takes H steps of the inner optimiser from the common θ, which gives the outer gradient
Δ = 1/k · Σ_i (θ − θ_i), and θ ← Nesterov(θ, Δ) with rate 0.7 and momentum 0.9. The inner optimisers keep their state.

Departures: the inner optimiser is the task's, not AdamW. H makes a round as long as an epoch of the cluster, instead of
500 of 88,000 steps, which would be a few rounds of runs as short as these. Outer gradients are weighted by the samples
behind them, which differ where a device's last batch of an epoch is smaller.
"""

from crowd.planning.plan import Outer, OuterKind, Plan
from crowd.planning.policy import Cluster, Policy
from policies.baselines.own_data import (
    plan_at_home,
    reduce_scatter,
    samples_of_steps,
    steps_per_epoch,
    trainers_at_home,
)
from policies.common import nobody_trains

OUTER = Outer(kind=OuterKind.NESTEROV, rate_ppm=700_000, momentum_ppm=900_000)
"""The paper's outer optimiser: Nesterov with rate 0.7 and momentum 0.9."""


class DiLoCo(Policy):
    """No sample moves. All take the same number of steps between two merges; the outer optimiser is Nesterov."""

    def plan(self, cluster: Cluster) -> Plan:
        trainers = trainers_at_home(cluster)
        slices = reduce_scatter(trainers)
        if not slices:
            return nobody_trains(cluster)
        steps = steps_per_epoch(trainers)
        return plan_at_home(
            cluster,
            trainers,
            round_samples=[samples_of_steps(member, steps) for member in trainers],
            slices=slices,
            outer=OUTER,
            why=f"{len(trainers)} of {len(cluster.members)} devices take {steps} steps on their own samples a round; "
            "the outer optimiser is Nesterov",
        )
