"""What a round does, by its plan and by the state before it."""

import attrs
import pytest

from crowd.actors.trainer.course import Waypoint
from crowd.agreement.ack import StateProgress
from crowd.errors import MalformedMessage
from crowd.planning.phase import BILLION
from crowd.planning.plan import Consistency, Encoding, Plan, SliceOwner, TrainerRole
from crowd.planning.round_plan import RoundPlan, plan_round
from crowd.units import DeviceId

ADA, BEN = DeviceId("ada"), DeviceId("ben")
PLAN = Plan(
    members=(),
    trainers=(TrainerRole(device=ADA, round_samples=5), TrainerRole(device=BEN, round_samples=3)),
    slices=(SliceOwner(owner=BEN, start=0, stop=4),),
    encoding=Encoding.BLOCKWISE8,
    evaluate_every=3,
    round_us=7,
    samples_total=8,
    epochs_max=2,
)
AT_END = attrs.evolve(PLAN, consistency=Consistency.AT_END)
NEVER_EQUAL = attrs.evolve(PLAN, consistency=Consistency.NONE)
ASYNCHRONOUS = attrs.evolve(PLAN, staleness_max=2)


def after(number: int, *, epochs: int = 0, closing: bool = False) -> Waypoint:
    return Waypoint(progress=StateProgress(round=number), epochs_ppb=epochs * BILLION, closing=closing)


def test_a_round_is_as_the_plan_says() -> None:
    assert plan_round(PLAN, after(0)) == RoundPlan(
        number=1,
        slices=PLAN.slices,
        encodings=(Encoding.BLOCKWISE8,),
        quotas={ADA: 5, BEN: 3},
        trains=True,
        closing=False,
        evaluated=False,
        published=True,
        span_us=7,
    )


@pytest.mark.parametrize(
    ("plan", "before", "encoding", "trains", "evaluated"),
    [
        pytest.param(PLAN, after(2), Encoding.BLOCKWISE8, True, True, id="every third is evaluated"),
        pytest.param(PLAN, after(3), Encoding.BLOCKWISE8, True, False, id="others are not"),
        pytest.param(PLAN, after(3, closing=True), Encoding.NONE, False, True, id="but the state that is to be kept"),
        pytest.param(PLAN, after(3, epochs=2), Encoding.BLOCKWISE8, True, False, id="spent epochs alone end nothing"),
        pytest.param(AT_END, after(1), Encoding.NONE, True, False, id="deltas stay where they are"),
        pytest.param(AT_END, after(2, epochs=2), Encoding.BLOCKWISE8, False, False, id="until the end brings them in"),
        pytest.param(AT_END, after(2, closing=True), Encoding.NONE, False, True, id="which is evaluated"),
        pytest.param(NEVER_EQUAL, after(2, epochs=2), Encoding.NONE, True, True, id="or for ever"),
    ],
)
def test_the_phase_of_the_run_decides_what_is_trained_and_told(
    plan: Plan, before: Waypoint, encoding: Encoding, trains: bool, evaluated: bool
) -> None:
    planned = plan_round(plan, before)
    assert (planned.encoding, planned.trains, planned.evaluated) == (encoding, trains, evaluated)
    assert planned.closing == before.closing


def test_one_trainer_alone_evaluates_what_it_brings_in() -> None:
    alone = attrs.evolve(AT_END, trainers=PLAN.trainers[:1])
    assert plan_round(alone, after(1, epochs=2)).evaluated


def test_only_who_asks_gets_anything_of_an_asynchronous_plan() -> None:
    assert not plan_round(ASYNCHRONOUS, after(0)).published


def test_deltas_travel_in_the_encodings_of_their_round_alone() -> None:
    planned = attrs.evolve(plan_round(PLAN, after(0)), encodings=(Encoding.FLOAT32, Encoding.BLOCKWISE8))
    assert planned.encoding is Encoding.BLOCKWISE8
    planned.check_encoding(Encoding.FLOAT32)
    with pytest.raises(MalformedMessage, match="round 1 deltas do not travel as float16"):
        planned.check_encoding(Encoding.FLOAT16)
