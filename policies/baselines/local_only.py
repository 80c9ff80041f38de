"""Local training: every device for itself, without any exchange.

What all others must beat in accuracy. Each device trains its own samples at its own speed and ends with a model of its
own. What is counted is the mean of the devices' accuracies, each measured on an equal part of the evaluation set.

A device without samples keeps the untrained model; it has no part in the mean.
"""

import attrs

from crowd.planning.plan import Consistency, Plan
from crowd.planning.policy import Cluster, Policy
from policies.baselines.own_data import one_server, plan_at_home, trainers_at_home
from policies.common import nobody_trains


class LocalOnly(Policy):
    """Nothing moves and nothing is merged. A round is as long as an epoch of the whole cluster at full speed."""

    def plan(self, cluster: Cluster) -> Plan:
        trainers = trainers_at_home(cluster)
        slices = one_server(cluster, trainers)
        if not trainers or not slices:
            return nobody_trains(cluster)
        samples = sum(member.samples for member in trainers)
        speed_kflops = sum(member.speed_kflops for member in trainers)
        plan = plan_at_home(
            cluster,
            trainers,
            round_samples=[max(1, samples * member.speed_kflops // speed_kflops) for member in trainers],
            slices=slices,
            consistency=Consistency.NONE,
            why=f"{len(trainers)} of {len(cluster.members)} devices train, each for itself",
        )
        every, count = cluster.members[0].task.evaluation_samples, len(trainers)
        parts = [
            attrs.evolve(part, evaluation=(every * place // count, every * (place + 1) // count))
            for place, part in enumerate(plan.trainers)
        ]
        return attrs.evolve(plan, trainers=tuple(parts))
