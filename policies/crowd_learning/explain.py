"""The explanation of a plan in one sentence for people."""

from crowd.planning.plan import Plan
from crowd.planning.policy import Cluster
from crowd.units import DeviceId

NAMES_MAX = 2
"""Devices that are named; of more, the number is given."""


def explain(cluster: Cluster, plan: Plan) -> str:
    """The reason of `plan` in one sentence: who trains, who lends what, what stays idle and how long a round takes."""
    held = {member.device: member.samples for member in cluster.members}
    trainers = {trainer.device for trainer in plan.trainers}
    lent: dict[DeviceId, int] = {}
    for assignment in plan.assignments:
        if assignment.lender != assignment.trainer:
            lent[assignment.lender] = lent.get(assignment.lender, 0) + assignment.samples
    if len(trainers) == 1:
        clauses = [f"{next(iter(trainers))} trains all {plan.samples_total:,} samples alone"]
    else:
        clauses = [f"{len(trainers)} of {len(held)} devices train in proportion to their speed"]
    wholly = [device for device in sorted(lent) if device not in trainers and lent[device] == held[device]]
    partly = sum(count for device, count in lent.items() if device not in wholly)
    if 0 < len(wholly) <= NAMES_MAX:
        clauses.extend(f"{device} lends all its {lent[device]:,} samples" for device in wholly)
    elif wholly:
        clauses.append(f"{len(wholly)} devices lend all their {sum(lent[device] for device in wholly):,} samples")
    if partly:
        clauses.append(f"{partly:,} {'more ' if wholly else ''}samples move")
    elif not lent and len(held) > 1:
        clauses.append("no samples move")
    clauses.extend(
        f"{sum(idle.counts):,} samples of {idle.device} are idle: {idle.reason}" for idle in plan.idle[:NAMES_MAX]
    )
    if len(plan.idle) > NAMES_MAX:
        clauses.append(f"samples of {len(plan.idle) - NAMES_MAX} more devices are idle")
    return "; ".join([*clauses, f"est. {_seconds(plan.round_us)} a round"])


def _seconds(time_us: int) -> str:
    if time_us < 100_000:
        return f"{-(-time_us // 1_000)} ms"
    tenths = (time_us + 50_000) // 100_000
    return f"{tenths // 10:,}.{tenths % 10} s"
