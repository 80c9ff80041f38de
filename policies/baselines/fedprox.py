"""FedProx (Li et al., MLSys 2020, arXiv 1812.06127, algorithm 2).

As FedAvg, but a device that is too slow for its whole epoch sends what it has trained by the end of a common clock
cycle, instead of being waited for or dropped; and each device minimises h_k(w) = F_k(w) + μ/2 · ‖w − w^t‖², which holds
uneven local work together (equation 2).

Departures: the clock cycle is the time in which half of the devices train their whole epoch, where the paper draws each
device's share of the work at random; the average is weighted by the samples that were trained, where the paper samples
devices by the number that they hold; momentum outlives the round.
"""

from crowd.planning.estimate import train_us
from crowd.planning.plan import Plan
from crowd.planning.policy import Cluster, Policy
from crowd.planning.profile import Profile
from policies.baselines.own_data import one_server, plan_at_home, trainers_at_home
from policies.common import nobody_trains

PROXIMAL_PPM = 10_000
"""Weight of the proximal term, μ = 0.01: of the paper's 0.001, 0.01, 0.1 and 1 the first three do equally well here
(docs/decisions/037-fedprox-mu.md)."""


class FedProx(Policy):
    """No sample moves. Everybody trains its own samples for at most one epoch, as far as a round's time allows."""

    def plan(self, cluster: Cluster) -> Plan:
        trainers = trainers_at_home(cluster)
        slices = one_server(cluster, trainers)
        if not trainers or not slices:
            return nobody_trains(cluster)
        epochs_us = sorted(train_us(member, member.samples) for member in trainers)
        cycle_us = epochs_us[(len(epochs_us) - 1) // 2]

        def in_time(member: Profile) -> int:
            samples = cycle_us * member.speed_kflops // (1_000 * member.task.flops_per_sample)
            return min(member.samples, max(samples, member.task.batch_size))

        return plan_at_home(
            cluster,
            trainers,
            round_samples=[in_time(member) for member in trainers],
            slices=slices,
            proximal_ppm=PROXIMAL_PPM,
            why=f"{len(trainers)} of {len(cluster.members)} devices train their own samples, at most an epoch a round, "
            f"held back towards the common model; {slices[0].owner} averages",
        )
