"""What was in fact not trained of what was planned to be, as the devices of a run see it."""

import anyio
import attrs

from crowd.actors.trainer.turnout import Turnout
from crowd.node import Node
from crowd.planning.plan import Assignment, Encoding, Plan, SliceOwner, TrainerRole
from crowd.planning.policy import Cluster, Policy
from crowd.protocol.messages import MergedSlice, SliceKey
from crowd.units import SECOND_US, DeviceId
from devices.simulation.device import SimulatedCluster
from devices.simulation.virtual_time import run_virtually
from tests.node.cluster import blobs

ADA, BEN, CY = (DeviceId(name) for name in ("ada", "ben", "cy"))
PLAN = Plan(
    members=(),
    trainers=(TrainerRole(device=ADA, round_samples=60), TrainerRole(device=BEN, round_samples=40)),
    assignments=(
        Assignment(lender=ADA, trainer=ADA, counts=(300,)),
        Assignment(lender=BEN, trainer=BEN, counts=(150, 50)),
        Assignment(lender=CY, trainer=BEN, counts=(0, 70)),
    ),
    slices=(SliceOwner(owner=ADA, start=0, stop=4),),
)


def after(*merged: dict[DeviceId, int], plan: Plan = PLAN, refused: tuple[DeviceId, ...] = ()) -> Turnout:
    """Rounds of a plan, each with the samples of its senders."""
    turnout = Turnout()
    for number, senders in enumerate(merged, 1):
        key = SliceKey(generation=1, plan_digest=b"plan", round=number, index=0)
        turnout.note(plan, MergedSlice(key=key, encoding=Encoding.FLOAT32, senders=senders, refused=refused))
    return turnout


def test_samples_of_whoever_lent_them_are_hardly_trained_if_their_trainer_is_late_in_all_rounds_but_one() -> None:
    turnout = after({ADA: 60, BEN: 40}, *[{ADA: 60}] * 10)
    why = "of 440 that ben was to train in the rounds 40 count, as the rounds ended before its contributions came"
    assert turnout.hardly_trained(PLAN, 11) == {"ben": (200, why), "cy": (70, why)}


def test_nothing_is_said_of_who_has_trained_a_tenth() -> None:
    assert after({ADA: 60, BEN: 40}, *[{ADA: 60}] * 9).hardly_trained(PLAN, 10) == {}


def test_who_was_refused_is_told_from_who_came_too_late() -> None:
    found = after(*[{ADA: 60}] * 3, refused=(BEN,)).hardly_trained(PLAN, 3)
    assert found is not None
    assert found["ben"][1].endswith("as its contributions were out of all proportion")


def test_in_a_round_that_only_evaluates_nobody_is_to_train() -> None:
    assert after({ADA: 60, BEN: 4}, *[{ADA: 0, BEN: 0}] * 9).hardly_trained(PLAN, 10) == {}


def test_each_trainer_is_meant_equally_often_in_merges_that_take_whoever_comes() -> None:
    plan = attrs.evolve(PLAN, staleness_max=4, quorum=1)
    assert after(*[{ADA: 60}] * 4, {BEN: 40}, plan=plan).hardly_trained(plan, 5) == {}


def test_who_has_seen_less_than_half_of_the_rounds_does_not_know() -> None:
    assert after({ADA: 60}, {ADA: 60}).hardly_trained(PLAN, 5) is None


class WhoIsFirst(Policy):
    """All train their own samples, and a round is over when one has."""

    def plan(self, cluster: Cluster) -> Plan:
        return Plan(
            members=(),
            trainers=tuple(
                TrainerRole(
                    device=member.device,
                    round_samples=member.samples,
                    evaluation=(0, 400) if member.device == ADA else (400, 400),
                )
                for member in cluster.members
            ),
            assignments=tuple(
                Assignment(lender=member.device, trainer=member.device, counts=member.label_counts)
                for member in cluster.members
            ),
            slices=(SliceOwner(owner=ADA, start=0, stop=cluster.members[0].task.state_elements),),
            quorum=1,
            samples_total=sum(member.samples for member in cluster.members),
            round_us=SECOND_US,
            why="who is first counts",
        )


def test_a_run_whose_rounds_went_on_without_a_slow_device_says_whose_samples_were_hardly_trained() -> None:
    task, told = blobs(epochs_max=3), {}
    cluster = SimulatedCluster({"ada": 400, "ben": 100}, task, policy="first", policies={"first": WhoIsFirst()})

    async def follow(node: Node) -> None:
        async for progress in node.progress():
            told[node.name] = progress.hardly_trained

    async def play() -> None:
        async with anyio.create_task_group() as tasks:
            for device in cluster.devices.values():
                tasks.start_soon(device.live, follow)

    run_virtually(play)
    found = {
        "ben": (
            200,
            "of 1,200 that ben was to train in the rounds 0 count, as the rounds ended before its contributions came",
        )
    }
    assert told == {"ada": found, "ben": found}
