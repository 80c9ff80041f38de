"""FedAvg (McMahan et al., AISTATS 2017, arXiv 1602.05629, algorithm 1 with C = 1 and E = 1).

In each round every client k starts from the common w and trains one epoch of its own n_k samples; then
w ← Σ_k n_k/n · w_k.

Departures: a client's momentum outlives the round (the paper's clients use plain SGD); the server is the device with
the fastest link, which may train too; a device that is far too late is left out of a round's average.
"""

from crowd.planning.estimate import link_bytes_s, memory_needed_bytes
from crowd.planning.plan import Plan, SliceOwner
from crowd.planning.policy import Cluster, Policy
from policies.at_home import plan_at_home, trainers_at_home
from policies.offload import nobody_trains


class FedAvg(Policy):
    """No sample moves. Everybody trains one epoch of its own in each round; whoever has the fastest link averages."""

    def plan(self, cluster: Cluster) -> Plan:
        task = cluster.members[0].task
        trainers = trainers_at_home(cluster)
        training = {member.device for member in trainers}
        owners = [
            member
            for member in cluster.members
            if member.memory_bytes
            >= memory_needed_bytes(task, trains=member.device in training, owned_elements=task.state_elements)
        ]
        if not trainers or not owners:
            return nobody_trains(cluster)
        server = min(owners, key=lambda member: (-link_bytes_s(member), member.device))
        return plan_at_home(
            cluster,
            trainers,
            round_samples=[member.samples for member in trainers],
            slices=(SliceOwner(owner=server.device, start=0, stop=task.state_elements),),
            why=f"{len(trainers)} of {len(cluster.members)} devices train one epoch of their own samples a round; "
            f"{server.device} averages",
        )
