"""FedBuff (Nguyen et al., AISTATS 2022, arXiv 2106.06639, algorithm 1): buffered asynchronous averaging.

Clients train without waiting for each other, each from the newest model that it has when it begins. The server adds up
what comes; with every K-th contribution w ← w + η_g/K · Σ s(τ_i) · Δ_i, where τ_i is by how many versions Δ_i's start
is out of date and s(τ) = 1/√(1 + τ).

Departures: all devices take part all the time, where the paper's server draws clients at random; K is a quarter of the
devices, as there are fewer of them than the paper's K of 10; the fastest device evaluates the model, alone and about
once an epoch. Momentum is each client's own. A device begins anew when its last contribution has arrived at the server;
it is in the buffer once at most, so that the server's own device, which has no way to go, does not fill it alone.
"""

import attrs

from crowd.planning.plan import Outer, Plan
from crowd.planning.policy import Cluster, Policy
from crowd.units import ceil_div
from policies.baselines.own_data import one_server, plan_at_home, samples_of_steps, steps_per_epoch, trainers_at_home
from policies.common import nobody_trains

DEVICES_PER_CONTRIBUTION = 4
"""Devices for each contribution of a merge: K is their number divided by this, rounded up."""
SERVER = Outer(rate_ppm=500_000)
"""The server's optimiser, η_g = 0.5: the paper's is a parameter to be tuned, and was
(docs/decisions/065-fedbuff-server-rate.md)."""
STALENESS_MAX = 10_000
"""Rounds that a contribution may lag: so many that none is thrown away for its age."""


class FedBuff(Policy):
    """No sample moves. Nobody waits: whoever has the fastest link averages as soon as a quarter have contributed."""

    def plan(self, cluster: Cluster) -> Plan:
        trainers = trainers_at_home(cluster)
        slices = one_server(cluster, trainers)
        if not trainers or not slices:
            return nobody_trains(cluster)
        steps = steps_per_epoch(trainers)
        quorum = ceil_div(len(trainers), DEVICES_PER_CONTRIBUTION)
        plan = plan_at_home(
            cluster,
            trainers,
            round_samples=[samples_of_steps(member, steps) for member in trainers],
            slices=slices,
            quorum=quorum,
            outer=SERVER,
            staleness_max=STALENESS_MAX,
            evaluate_every=ceil_div(len(trainers), quorum),
            why=f"{len(trainers)} of {len(cluster.members)} devices take {steps} steps on their own samples at a time; "
            f"{slices[0].owner} averages every {quorum} contributions as they come",
        )
        fastest = min(trainers, key=lambda member: (-member.speed_kflops, member.device)).device
        every = (0, cluster.members[0].task.evaluation_samples)
        parts = []
        for part in plan.trainers:
            start = every[1] if part.device > fastest else 0
            parts.append(attrs.evolve(part, evaluation=every if part.device == fastest else (start, start)))
        return attrs.evolve(plan, trainers=tuple(parts))
