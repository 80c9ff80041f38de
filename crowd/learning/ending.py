"""The end of a run: what becomes of it after a round. The state that is kept has been evaluated, and by that evaluation
the run has reached its target, if it has one; without a target it is the best that was evaluated. Where a run goes on
with a model, that is kept if it is better."""

from collections.abc import Collection

import attrs
import torch

from crowd.learning import replica
from crowd.learning.replica import Best, ReplicaState
from crowd.learning.task import Task
from crowd.metric_facts import HIGHER
from crowd.planning.phase import (
    BILLION,
    REACHED_STREAK,
    decides,
    held_out,
    is_evaluated,
    is_last,
    is_over,
    is_reached,
)
from crowd.planning.plan import Consistency, Plan
from crowd.planning.round_report import RoundReport
from crowd.units import DeviceId


@attrs.frozen(kw_only=True)
class Goal:
    """When a run has come to its end, but for its epochs."""

    better: str
    """Which of two values is better, "higher" or "lower"."""
    target: float | None
    """The value that ends the run; `None`: the best state is kept."""
    patience: int | None = None
    """Evaluations without an improvement that end a run without a target; `None`: as many as there are."""

    @classmethod
    def of(cls, task: Task) -> "Goal":
        return cls(better=task.metric.better, target=task.target, patience=task.patience)

    def met(self, value: float | None) -> bool:
        """Whether this value meets the target."""
        return self.target is not None and value is not None and not self._is_better(self.target, value)

    def improves(self, value: float | None, best: Best | None) -> bool:
        """Whether this value is better than the best so far."""
        return value is not None and (best is None or self._is_better(value, best.value))

    def is_as_good(self, value: float | None, best: Best) -> bool:
        """Whether this value is not worse than that of `best`."""
        return value is not None and not self._is_better(best.value, value)

    def _is_better(self, value: float, other: float) -> bool:
        return value > other if self.better == HIGHER else value < other


@attrs.frozen(kw_only=True)
class Outcome:
    """What a round, with the evaluation of the state before it, makes of a run."""

    streak: int = 0
    """Consecutive evaluations that met the target, this one included."""
    stays: bool = False
    """Whether the state before the round stays, whatever was trained in it."""
    closing: bool = False
    """Whether the next round is only to evaluate the state after this one."""
    finished: bool = False
    """Whether the run is over."""
    best: Best | None = None
    """The best state that was evaluated, or that with which a run with a target began."""
    waited: int = 0
    """Evaluations since the best one."""
    returns: bool = False
    """Whether the state after the round is the best one."""


def next_streak(streak: int, value: float | None, evaluated: int, goal: Goal) -> int:
    """Consecutive evaluations that have met the target, this one included. Nothing evaluated is no evaluation."""
    if not evaluated:
        return streak
    return streak + 1 if goal.met(value) else 0


def after_round(
    plan: Plan,
    state: ReplicaState,
    *,
    senders: Collection[DeviceId],
    value: float | None,
    evaluated: int,
    epochs_ppb: int,
    goal: Goal,
) -> Outcome:
    """The outcome of the round after `state` that merges these `senders`, whose evaluation of so many samples has this
    `value`, and after which so many billionths of an epoch are trained in all.

    A state that meets the target for the second time in a row is kept, and what was trained meanwhile is not merged
    into it. Where epochs are spent, several trainers bring together what is theirs, or evaluations lag behind the
    state, the next state is `closing`: one more round evaluates it, and trains nothing. A run whose state does not meet
    the target then goes on, if it has epochs left. Without a target see `_without_target`. A run that goes on with a
    model evaluates that first, trains an epoch at least, and keeps that model if its own is not as good.
    """
    if not decides(plan, evaluated):
        value, evaluated = None, 0
    if state.closing and not state.round:
        return _opened(state, value)
    if goal.target is None and plan.consistency is Consistency.EVERY_ROUND:
        exact = state.closing or _is_present(plan, senders, evaluated)
        return _without_target(plan, state, value, evaluated, epochs_ppb, goal, exact=exact)
    outcome = _with_target(plan, state, senders, value, evaluated, epochs_ppb, goal)
    if plan.consistency is Consistency.NONE:
        return outcome  # each device has a model of its own
    if outcome.finished and state.best is not None and not goal.is_as_good(value, state.best):
        streak = REACHED_STREAK if goal.met(state.best.value) else 0
        return attrs.evolve(outcome, streak=streak, stays=True, best=state.best, returns=True)
    return outcome if outcome.finished else attrs.evolve(outcome, best=state.best)


def _opened(state: ReplicaState, value: float | None) -> Outcome:
    """The outcome of the first round of a run that goes on with a model: it has only evaluated that."""
    if value is None:
        return Outcome(stays=True)
    return Outcome(stays=True, best=Best(value=value, exact=True, vector=state.vector, counters=state.counters))


def _has_seen_all(state: ReplicaState) -> bool:
    """Whether a run has come so far that anything but its epochs may end it: one that goes on with a model trains an
    epoch over what is new first."""
    return not state.continues or state.epochs_ppb >= BILLION


def _with_target(
    plan: Plan,
    state: ReplicaState,
    senders: Collection[DeviceId],
    value: float | None,
    evaluated: int,
    epochs_ppb: int,
    goal: Goal,
) -> Outcome:
    """The outcome of a round where there is a target, but for the model with which the run began."""
    streak = next_streak(state.streak, value, evaluated, goal) if _has_seen_all(state) else 0
    if is_evaluated(plan, state):
        met = streak > state.streak
        spent = is_over(plan, 0, state.epochs_ppb)
        return Outcome(streak=streak if met else 0, stays=state.closing, finished=met or spent)
    if plan.consistency is Consistency.AT_END:
        return Outcome(streak=streak, closing=is_last(plan, state))
    if is_reached(streak) and evaluated and _is_present(plan, senders, evaluated):
        return Outcome(streak=streak, stays=True, finished=True)
    return Outcome(streak=streak, closing=is_over(plan, streak, epochs_ppb))


def _without_target(
    plan: Plan, state: ReplicaState, value: float | None, evaluated: int, epochs_ppb: int, goal: Goal, *, exact: bool
) -> Outcome:
    """The same without a target: the best state is remembered, and kept in the end, which comes when the epochs are
    spent or the patience is. `exact`: all evaluations are of `state` itself. Where they are not, the best state is
    evaluated once more, in a closing round, so that its value is its own.

    Where trainers keep parameters of their own no state is the one that was evaluated: there nothing is remembered, and
    such runs end when their epochs are spent, with what they have come to.
    """
    best, waited = state.best, state.waited
    again = state.closing and best is not None and torch.equal(state.vector, best.vector)
    if evaluated and (goal.improves(value, best) or (again and value is not None)):
        assert value is not None
        best, waited = Best(value=value, exact=exact, vector=state.vector, counters=state.counters), 0
    elif evaluated:
        waited += 1
    impatient = goal.patience is not None and waited >= goal.patience and _has_seen_all(state)
    if state.closing or impatient:
        over = best is None or best.exact or again
        return Outcome(best=best, waited=waited, stays=True, returns=best is not None, closing=not over, finished=over)
    return Outcome(best=best, waited=waited, closing=is_over(plan, 0, epochs_ppb))


def state_after(
    outcome: Outcome,
    state: ReplicaState,
    plan: Plan,
    mean_delta: torch.Tensor,
    *,
    samples: int,
    epochs_ppb: int,
    counters: tuple[int, ...],
    report: RoundReport,
) -> ReplicaState:
    """The state after a round with this outcome, in which `samples` were trained, `epochs_ppb` of an epoch, and the
    merged delta is `mean_delta`. `counters` are the largest over the senders, or empty; `report` is of all rounds, this
    one included. Raises like `replica.apply`."""
    if outcome.stays:
        return replica.unchanged(
            state,
            streak=outcome.streak,
            closing=outcome.closing,
            finished=outcome.finished,
            best=outcome.best,
            waited=outcome.waited,
            returns=outcome.returns,
        )
    return replica.apply(
        state,
        plan.outer,
        mean_delta,
        samples=samples,
        epochs_ppb=epochs_ppb,
        counters=counters or state.counters,
        report=report,
        streak=outcome.streak,
        closing=outcome.closing,
        finished=outcome.finished,
        best=outcome.best,
        waited=outcome.waited,
    )


def _is_present(plan: Plan, senders: Collection[DeviceId], evaluated: int) -> bool:
    """Whether all evaluations in a round are of the state before it: those of members that are not among its senders
    may be older, and so may all be in an asynchronous plan."""
    if plan.asynchronous:
        return False
    theirs = sum(member.held_out for member in plan.members if member.device in senders)
    return not held_out(plan) or evaluated <= theirs
