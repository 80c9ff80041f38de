"""What people should know about a plan: that it begins, whose settings count, and who is left out."""

from collections.abc import Mapping

import structlog

from crowd.agreement.state import Active
from crowd.planning.plan import SUSPENDED, Plan
from crowd.planning.profile import Profile
from crowd.units import DeviceId

log = structlog.get_logger()


def tell_of_plan(active: Active) -> None:
    """Say which plan begins, and why it is as it is."""
    log.info(
        "plan_activated",
        generation=active.generation,
        plan=active.plan_digest.hex()[:8],
        members=[member.device for member in active.plan.members],
        start_round=active.start.round,
        why=active.plan.why,
    )


def warn_of_left_out(plan: Plan) -> None:
    """Name the devices that the others plan without, each with the reason."""
    for left_out in plan.left_out:
        if left_out.reason != SUSPENDED:  # which was said at once
            log.warning("device_left_out", left_out=left_out.device, reason=left_out.reason)


def warn_of_settings(plan: Plan, profiles: Mapping[DeviceId, Profile]) -> None:
    """Name the members whose policy, preference or seed is another than that of the first, which counts for all."""
    first, *others = (profiles[member.device] for member in plan.members)
    for other in others:
        differing = {
            name: f"{theirs}, not {counts}"
            for name, theirs, counts in (
                ("policy", other.policy, first.policy),
                ("prefer", other.prefer.value, first.prefer.value),
                ("seed", other.seed, first.seed),
            )
            if theirs != counts
        }
        if differing:
            log.warning("settings_without_effect", of=other.device, those_count_of=first.device, **differing)
