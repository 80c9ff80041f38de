"""In which phase of its life a run is, by the plan and by the counts of its state. Without torch."""

from typing import Protocol

from crowd.planning.plan import Consistency, Plan
from crowd.planning.round_report import RoundReport

BILLION = 1_000_000_000
COVERED_PERCENT = 95
"""Part of what members hold out that an evaluation must cover to decide anything, where there is no common set."""
REACHED_STREAK = 2
"""Consecutive evaluations that must meet the target."""


class Counts(Protocol):
    """The counts of a state of the run; `ReplicaState` has them."""

    @property
    def round(self) -> int: ...
    @property
    def streak(self) -> int: ...
    @property
    def epochs_ppb(self) -> int: ...
    @property
    def closing(self) -> bool: ...
    @property
    def report(self) -> RoundReport: ...


def is_reached(streak: int) -> bool:
    """Whether so many consecutive evaluations that met the target end the run."""
    return streak >= REACHED_STREAK


def is_over(plan: Plan, streak: int, epochs_ppb: int) -> bool:
    """Whether a run has met its target, or spent its epochs (in billionths)."""
    return is_reached(streak) or epochs_ppb >= plan.epochs_max * BILLION


def is_last(plan: Plan, state: Counts) -> bool:
    """Whether the round after `state` only brings together what trainers have kept to themselves."""
    at_end = plan.consistency is Consistency.AT_END
    return at_end and not state.closing and is_over(plan, state.streak, state.epochs_ppb)


def is_evaluated(plan: Plan, state: Counts) -> bool:
    """Whether the round after `state` is evaluated, whenever an evaluation is due otherwise."""
    return state.closing or (is_last(plan, state) and len(plan.trainers) == 1 and not held_out(plan))


def held_out(plan: Plan) -> int:
    """Samples that the members hold out for evaluations, in all; 0 where there is a common set."""
    return sum(member.held_out for member in plan.members)


def decides(plan: Plan, evaluated: int) -> bool:
    """Whether an evaluation of so many samples covers enough to decide anything."""
    return 100 * evaluated >= COVERED_PERCENT * held_out(plan)
