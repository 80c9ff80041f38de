"""What a node tells its probe is what happened, and telling it changes nothing."""

import inspect
import random
from functools import partial
from typing import Any

import anyio
import pytest
import torch

from crowd.actors.probe import Probe
from crowd.agreement.ack import StateProgress
from crowd.agreement.state import Active
from crowd.learning.replica import ReplicaState
from crowd.ports import Delivery
from crowd.protocol.codec import Reason, Sealer
from crowd.protocol.messages import Contribution, Done
from crowd.units import Address, Channel, DeviceId, Life, device_id
from tests.node.cluster import CLUSTER, Cluster, blobs, round_of, signers
from tests.support.virtual import run_virtually

FACTS = {name for name, _ in inspect.getmembers(Probe, inspect.isfunction)}
TOLD_ELSEWHERE = {"suspended", "resumed"}
"""In test_hang and test_resume."""
NAMES = ("ada", "ben", "cy")


class Told(Probe):
    """Remembers all facts in their order, with copies of the tensors."""

    def __init__(self) -> None:
        self.facts: list[tuple[str, inspect.BoundArguments]] = []
        for name in FACTS:
            setattr(self, name, partial(self._tell, name, inspect.signature(getattr(self, name))))

    def _tell(self, name: str, signature: inspect.Signature, *arguments: Any, **named: Any) -> None:
        bound = signature.bind(*arguments, **named)
        for key, value in bound.arguments.items():
            if isinstance(value, torch.Tensor):
                bound.arguments[key] = value.clone()
        self.facts.append((name, bound))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [bound.arguments for fact, bound in self.facts if fact == name]


def course(*, told: bool) -> tuple[dict[str, Told], list[tuple[DeviceId, Delivery]]]:
    """A run that one device leaves without a word and another joins after some rounds: what was told, and what was
    published."""
    probes = {name: Told() for name in NAMES}
    cluster = Cluster(*NAMES)
    for name in NAMES:
        task = blobs(100, target=1.0, epochs_max=40)
        cluster.add(name, task, chance=random.Random(name), probe=probes[name] if told else None)

    async def join_late() -> None:
        await round_of(cluster.nodes["ada"], 2)
        await cluster.play("cy")

    async def leave() -> None:
        await round_of(cluster.nodes["cy"], 4)
        cluster.unplug("ben")

    async def knock() -> None:
        stranger = device_id("mallory")
        life = Life(incarnation=1, boot=bytes(16))
        sealer = Sealer(CLUSTER, stranger, life, signers(stranger)[stranger])
        address = Address(channel=Channel.TO, source=stranger, destination=device_id("ada"))
        await round_of(cluster.nodes["ada"], 3)
        async with cluster.raw("mallory").session() as session:
            await session.publish(address, sealer.seal(address, Done(transfer="a")))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(knock)
            tasks.start_soon(join_late)
            tasks.start_soon(leave)
            await cluster.train("ada", "ben")

    run_virtually(main)
    assert cluster.digests["ada"] == cluster.digests["cy"] is not None
    return probes, cluster.hub.published


@pytest.fixture(scope="module")
def told() -> dict[str, Told]:
    return course(told=True)[0]


def test_a_probe_changes_nothing() -> None:
    assert course(told=True)[1] == course(told=False)[1]


def test_every_fact_is_told(told: dict[str, Told]) -> None:
    assert {fact for probe in told.values() for fact, _ in probe.facts} == FACTS - TOLD_ELSEWHERE


def test_who_is_no_member_is_told_by_name_and_with_the_reason(told: dict[str, Told]) -> None:
    assert told["ada"].of("refused") == [{"sender": "mallory", "reason": Reason.BAD_SIGNATURE}]
    assert told["ben"].of("refused") == told["cy"].of("refused") == []


def test_a_life_begins_before_all_that_happens_in_it(told: dict[str, Told]) -> None:
    for probe in told.values():
        assert [fact for fact, _ in probe.facts].index("life_began") == 0
        assert len(probe.of("life_began")) == 1


def test_a_plan_is_promised_then_begun_and_only_then_are_its_rounds_accepted_and_complete(
    told: dict[str, Told],
) -> None:
    for probe in told.values():
        promised: set[int] = set()
        active: Active | None = None
        accepted: set[StateProgress] = set()
        for fact, bound in probe.facts:
            match fact:
                case "promised":
                    promised.add(bound.arguments["ack"].generation)
                case "activated":
                    active = bound.arguments["active"]
                    assert active.generation in promised
                case "accepted":
                    accepted.add(bound.arguments["progress"])
                case "completed":
                    assert active is not None
                    assert bound.arguments["after"].progress in accepted
        assert accepted


def test_one_state_follows_from_the_other_unless_it_is_replaced(told: dict[str, Told]) -> None:
    for probe in told.values():
        state: ReplicaState | None = None
        for fact, bound in probe.facts:
            match fact:
                case "state_replaced":
                    state = bound.arguments["state"]
                case "completed":
                    assert bound.arguments["before"] is state
                    state = bound.arguments["after"]
        assert state is not None
    assert len(told["cy"].of("state_replaced")) == 2, "it makes a first state, and fetches a later one"


def test_what_was_trained_goes_into_the_merged_slice_or_is_left_to_be_sent(told: dict[str, Told]) -> None:
    contributions = {
        (name, fact["header"].key): fact for name, probe in told.items() for fact in probe.of("contributed")
    }
    sent = {
        (name, fact["cargo"].key): fact
        for name, probe in told.items()
        for fact in probe.of("sent")
        if isinstance(fact["cargo"], Contribution)
    }
    assert sent
    assert sent.keys() <= contributions.keys()
    for key, fact in sent.items():
        assert (fact["cargo"], fact["data"]) == (contributions[key]["header"], contributions[key]["data"])
    merged = [fact for probe in told.values() for fact in probe.of("merged")]
    for fact in merged:
        for sender, samples in fact["header"].senders.items():
            assert contributions[sender, fact["header"].key]["header"].samples == samples


def test_a_residual_goes_with_the_state_that_it_belongs_to(told: dict[str, Told]) -> None:
    for probe in told.values():
        facts = [fact for fact, _ in probe.facts]
        for at, (fact, bound) in enumerate(probe.facts):
            if fact == "state_replaced":
                assert not bound.arguments["residual"].any()
                assert "residual_dropped" in facts[:at]


def test_who_falls_silent_is_asked_before_it_is_evicted(told: dict[str, Told]) -> None:
    assert [fact["departed"] for fact in told["ada"].of("evicted")] == ["ben"]
    assert "ben" in [fact["suspect"] for fact in told["ada"].of("probed")]
