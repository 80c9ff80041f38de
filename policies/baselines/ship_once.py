"""Ship once: copy all data to the fastest device and train there, what a sensible person does by hand.

The model is copied to all when it is done. Until then only the fastest device has it: if that fails, or another becomes
the fastest, the work is lost.
"""

import attrs

from crowd.planning.estimate import estimate, memory_needed_bytes
from crowd.planning.plan import Assignment, Consistency, Encoding, Idle, Plan, SliceOwner, TrainerRole
from crowd.planning.policy import Cluster, Policy
from crowd.planning.profile import Profile, Share
from policies.common import NO_ROOM, nobody_trains
from policies.labels import proportional

STAYS = "they may not leave it"


class ShipOnce(Policy):
    """All samples that may move go to the fastest device with the memory for them, which trains alone. Where none has
    that much memory, the one that can take most trains, and samples beyond its memory are idle."""

    def plan(self, cluster: Cluster) -> Plan:
        task = cluster.members[0].task
        alone_bytes = memory_needed_bytes(task, trains=True, owned_elements=task.state_elements)
        shared = sum(member.samples for member in cluster.members if member.share is Share.RAW)

        def wanted(member: Profile) -> int:
            return shared - (member.samples if member.share is Share.RAW else 0)

        def takes(member: Profile) -> int:
            return min(wanted(member), (member.memory_bytes - alone_bytes) // max(1, task.sample_bytes))

        able = [
            member
            for member in cluster.members
            if member.memory_bytes >= alone_bytes and member.samples + takes(member)
        ]
        if not able:
            return nobody_trains(cluster)
        trainer = min(able, key=lambda member: (wanted(member) - takes(member), -member.speed_kflops, member.device))
        return _plan(cluster, trainer, takes(trainer))


def _plan(cluster: Cluster, trainer: Profile, room: int) -> Plan:
    task = trainer.task
    assignments, idle = [], []
    for member in cluster.members:
        if member.device == trainer.device:
            moved = member.label_counts
        elif member.share is Share.RAW:
            moved = proportional(member.label_counts, min(room, member.samples))
            room -= sum(moved)
        else:
            moved = (0,) * len(member.label_counts)
        left = tuple(map(int.__sub__, member.label_counts, moved))
        if any(moved):
            assignments.append(Assignment(lender=member.device, trainer=trainer.device, counts=moved))
        if any(left):
            reason = NO_ROOM if member.share is Share.RAW else STAYS
            idle.append(Idle(device=member.device, counts=left, reason=reason))
    samples = sum(assignment.samples for assignment in assignments)
    plan = Plan(
        members=(),
        trainers=(TrainerRole(device=trainer.device, round_samples=samples, evaluation=(0, task.evaluation_samples)),),
        assignments=tuple(assignments),
        idle=tuple(idle),
        slices=(SliceOwner(owner=trainer.device, start=0, stop=task.state_elements),),
        encoding=Encoding.FLOAT32,
        consistency=Consistency.AT_END,
        quorum=1,
        samples_total=samples,
    )
    return attrs.evolve(plan, round_us=estimate(cluster, plan).round_us, why=f"{trainer.device} trains alone")
