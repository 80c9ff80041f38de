"""What a device that lags does about slices that will not come by themselves."""

from typing import Any

import attrs
import pytest

from crowd.actors.trainer.course import Waypoint
from crowd.actors.trainer.effects import AskForSlice, Complete, Fetch, ReportHeldUp, ReportSilence
from crowd.actors.trainer.merged_parts import ROUNDS_AHEAD_MAX
from crowd.actors.trainer.rounds import Rounds
from crowd.agreement.ack import StateProgress
from crowd.agreement.state import Active
from crowd.learning.merge import SliceMerge
from crowd.planning.plan import Encoding, Member, Plan, SliceOwner, TrainerRole
from crowd.protocol.messages import MergedSlice, SliceKey, WholeState
from crowd.units import SECOND_US, DeviceId, Life

ADA, BEN = DeviceId("ada"), DeviceId("ben")
START = StateProgress(run=1, digest=b"start")
PLAN = Plan(
    members=tuple(Member(device=device, life=Life(incarnation=1, boot=b"")) for device in (ADA, BEN)),
    trainers=(TrainerRole(device=ADA, round_samples=1),),
    slices=(SliceOwner(owner=ADA, start=0, stop=4),),
    round_us=SECOND_US,
    samples_total=1,
    epochs_max=99,
)
ACTIVE = Active(generation=1, view_digest=b"", plan_digest=b"plan", plan=PLAN, start=START, holders=(ADA,))
LATER_US = 3 * SECOND_US


def merged(number: int) -> MergedSlice:
    key = SliceKey(generation=1, plan_digest=b"plan", round=number, index=0)
    return MergedSlice(key=key, encoding=Encoding.FLOAT32, senders={ADA: 1})


def behind(rounds_heard: int) -> Rounds:
    """Of `ben`, who fetches the start while `ada` completes so many rounds, and then applies what was kept of them."""
    rounds = Rounds(BEN, SliceMerge)
    assert rounds.activate(ACTIVE, 0) == (Fetch(progress=START, holders=(ADA,)),)
    for number in range(1, rounds_heard + 1):
        assert rounds.merged(ADA, merged(number), b"", 0) == ()
    effects = rounds.fetched(Waypoint(progress=START), 0)
    while effects and isinstance(effects[0], Complete):
        effects = rounds.accepted(Waypoint(progress=StateProgress(run=1, round=effects[0].round, digest=b"next")), 0)
    return rounds


def test_a_slice_that_never_came_is_asked_for() -> None:
    rounds = behind(ROUNDS_AHEAD_MAX + 1)
    assert rounds.in_hand == ROUNDS_AHEAD_MAX + 2
    held_up = ReportHeldUp(devices=frozenset({ADA}), since_us=0, links=1)
    assert rounds.tick(LATER_US) == (held_up, AskForSlice(owner=ADA, key=merged(rounds.in_hand).key))


def test_no_answer_of_an_owner_changes_since_when_it_has_been_waited_for() -> None:
    rounds = behind(1)
    key = merged(rounds.in_hand).key
    for second in range(3, 60):
        held_up = [effect for effect in rounds.tick(second * SECOND_US) if isinstance(effect, ReportHeldUp)]
        assert held_up == [ReportHeldUp(devices=frozenset({ADA}), since_us=0, links=1)]
        rounds.not_yet(ADA, key, second * SECOND_US)
    rounds.restart_clocks(60 * SECOND_US)
    assert ReportHeldUp(devices=frozenset({ADA}), since_us=60 * SECOND_US, links=1) in rounds.tick(61 * SECOND_US)


def test_an_owner_that_says_nothing_is_reported_and_asked_on_less_and_less_often() -> None:
    """It may be the question that was lost."""
    rounds = behind(1)
    asked_s, reported_s = [], []
    for tenth in range(1, 100):
        for effect in rounds.tick(tenth * SECOND_US // 10):
            match effect:
                case AskForSlice():
                    asked_s.append(tenth / 10)
                case ReportSilence():
                    reported_s.append(tenth / 10)
                case _:
                    pass
    assert asked_s == [1.0, 1.5, 2.0, 2.5, *reported_s]
    assert reported_s == [3.0, 4.0, 6.0]


@pytest.mark.parametrize("other", [{"generation": 0}, {"generation": 2}, {"plan_digest": b"other"}])
def test_a_slice_that_was_merged_under_another_plan_is_not_taken(other: dict[str, Any]) -> None:
    rounds = behind(0)
    ours = merged(rounds.in_hand)
    assert rounds.merged(ADA, attrs.evolve(ours, key=attrs.evolve(ours.key, **other)), b"other", 0) == ()
    (complete,) = rounds.merged(ADA, ours, b"ours", 0)
    assert isinstance(complete, Complete)
    assert [part.data for part in complete.parts] == [b"ours"]


def test_a_device_that_missed_too_many_rounds_fetches_the_state_and_goes_on_from_what_came_meanwhile() -> None:
    latest = ROUNDS_AHEAD_MAX + 2
    rounds = behind(latest)
    assert rounds.in_hand == 1
    (fetch,) = rounds.tick(0)
    assert fetch == Fetch(progress=StateProgress(run=1, round=1), holders=(ADA,))
    assert rounds.tick(LATER_US) != (fetch,), "asked once"
    for number in range(latest + 1, latest + 4):
        rounds.merged(ADA, merged(number), b"", 0)
    (complete,) = rounds.fetched(Waypoint(progress=StateProgress(run=1, round=latest, digest=b"newer")), 0)
    assert isinstance(complete, Complete)
    assert complete.round == latest + 1


@pytest.mark.parametrize("other", [{"generation": 0}, {"generation": 2}, {"plan_digest": b"other"}])
def test_a_later_state_is_as_good_as_the_wanted_one_only_if_it_is_of_the_same_plan(other: dict[str, Any]) -> None:
    rounds = behind(0)
    wanted = StateProgress(run=1, round=1, digest=b"m")
    for round_number, digest in ((2, b"a"), (1, b"z")):
        later = WholeState(
            progress=StateProgress(run=1, round=round_number, digest=digest),
            generation=1,
            plan_digest=ACTIVE.plan_digest,
        )
        assert rounds.serves(later, wanted)
        assert not rounds.serves(attrs.evolve(later, **other), wanted)
        assert rounds.serves(attrs.evolve(later, **other), later.progress), "it is the very one"
    earlier = WholeState(progress=START, generation=1, plan_digest=ACTIVE.plan_digest)
    assert not rounds.serves(earlier, wanted)


def test_a_state_belongs_to_a_plan_once_the_start_of_that_has_come() -> None:
    rounds = Rounds(BEN, SliceMerge)
    assert rounds.lineage == (0, b"")
    rounds.activate(ACTIVE, 0)
    assert rounds.lineage == (0, b"")
    rounds.fetched(Waypoint(progress=START), 0)
    assert rounds.lineage == (ACTIVE.generation, ACTIVE.plan_digest)


def test_who_asks_for_a_slice_that_its_owner_no_longer_keeps_fetches_the_state_once() -> None:
    rounds = behind(1)
    key = merged(rounds.in_hand).key
    assert AskForSlice(owner=ADA, key=key) in rounds.tick(LATER_US)
    assert rounds.over(BEN, key) == (), "who is not its owner has no say"
    assert rounds.over(ADA, merged(rounds.in_hand + 1).key) == (), "of another round"
    (fetch,) = rounds.over(ADA, key)
    assert isinstance(fetch, Fetch)
    assert (fetch.progress.round, fetch.holders) == (rounds.in_hand, (ADA,))
    assert rounds.over(ADA, key) == ()
    assert rounds.next_deadline_us() is None
