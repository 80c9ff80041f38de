"""What the planner tells the node's observers."""

from typing import TypeAlias

import attrs

from crowd.agreement.state import Active
from crowd.planning.plan import Plan
from crowd.protocol.messages import ResultMessage
from crowd.units import DeviceId


@attrs.frozen(kw_only=True)
class PlanActivated:
    """The node's observers are told that a new generation has begun."""

    active: Active


@attrs.frozen(kw_only=True)
class ResultKnown:
    """The node's observers are told that a device has published the result of its run."""

    device: DeviceId
    result: ResultMessage


@attrs.frozen(kw_only=True)
class RunBegun:
    """The node's observers are told that this device takes part in this run from now on."""

    run: int


@attrs.frozen(kw_only=True)
class RunOver:
    """The node's observers are told that every living member has published the result of this run."""

    run: int


@attrs.frozen(kw_only=True)
class DeviceLeftOut:
    """The node's observers are told that the others plan without this device; the plan says why."""

    plan: Plan


Observation: TypeAlias = DeviceLeftOut | PlanActivated | ResultKnown | RunBegun | RunOver
