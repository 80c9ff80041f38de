"""What a round makes of a run: whether the state stays, is to be evaluated once more, or is the final one."""

from typing import Any

import attrs
import pytest
import torch

from crowd.learning import replica
from crowd.learning.ending import Goal, Outcome, after_round
from crowd.learning.layout import Layout
from crowd.learning.replica import ReplicaState
from crowd.planning.phase import BILLION, is_last
from crowd.planning.plan import Consistency, Member, Plan, TrainerRole
from crowd.units import DeviceId, Life

PLAN = Plan(members=(), epochs_max=3)
STATE = ReplicaState(layout=Layout.plain(2), vector=torch.ones(2), momentum=torch.ones(2), round=7)
GOAL = Goal(better="higher", target=0.95)
RIGHT, WRONG, NOTHING = (95, 100), (94, 100), (0, 0)


def outcome(
    told: tuple[int, int],
    *,
    streak: int = 0,
    closing: bool = False,
    epochs: int = 1,
    senders: tuple[DeviceId, ...] = (),
    **plan: Any,
) -> Outcome:
    state = attrs.evolve(STATE, streak=streak, closing=closing, epochs_ppb=epochs * BILLION)
    correct, evaluated = told
    return after_round(
        attrs.evolve(PLAN, **plan),
        state,
        senders=senders,
        value=correct / evaluated if evaluated else None,
        evaluated=evaluated,
        epochs_ppb=state.epochs_ppb,
        goal=GOAL,
    )


def test_the_state_that_meets_the_target_for_the_second_time_in_a_row_is_kept() -> None:
    assert outcome(RIGHT) == Outcome(streak=1)
    assert outcome(RIGHT, streak=1) == Outcome(streak=2, stays=True, finished=True)
    assert outcome(WRONG, streak=1) == Outcome(streak=0)
    assert outcome(NOTHING, streak=1) == Outcome(streak=1)


def test_when_the_epochs_are_spent_one_more_round_evaluates_what_has_become_of_them() -> None:
    assert outcome(WRONG, epochs=3) == Outcome(streak=0, closing=True)
    assert outcome(WRONG, epochs=3, closing=True) == Outcome(streak=0, stays=True, finished=True)
    assert outcome(RIGHT, epochs=3, closing=True) == Outcome(streak=1, stays=True, finished=True)
    assert outcome(NOTHING, epochs=3, closing=True) == Outcome(streak=0, stays=True, finished=True)


def test_a_state_that_meets_the_target_with_the_last_epoch_needs_no_further_round() -> None:
    assert outcome(RIGHT, streak=1, epochs=3) == Outcome(streak=2, stays=True, finished=True)


def test_evaluations_of_other_states_than_the_present_one_do_not_end_an_asynchronous_run() -> None:
    assert outcome(RIGHT, streak=1, staleness_max=4) == Outcome(streak=2, closing=True)
    assert outcome(RIGHT, streak=2, staleness_max=4, closing=True) == Outcome(streak=3, stays=True, finished=True)


@pytest.mark.parametrize("told", [WRONG, NOTHING])
def test_a_run_whose_present_state_does_not_keep_the_promise_goes_on(told: tuple[int, int]) -> None:
    assert outcome(told, streak=2, staleness_max=4, closing=True) == Outcome(streak=0, stays=True)


# --- without a common evaluation set ----------------------------------------------------------------------------------

A, B = DeviceId("a"), DeviceId("b")
APART: dict[str, Any] = {
    "members": tuple(Member(device=name, life=Life(incarnation=1, boot=b""), held_out=50) for name in (A, B))
}


def test_an_evaluation_of_less_than_95_percent_of_what_is_held_out_decides_nothing() -> None:
    assert outcome((94, 94), streak=1, senders=(A, B), **APART) == Outcome(streak=1)
    assert outcome((95, 95), streak=1, senders=(A, B), **APART) == Outcome(streak=2, stays=True, finished=True)
    assert outcome((94, 94), streak=2, closing=True, **APART) == Outcome(streak=0, stays=True)
    assert outcome((94, 94), closing=True, epochs=3, **APART) == Outcome(streak=0, stays=True, finished=True)


def test_evaluations_of_members_that_are_not_merged_may_be_older_so_one_more_round_evaluates_the_state() -> None:
    assert outcome(RIGHT, streak=1, senders=(A,), **APART) == Outcome(streak=2, closing=True)
    assert outcome(RIGHT, streak=2, senders=(A,), closing=True, **APART) == Outcome(streak=3, stays=True, finished=True)


def test_trainers_that_bring_their_parameters_together_at_the_end_evaluate_what_comes_of_it() -> None:
    at_end: dict[str, Any] = {"consistency": Consistency.AT_END}
    assert outcome(RIGHT, streak=1, **at_end) == Outcome(streak=2)  # of parameters of their own
    over = attrs.evolve(STATE, streak=2)
    plan = attrs.evolve(PLAN, **at_end)
    assert is_last(plan, over)
    assert outcome(NOTHING, streak=2, **at_end) == Outcome(streak=2, closing=True)
    assert not is_last(plan, attrs.evolve(over, closing=True))
    assert outcome(RIGHT, streak=2, closing=True, **at_end) == Outcome(streak=3, stays=True, finished=True)
    assert outcome(WRONG, streak=2, closing=True, **at_end) == Outcome(streak=0, stays=True)


def test_a_single_trainer_evaluates_its_own_parameters_in_the_round_that_hands_them_in() -> None:
    alone: dict[str, Any] = {
        "consistency": Consistency.AT_END,
        "trainers": (TrainerRole(device=DeviceId("a"), round_samples=1),),
    }
    assert outcome(RIGHT, streak=1, **alone) == Outcome(streak=2)
    assert outcome(RIGHT, streak=2, **alone) == Outcome(streak=3, finished=True)
    assert outcome(WRONG, streak=2, **alone) == Outcome(streak=0)
    assert outcome(WRONG, epochs=3, **alone) == Outcome(streak=0, finished=True)


def test_a_round_that_leaves_the_state_as_it_is_counts_as_a_round_and_nothing_else() -> None:
    closing = attrs.evolve(STATE, closing=True)
    after = replica.unchanged(closing, streak=2, finished=True)
    assert after.vector is STATE.vector
    assert after.momentum is STATE.momentum
    assert (after.round, after.samples, after.closing, after.finished) == (8, STATE.samples, False, True)
    assert after.progress > closing.progress
