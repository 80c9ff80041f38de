"""Whole nodes on which rounds differ: who merges, and how deltas travel, is known from the round's plan alone."""

import attrs
import pytest
import torch

import crowd
from crowd.actors.probe import Probe
from crowd.planning import round_plan
from crowd.planning.phase import Counts
from crowd.planning.plan import Encoding, Plan
from crowd.planning.round_plan import RoundPlan
from crowd.protocol.messages import Contribution, MergedSlice
from devices.simulation.device import SimulatedCluster
from devices.simulation.virtual_time import run_virtually
from tests.learning.nets import dataset, linear, separable

DEVICES = ("ada", "ben", "cem")
plan_round = round_plan.plan_round


def task(device: str) -> crowd.Task:
    return crowd.Task(
        model=linear,
        data=dataset(separable(60, seed=DEVICES.index(device))),
        evaluation=dataset(separable(100, seed=9)),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05),
        batch_size=10,
        target=1.0,
        epochs_max=8,
    )


class Kept(Probe):
    """Who published what, in which encoding; and in which it was contributed."""

    def __init__(self, device: str, published: dict[tuple[int, int], tuple[str, Encoding]]) -> None:
        self._device = device
        self._published = published
        self.contributed_as: dict[int, Encoding] = {}

    def contributed(self, header: Contribution, data: bytes) -> None:
        self.contributed_as[header.key.round] = header.encoding

    def merged(self, round_plan: RoundPlan, header: MergedSlice, data: bytes) -> None:
        self._published[header.key.round, header.key.index] = (self._device, header.encoding)


def in_turn(plan: Plan, before: Counts) -> RoundPlan:
    """Members merge in turn."""
    planned = plan_round(plan, before)
    names = [member.device for member in plan.members]
    slices = tuple(
        attrs.evolve(span, owner=names[(planned.number + index) % len(names)])
        for index, span in enumerate(planned.slices)
    )
    return attrs.evolve(planned, slices=slices)


def every_second_exact(plan: Plan, before: Counts) -> RoundPlan:
    planned = plan_round(plan, before)
    return attrs.evolve(planned, encodings=(Encoding.FLOAT32,)) if planned.number % 2 else planned


def trained(policy: str) -> tuple[SimulatedCluster, dict[tuple[int, int], tuple[str, Encoding]], Kept]:
    published: dict[tuple[int, int], tuple[str, Encoding]] = {}
    probes = {device: Kept(device, published) for device in DEVICES}
    cluster = SimulatedCluster(dict.fromkeys(DEVICES, 200), task, policy=policy, probes=probes)
    run_virtually(cluster.train)
    return cluster, published, probes["cem"]


def digests(cluster: SimulatedCluster) -> set[str | None]:
    return {device.node.digest for device in cluster.devices.values()}


def test_it_does_not_matter_to_the_model_who_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    by_one, published, _ = trained("fedavg")
    assert len({owner for owner, _ in published.values()}) == 1
    monkeypatch.setattr(round_plan, "plan_round", in_turn)
    in_turns, published, _ = trained("fedavg")
    owners = [owner for _, (owner, _) in sorted(published.items())]
    assert {owners[number : number + 3].count(name) for number in range(6) for name in DEVICES} == {1}
    assert digests(in_turns) == digests(by_one)
    assert len(digests(by_one)) == 1


def test_deltas_travel_as_their_round_says_and_all_replicas_stay_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(round_plan, "plan_round", every_second_exact)
    cluster, published, kept = trained("crowd_learning")
    told = {number: encoding for (number, _), (_, encoding) in published.items()}
    assert {told[number] for number in told if number % 2} == {Encoding.FLOAT32}
    assert {told[number] for number in list(told)[:-1] if number % 2 == 0} == {Encoding.BLOCKWISE8}
    assert kept.contributed_as.items() <= told.items()
    assert len(digests(cluster)) == 1
