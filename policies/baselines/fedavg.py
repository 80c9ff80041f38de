"""FedAvg (McMahan et al., AISTATS 2017, arXiv 1602.05629, algorithm 1 with C = 1 and E = 1).

In each round every client k starts from the common w and trains one epoch of its own n_k samples; when all have,
w ← Σ_k n_k/n · w_k.

Departures: a client's momentum outlives the round (the paper's clients use plain SGD); the server is the device with
the fastest link, which may train too.
"""

from crowd.planning.plan import Plan
from crowd.planning.policy import Cluster, Policy
from policies.baselines.own_data import one_server, plan_at_home, trainers_at_home
from policies.common import nobody_trains


class FedAvg(Policy):
    """No sample moves. Everybody trains one epoch of its own in each round; whoever has the fastest link averages."""

    def plan(self, cluster: Cluster) -> Plan:
        trainers = trainers_at_home(cluster)
        slices = one_server(cluster, trainers)
        if not trainers or not slices:
            return nobody_trains(cluster)
        return plan_at_home(
            cluster,
            trainers,
            round_samples=[member.samples for member in trainers],
            slices=slices,
            why=f"{len(trainers)} of {len(cluster.members)} devices train one epoch of their own samples a round; "
            f"{slices[0].owner} averages",
        )
