"""The end of a run: what becomes of it after a round. The state that is kept has been evaluated, and by that evaluation
the run has reached its target or not."""

from collections.abc import Collection

import attrs

from crowd.learning.evaluation import next_streak
from crowd.learning.phase import decides, held_out, is_evaluated, is_last, is_over, is_reached
from crowd.learning.replica import ReplicaState
from crowd.planning.plan import Consistency, Plan
from crowd.units import DeviceId


@attrs.frozen(kw_only=True)
class Outcome:
    """What a round, with the evaluation of the state before it, makes of a run."""

    streak: int
    """Consecutive evaluations that met the target, this one included."""
    stays: bool = False
    """Whether the state before the round stays, whatever was trained in it."""
    closing: bool = False
    """Whether the next round is only to evaluate the state after this one."""
    finished: bool = False
    """Whether the run is over."""


def after_round(
    plan: Plan,
    state: ReplicaState,
    *,
    senders: Collection[DeviceId],
    correct: int,
    evaluated: int,
    epochs_ppb: int,
    target: float,
) -> Outcome:
    """The outcome of the round after `state` that merges these `senders`, in whose evaluation so many of `evaluated`
    samples were right, and after which so many billionths of an epoch are trained in all.

    A state that meets the target for the second time in a row is kept, and what was trained meanwhile is not merged
    into it. Where epochs are spent, several trainers bring together what is theirs, or evaluations lag behind the
    state, the next state is `closing`: one more round evaluates it, and trains nothing. A run whose state does not meet
    the target then goes on, if it has epochs left.
    """
    if not decides(plan, evaluated):
        correct = evaluated = 0
    streak = next_streak(state.streak, correct, evaluated, target)
    if is_evaluated(plan, state):
        met = streak > state.streak
        spent = is_over(plan, 0, state.epochs_ppb)
        return Outcome(streak=streak if met else 0, stays=state.closing, finished=met or spent)
    if plan.consistency is Consistency.AT_END:
        return Outcome(streak=streak, closing=is_last(plan, state))
    if is_reached(streak) and evaluated and _is_present(plan, senders, evaluated):
        return Outcome(streak=streak, stays=True, finished=True)
    return Outcome(streak=streak, closing=is_over(plan, streak, epochs_ppb))


def _is_present(plan: Plan, senders: Collection[DeviceId], evaluated: int) -> bool:
    """Whether all evaluations in a round are of the state before it: those of members that are not among its senders
    may be older, and so may all be in an asynchronous plan."""
    if plan.asynchronous:
        return False
    theirs = sum(member.held_out for member in plan.members if member.device in senders)
    return not held_out(plan) or evaluated <= theirs
