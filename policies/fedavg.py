"""FedAvg (McMahan et al., AISTATS 2017, arXiv 1602.05629, algorithm 1 with C = 1 and E = 1)."""

import attrs

from crowd.planning.estimate import estimate, link_bytes_s, memory_needed_bytes
from crowd.planning.plan import Assignment, DeltaForm, Idle, Plan, SliceOwner, Trainer
from crowd.planning.policy import Cluster, Policy
from policies.offload import NO_MEMORY, evaluation_shares, nobody_trains


class FedAvg(Policy):
    """No sample moves. Everybody trains one epoch of its own in each round; whoever has the fastest link averages."""

    def plan(self, cluster: Cluster) -> Plan:
        task = cluster.members[0].task
        trainer_bytes = memory_needed_bytes(task, trains=True)
        trainers = [member for member in cluster.members if member.samples and member.memory_bytes >= trainer_bytes]
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
        shares = evaluation_shares(trainers, task.evaluation_samples)
        plan = Plan(
            members=(),
            trainers=tuple(
                Trainer(device=member.device, round_samples=member.samples, evaluation=share)
                for member, share in zip(trainers, shares, strict=True)
            ),
            assignments=tuple(
                Assignment(lender=member.device, trainer=member.device, counts=member.label_counts)
                for member in trainers
            ),
            idle=tuple(
                Idle(device=member.device, counts=member.label_counts, reason=NO_MEMORY)
                for member in cluster.members
                if member.samples and member.device not in training
            ),
            slices=(SliceOwner(owner=server.device, start=0, stop=task.state_elements),),
            form=DeltaForm.FLOAT32,
            samples_total=sum(member.samples for member in trainers),
        )
        return attrs.evolve(
            plan,
            round_us=estimate(cluster, plan).round_us,
            why=f"{len(trainers)} of {len(cluster.members)} devices train one epoch of their own samples a round; "
            f"{server.device} averages",
        )
