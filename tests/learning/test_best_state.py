"""Without a target the best state that was evaluated is remembered, and is what a run ends with."""

import math
from typing import Any

import attrs
import pytest
import torch

from crowd.errors import MalformedMessage
from crowd.learning import replica, state_file
from crowd.learning.ending import Goal, Outcome, after_round, state_after
from crowd.learning.layout import Layout
from crowd.learning.replica import Best, ReplicaState
from crowd.planning.phase import BILLION
from crowd.planning.plan import Consistency, Member, Plan
from crowd.planning.round_report import RoundReport
from crowd.units import DeviceId, Life

PLAN = Plan(members=(), epochs_max=3)
LATE = attrs.evolve(PLAN, staleness_max=4)
GOAL = Goal(better="lower", target=None, patience=2)
STATE = ReplicaState(
    layout=Layout.plain(2), vector=torch.tensor([1.0, 2.0]), counters=(3,), momentum=torch.ones(2), round=7
)
EARLIER = Best(value=5.0, exact=True, vector=torch.tensor([8.0, 9.0]), counters=(2,))
ROUGH = attrs.evolve(EARLIER, exact=False)


def after(
    value: float | None,
    *,
    plan: Plan = PLAN,
    goal: Goal = GOAL,
    epochs: int = 1,
    evaluated: int = 10,
    **state: Any,
) -> tuple[Outcome, ReplicaState]:
    before = attrs.evolve(STATE, epochs_ppb=(epochs - 1) * BILLION, **state)
    outcome = after_round(
        plan, before, senders=(), value=value, evaluated=evaluated, epochs_ppb=epochs * BILLION, goal=goal
    )
    delta = torch.full((2,), 0.5)
    return outcome, state_after(
        outcome, before, plan, delta, samples=6, epochs_ppb=BILLION, counters=(4,), report=RoundReport()
    )


def test_the_state_before_the_round_is_the_best_where_its_value_is() -> None:
    _, state = after(4.0, best=EARLIER, waited=1)
    assert state.best is not None
    assert (state.best.value, state.best.exact, state.waited) == (4.0, True, 0)
    assert state.best.vector is STATE.vector
    assert state.best.counters == STATE.counters
    assert state.vector.tolist() == [1.5, 2.5], "and the run goes on"


@pytest.mark.parametrize("value", [5.0, 6.0, None])
def test_what_is_no_improvement_is_counted(value: float | None) -> None:
    _, state = after(value, best=EARLIER)
    assert state.best is EARLIER
    assert (state.waited, state.finished) == (1, False)


def test_where_higher_is_better_a_lower_value_is_no_improvement() -> None:
    goal = attrs.evolve(GOAL, better="higher")
    assert after(4.0, best=EARLIER, goal=goal)[1].best is EARLIER
    assert after(6.0, best=EARLIER, goal=goal)[1].waited == 0


def test_a_round_without_an_evaluation_leaves_all_as_it_was() -> None:
    _, state = after(None, evaluated=0, best=EARLIER, waited=1)
    assert state.best is EARLIER
    assert state.waited == 1


def test_a_run_that_has_lost_its_patience_ends_with_its_best_state() -> None:
    _, state = after(6.0, best=EARLIER, waited=1)
    assert state.finished
    assert state.vector is EARLIER.vector
    assert (state.counters, state.round, state.samples) == (EARLIER.counters, STATE.round + 1, STATE.samples)
    assert state.best is EARLIER, "whose value is known"


def test_without_patience_a_run_goes_on_to_its_last_epoch() -> None:
    goal = attrs.evolve(GOAL, patience=None)
    outcome, _ = after(6.0, best=EARLIER, waited=1000, goal=goal)
    assert (outcome.finished, outcome.closing) == (False, False)


@pytest.mark.parametrize(("value", "kept"), [(4.0, STATE.vector), (6.0, EARLIER.vector), (None, EARLIER.vector)])
def test_when_the_epochs_are_spent_the_last_state_is_evaluated_too(value: float | None, kept: torch.Tensor) -> None:
    outcome, _ = after(None, evaluated=0, best=EARLIER, epochs=3)
    assert (outcome.closing, outcome.finished) == (True, False)
    _, state = after(value, best=EARLIER, epochs=4, closing=True)
    assert state.finished
    assert torch.equal(state.vector, kept)


def test_a_run_whose_evaluations_have_no_value_ends_with_its_last_state() -> None:
    _, state = after(None, waited=1)
    assert state.finished
    assert state.vector is STATE.vector
    assert state.best is None


def test_where_evaluations_lag_the_best_state_is_evaluated_once_more_before_it_is_kept() -> None:
    _, state = after(6.0, best=ROUGH, waited=1, plan=LATE)
    assert (state.closing, state.finished) == (True, False)
    assert state.vector is ROUGH.vector
    _, state = after(5.5, vector=state.vector, best=state.best, waited=state.waited, closing=True, plan=LATE)
    assert state.finished
    assert state.best is not None
    assert (state.best.value, state.best.exact) == (5.5, True)
    assert torch.equal(state.vector, ROUGH.vector)


def test_where_the_last_state_is_worse_than_an_earlier_one_that_comes_back_and_the_run_ends_after_that() -> None:
    _, state = after(6.0, best=ROUGH, plan=LATE, epochs=4, closing=True)
    assert (state.closing, state.finished) == (True, False)
    assert torch.equal(state.vector, ROUGH.vector)
    _, state = after(None, evaluated=0, vector=state.vector, best=state.best, plan=LATE, epochs=4, closing=True)
    assert state.finished, "even if nobody answers"


def test_an_evaluation_of_too_little_neither_is_the_best_nor_tries_the_patience() -> None:
    held_out = (Member(device=DeviceId("a"), life=Life(incarnation=1, boot=b""), held_out=100),)
    _, state = after(1.0, best=EARLIER, waited=1, plan=attrs.evolve(PLAN, members=held_out), evaluated=94)
    assert state.best is EARLIER
    assert state.waited == 1


def test_where_trainers_keep_parameters_of_their_own_nothing_is_remembered() -> None:
    for consistency in (Consistency.AT_END, Consistency.NONE):
        outcome, _ = after(4.0, plan=attrs.evolve(PLAN, consistency=consistency), epochs=3)
        assert outcome.best is None


# --- as a part of the state -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"waited": 1},
        {"best": attrs.evolve(EARLIER, value=math.nextafter(5.0, 6.0))},
        {"best": ROUGH},
        {"best": attrs.evolve(EARLIER, vector=torch.tensor([8.0, 9.5]))},
        {"best": attrs.evolve(EARLIER, counters=(1,))},
        {"best": None},
    ],
)
def test_the_digest_covers_the_best_state(changes: dict[str, Any]) -> None:
    state = attrs.evolve(STATE, best=EARLIER)
    assert attrs.evolve(state, **changes).digest != state.digest


@pytest.mark.parametrize("best", [EARLIER, ROUGH, attrs.evolve(EARLIER, vector=STATE.vector)])
def test_who_fetches_a_state_gets_the_best_one_too(best: Best) -> None:
    state = attrs.evolve(STATE, best=best, waited=3)
    back = state_file.from_bytes(state_file.to_bytes(state), STATE.layout, 1)
    assert back.digest == state.digest
    assert back.waited == 3
    assert back.best is not None
    assert (back.best.value, back.best.exact, back.best.counters) == (best.value, best.exact, best.counters)
    assert torch.equal(back.best.vector, best.vector)
    assert state_file.to_bytes(back) == state_file.to_bytes(state)


def test_a_best_state_that_is_the_present_one_travels_once() -> None:
    large = attrs.evolve(STATE, layout=Layout.plain(1000), vector=torch.rand(1000), momentum=None)
    twice = attrs.evolve(large, best=attrs.evolve(EARLIER, vector=large.vector.clone()))
    other = attrs.evolve(large, best=attrs.evolve(EARLIER, vector=torch.rand(1000)))
    assert len(state_file.to_bytes(other)) > len(state_file.to_bytes(twice)) + 3900


@pytest.mark.parametrize("value", ["5.0", "NaN", "null", '"5"', "5"])
def test_a_best_state_with_a_value_that_is_none_is_malformed(value: str) -> None:
    data = state_file.to_bytes(attrs.evolve(STATE, best=EARLIER))
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].replace(b'\\"value\\": 5.0', b'\\"value\\": ' + value.replace('"', '\\"').encode())
    wrong = len(header).to_bytes(8, "little") + header + data[8 + size :]
    if value == "5.0":
        assert state_file.from_bytes(wrong, STATE.layout, 1).best is not None
        return
    with pytest.raises(MalformedMessage):
        state_file.from_bytes(wrong, STATE.layout, 1)


def test_a_state_keeps_no_copy_of_the_best_one() -> None:
    best = attrs.evolve(EARLIER, vector=STATE.vector)
    after_one = replica.unchanged(STATE, streak=0, finished=False, best=best)
    assert after_one.best is not None
    assert after_one.best.vector is after_one.vector is STATE.vector
