"""The way from a view to a plan: who is fit, whose settings count, and the port that a policy fills.

`decide` is what every device computes for itself; equal views give equal plans, on any processor.
"""

import abc
import functools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

import attrs

from crowd.planning.plan import SUSPENDED, LeftOut, Member, Plan
from crowd.planning.profile import Prefer, Profile, differing_parts
from crowd.units import DeviceId

Trait = TypeVar("Trait", int, tuple[int, bytes])


@attrs.frozen(kw_only=True)
class Cluster:
    """The input of a policy: the profiles of the members, sorted by ID, and the settings that count for all of them."""

    members: tuple[Profile, ...]
    """Profiles of the fit devices, at least one, sorted by device ID."""
    prefer: Prefer
    """The cost that the plan should save first."""
    seed: int
    """Seed of the run, for seeded (not random) choices; equal on all devices."""

    @functools.cached_property
    def by_device(self) -> Mapping[DeviceId, Profile]:
        """The members' profiles by device ID."""
        return {member.device: member for member in self.members}

    @functools.cached_property
    def by_link(self) -> tuple[Profile, ...]:
        """The members by the slower direction of their links, the fastest first (ties: the lowest ID)."""
        return tuple(sorted(self.members, key=lambda one: (-min(one.uplink_bytes_s, one.downlink_bytes_s), one.device)))

    @functools.cached_property
    def by_uplink(self) -> tuple[tuple[int, DeviceId], ...]:
        """The uplinks as `(bytes/s, device)`, the slowest first."""
        return tuple(sorted((member.uplink_bytes_s, member.device) for member in self.members))

    @functools.cached_property
    def by_downlink(self) -> tuple[tuple[int, DeviceId], ...]:
        """The downlinks as `(bytes/s, device)`, the slowest first."""
        return tuple(sorted((member.downlink_bytes_s, member.device) for member in self.members))


class Policy(abc.ABC):
    """A pure function from the members' profiles to a plan: no clock, no randomness, no float, no state.

    Found by name through the entry-point group `crowd.policies`.
    """

    version: int = 1
    """Version of the planning rules, raised with every change of what `plan` returns. Devices with different versions
    do not plan together."""

    @abc.abstractmethod
    def plan(self, cluster: Cluster) -> Plan:
        """The plan for a cluster of at least one member with at least one sample between them.

        Must be equal for equal clusters, on any processor, and free of `violations` (`planning.check`), or the engine
        refuses it with `InfeasiblePlan`. `members`, `left_out`, `epochs_max` and `seed` may be left empty: `decide`
        fills them in.
        """


def decide(profiles: tuple[Profile, ...], policies: Mapping[str, Policy], suspended: Collection[DeviceId] = ()) -> Plan:
    """The plan for these living devices, one profile each, in any order (docs/protocol.md#rules: fitness).

    Lives whose versions or task fingerprint are not the commonest (ties: the lowest) are left out, each with its
    reason, and so are those that are `suspended`. The policy, preference and seed of the fit device with the lowest ID
    count. Until a profile shows the run started, and the largest `members_min` is met, the plan contains no work.
    """
    ordered = sorted(profiles, key=lambda profile: profile.device)
    reasons = dict.fromkeys(suspended, SUSPENDED) | _unfit(ordered, policies)
    fit = tuple(profile for profile in ordered if profile.device not in reasons)
    idle_plan = Plan(
        members=tuple(
            Member(
                device=profile.device,
                life=profile.life,
                data_epoch=profile.data_epoch,
                held_out=profile.held_out,
            )
            for profile in fit
        ),
        left_out=tuple(
            LeftOut(device=profile.device, life=profile.life, reason=reasons[profile.device])
            for profile in ordered
            if profile.device in reasons
        ),
    )
    if not fit:
        return attrs.evolve(idle_plan, why="no device is fit to train")
    if not any(profile.samples for profile in fit):
        return attrs.evolve(idle_plan, why="no device has samples")
    needed = max(profile.members_min for profile in fit)
    run = max(profile.run for profile in fit)
    if len(fit) < needed and not any(profile.started for profile in fit if profile.run == run):
        others = "".join(f"; {each.device} is left out: {each.reason}" for each in idle_plan.left_out)
        return attrs.evolve(idle_plan, why=f"{len(fit)} of {needed} devices are here{others}")
    first = fit[0]
    plan = policies[first.policy].plan(Cluster(members=fit, prefer=first.prefer, seed=first.seed))
    return attrs.evolve(
        plan,
        members=idle_plan.members,
        left_out=idle_plan.left_out,
        epochs_max=first.task.epochs_max,
        seed=first.seed,
    )


def _commonest(values: Iterable[Trait]) -> Trait:
    """The most frequent of some values; of those that are equally frequent the lowest."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))


def _unfit(ordered: list[Profile], policies: Mapping[str, Policy]) -> dict[DeviceId, str]:
    """The reason of each device that is left out."""
    reasons = {profile.device: profile.unfit for profile in ordered if profile.unfit}
    candidates = [profile for profile in ordered if not profile.unfit]
    if not candidates:
        return reasons

    protocol, fingerprint = _commonest((profile.protocol_version, profile.task.fingerprint) for profile in candidates)
    # a version is of the device's own policy: nothing is known of it where another one's counts
    versions = {
        policy: _commonest(profile.policy_version for profile in candidates if profile.policy == policy)
        for policy in {profile.policy for profile in candidates}
    }
    for profile in candidates:
        if (profile.protocol_version, profile.policy_version) != (protocol, versions[profile.policy]):
            reasons[profile.device] = "its protocol or policy version differs from the others'"
        elif profile.task.fingerprint != fingerprint:
            parts = differing_parts(profile.task.fingerprint, fingerprint)
            reasons[profile.device] = "its task differs from the others'" + (f" in {', '.join(parts)}" if parts else "")
        elif profile.policy not in policies:
            reasons[profile.device] = f"its policy {profile.policy!r} is not installed here"
    return reasons
