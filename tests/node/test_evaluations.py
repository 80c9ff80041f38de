"""What an owner makes of evaluations that come from all sides, without a common evaluation set."""

from contextlib import nullcontext

import attrs
import pytest
import torch

from crowd.actors.trainer.course import Waypoint
from crowd.actors.trainer.effects import Merge
from crowd.actors.trainer.evaluations import Evaluations, epoch_rounds
from crowd.actors.trainer.own_slices import EVALUATION_DEADLINES
from crowd.actors.trainer.rounds import Rounds
from crowd.errors import MalformedMessage
from crowd.learning.evaluation import NOTHING, Evaluation
from crowd.learning.merge import SliceMerge
from crowd.planning.plan import Encoding, Member, Plan, SliceOwner, TrainerRole
from crowd.protocol.messages import Contribution, SliceKey
from crowd.units import SECOND_US, DeviceId, Life
from tests.node.test_rounds import ACTIVE, ADA, BEN, START, merged

CY = DeviceId("cy")
LIFE = Life(incarnation=1, boot=b"")
PLAN = Plan(
    members=(
        Member(device=ADA, life=LIFE, held_out=60),
        Member(device=BEN, life=LIFE, held_out=40),
        Member(device=CY, life=LIFE),
    ),
    trainers=(TrainerRole(device=ADA, round_samples=10),),
    slices=(SliceOwner(owner=ADA, start=0, stop=4),),
    round_us=SECOND_US,
    samples_total=35,
    epochs_max=99,
)


def counted(correct: int, evaluated: int) -> Evaluation:
    return Evaluation(sums=(float(correct), float(evaluated)), samples=evaluated)


def test_the_latest_of_each_member_are_summed_up() -> None:
    told = Evaluations(PLAN)
    told.note(ADA, 1, counted(50, 60), in_hand=1)
    assert told.summed(1, exact=False) == NOTHING  # too little to decide anything
    told.note(BEN, 1, counted(10, 40), in_hand=2)
    told.note(ADA, 2, counted(60, 60), in_hand=2)
    told.note(ADA, 1, counted(0, 60), in_hand=2)  # late
    assert told.summed(2, exact=False) == counted(70, 100)


def test_nothing_is_told_twice() -> None:
    told = Evaluations(PLAN)
    told.note(ADA, 1, counted(60, 60), in_hand=1)
    told.note(BEN, 1, counted(40, 40), in_hand=1)
    assert told.summed(1, exact=False) == counted(100, 100)
    assert told.summed(2, exact=False) == NOTHING


@pytest.mark.parametrize(("took", "good_until"), [(0, 5), (3, 11)])
def test_an_evaluation_counts_for_an_epoch_and_a_slow_members_for_as_long_as_its_next_one_takes(
    took: int, good_until: int
) -> None:
    assert epoch_rounds(PLAN) == 4
    told = Evaluations(PLAN)
    told.note(BEN, 1, counted(40, 40), in_hand=1 + took)
    for number in (good_until, good_until + 1):
        told.note(ADA, number, counted(60, 60), in_hand=number)
        assert told.summed(number, exact=False) == (counted(100, 100) if number == good_until else NOTHING)


def test_of_the_very_state_only_evaluations_of_it_count_however_few() -> None:
    told = Evaluations(PLAN)
    told.note(BEN, 1, counted(40, 40), in_hand=1)
    told.note(ADA, 2, counted(50, 60), in_hand=2)
    assert told.awaited(2)
    assert told.summed(2, exact=True) == counted(50, 60)
    told.note(BEN, 2, counted(30, 40), in_hand=2)
    assert not told.awaited(2)
    assert told.summed(2, exact=True) == counted(80, 100)


@pytest.mark.parametrize(("device", "evaluated"), [(ADA, 61), (CY, 1), (DeviceId("eve"), 1)])
def test_an_evaluation_of_more_than_a_member_holds_out_is_refused(device: DeviceId, evaluated: int) -> None:
    with pytest.raises(MalformedMessage, match="holds out"):
        Evaluations(PLAN).note(device, 1, counted(1, evaluated), in_hand=1)


def contribution(number: int, correct: int, evaluated: int) -> Contribution:
    key = SliceKey(generation=1, plan_digest=b"plan", round=number, index=0)
    return Contribution(
        key=key, encoding=Encoding.NONE, samples=0, sums=counted(correct, evaluated).sums, evaluated=evaluated
    )


def closing() -> Rounds:
    """Of `ada`, who merges, trains, and evaluates what came of the first round; `ben` has not evaluated it."""
    rounds = Rounds(ADA, SliceMerge)
    rounds.reset(Waypoint(progress=START))
    rounds.activate(attrs.evolve(ACTIVE, plan=PLAN), 0)
    rounds.accepted(Waypoint(progress=attrs.evolve(START, round=1, digest=b"next"), closing=True), 0)
    assert rounds.contribute(ADA, contribution(2, 50, 60), torch.zeros(4), 0) == ()
    return rounds


def test_a_closing_round_waits_for_members_that_train_nothing() -> None:
    (effect,) = closing().evaluated(BEN, contribution(2, 30, 40), SECOND_US)
    assert isinstance(effect, Merge)
    assert (effect.key, effect.evaluation) == (merged(2).key, counted(80, 100))


def test_a_closing_round_does_not_wait_for_ever() -> None:
    rounds = closing()
    due_us = rounds.next_deadline_us()
    assert due_us is not None
    assert due_us >= EVALUATION_DEADLINES * SECOND_US
    assert rounds.tick(due_us - 1) == ()
    (effect,) = rounds.tick(due_us)
    assert isinstance(effect, Merge)
    assert effect.evaluation == counted(50, 60)


@pytest.mark.parametrize("evaluated", [20, 21])
def test_an_evaluation_of_more_than_the_senders_share_of_the_common_set_is_refused(evaluated: int) -> None:
    shared = attrs.evolve(
        PLAN,
        members=tuple(attrs.evolve(member, held_out=0) for member in PLAN.members),
        trainers=tuple(attrs.evolve(trainer, evaluation=(10, 30)) for trainer in PLAN.trainers),
    )
    rounds = Rounds(ADA, SliceMerge)
    rounds.reset(Waypoint(progress=START))
    rounds.activate(attrs.evolve(ACTIVE, plan=shared), 0)
    with pytest.raises(MalformedMessage, match="evaluated 21 samples, not 20") if evaluated > 20 else nullcontext():
        rounds.contribute(ADA, contribution(1, 5, evaluated), torch.zeros(4), 0)
