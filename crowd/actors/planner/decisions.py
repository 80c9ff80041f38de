"""The plans that follow from views: `Decisions`."""

from collections.abc import Mapping

from crowd.agreement.state import Decision
from crowd.agreement.view import View
from crowd.errors import InfeasiblePlan
from crowd.planning.check import violations
from crowd.planning.plan import plan_digest
from crowd.planning.policy import Policy, decide

DECISIONS_MAX = 16
"""Views of which the plan is kept."""


class Undecided(Exception):
    """A step needs a plan that has not been computed yet.

    Raised by `Decisions.known` through the agreement, which is pure: the step is dropped, the plan computed outside of
    the event loop, and the step made anew with the same state and event.
    """

    def __init__(self, view: View) -> None:
        self.view = view


class Decisions:
    """Computes the plan of each view once."""

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        self._policies = policies
        self._known: dict[bytes, Decision] = {}

    def __len__(self) -> int:
        """Plans that are kept."""
        return len(self._known)

    def known(self, view: View) -> Decision:
        """The plan that follows from this view. Raises `Undecided` if it has not been computed."""
        if view.digest not in self._known:
            raise Undecided(view)
        return self._known[view.digest]

    def keep(self, view: View, decision: Decision) -> None:
        while len(self._known) >= DECISIONS_MAX:
            del self._known[next(iter(self._known))]
        self._known[view.digest] = decision

    def work_out(self, view: View) -> Decision:
        """Compute it, in a worker thread. Raises `InfeasiblePlan` if the policy makes one that cannot be carried
        out."""
        plan = decide(view.living, self._policies, view.suspended)
        broken = violations(plan, view.living)
        if broken:
            raise InfeasiblePlan(f"the policy made a plan that cannot be carried out: {broken[0]}")
        return Decision(plan=plan, plan_digest=plan_digest(plan))
