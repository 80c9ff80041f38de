"""Trainings in which rounds go another way than the usual: nobody waits, neighbours gossip, models stay at home."""

from typing import Any

import anyio
import pytest
import torch

from crowd.protocol.messages import Contribution, MergedSlice, Offer, Parameters
from tests.node.cluster import Cluster, blobs, draw, round_of
from tests.node.test_run import LONG, expect_one_model
from tests.support.virtual import virtual_time

NAMES = ("ada", "ben", "cy", "dan")


def cluster_of(policy: str, *, speeds: tuple[int, ...] = (400, 400, 400, 400), **changes: Any) -> Cluster:
    cluster = Cluster(*NAMES)
    for name, speed in zip(NAMES, speeds, strict=True):
        cluster.add(name, blobs(**changes), speed_kflops=speed, members_min=len(NAMES), policy=policy)
    return cluster


def cargoes(cluster: Cluster, *kinds: type) -> list[Any]:
    """Of everything that was offered to anybody."""
    offers = [message for name in NAMES for message in cluster.hub.messages(name) if isinstance(message, Offer)]
    return [offer for offer in offers if isinstance(offer.cargo, kinds)]


@pytest.mark.parametrize("policy", ["fedbuff", "fedprox", "mercury", "d_psgd", "d_psgd_random", "ship_once"])
@virtual_time
async def test_whatever_the_manner_all_end_with_the_same_model_at_the_target(policy: str) -> None:
    cluster = cluster_of(policy)
    await cluster.train()
    expect_one_model(cluster)
    inputs, labels = draw(400, 0).tensors
    right = (cluster.nodes["dan"].model(inputs).argmax(1) == labels).float().mean().item()
    assert right >= 0.85


@pytest.mark.parametrize("gone", ["ada", "dan"])
@pytest.mark.parametrize("policy", ["fedbuff", "d_psgd"])
@virtual_time
async def test_whatever_the_manner_a_cluster_that_loses_a_device_goes_on_without_it(policy: str, gone: str) -> None:
    """`ada` is the one who merges."""
    cluster = cluster_of(policy, **LONG)

    async def unplug() -> None:
        await round_of(cluster.nodes["ada"], 3)
        cluster.unplug(gone)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(unplug)
        await cluster.train()
    assert cluster.digests[gone] is None
    expect_one_model(cluster, *(name for name in NAMES if name != gone))


# --- nobody waits -----------------------------------------------------------------------------------------------------


@virtual_time
async def test_in_an_asynchronous_plan_a_slow_device_holds_nobody_up_and_is_heard_all_the_same() -> None:
    cluster = cluster_of("fedbuff", speeds=(400, 400, 400, 40), **LONG)
    await cluster.train()
    expect_one_model(cluster)
    trained = {name: cluster.nodes[name].results[cluster.nodes[name].name].samples_trained for name in NAMES}
    assert 0 < trained["dan"] < trained["ben"] / 4
    heard = {offer.cargo.key.round for offer in cargoes(cluster, Contribution)}
    rounds = cluster.nodes["ada"].results[cluster.nodes["ada"].name].progress.round
    assert max(heard) <= rounds


@virtual_time
async def test_in_an_asynchronous_plan_nobody_is_told_of_rounds_that_he_does_not_ask_for() -> None:
    cluster = cluster_of("fedbuff")
    await cluster.train()
    assert not cargoes(cluster, MergedSlice)
    completed = {name: len(cluster.nodes[name].results[cluster.nodes[name].name].curve) for name in NAMES}
    assert completed["ada"] > 0
    assert completed["ben"] == completed["cy"] == completed["dan"] == 0


# --- models of one's own ----------------------------------------------------------------------------------------------


@virtual_time
async def test_neighbours_exchange_parameters_and_rounds_carry_none_until_all_are_brought_together() -> None:
    cluster = cluster_of("d_psgd")
    await cluster.train()
    exchanged = {(offer.cargo.round, offer.cargo.exchange) for offer in cargoes(cluster, Parameters)}
    last = cluster.nodes["ada"].results[cluster.nodes["ada"].name].progress.round
    plan = cluster.nodes["ada"].plan
    assert plan is not None
    assert plan.mixing is not None
    exchanges = range(plan.mixing.exchanges)
    assert exchanged == {(number, exchange) for number in range(1, last - 1) for exchange in exchanges}
    sizes: dict[int, set[int]] = {}
    for offer in cargoes(cluster, Contribution, MergedSlice):
        sizes.setdefault(offer.cargo.key.round, set()).add(offer.size_bytes)
    assert {number for number, known in sizes.items() if known != {0}} == {last - 1}


@virtual_time
async def test_shipped_once_only_samples_and_the_final_model_travel() -> None:
    cluster = cluster_of("ship_once")
    await cluster.train()
    last = cluster.nodes["ada"].results[cluster.nodes["ada"].name].progress.round
    assert {offer.cargo.key.round for offer in cargoes(cluster, MergedSlice) if offer.size_bytes} == {last}
    assert not cargoes(cluster, Contribution)


@virtual_time
async def test_alone_every_device_ends_with_a_model_of_its_own_and_none_travels() -> None:
    cluster = cluster_of("local_only")
    await cluster.train()
    assert len(set(cluster.digests.values())) == len(NAMES)
    results = [cluster.nodes[name].results[cluster.nodes[name].name] for name in NAMES]
    assert len({result.progress for result in results}) == 1
    assert {result.model_digest.hex() for result in results} == set(cluster.digests.values())
    assert not [offer for offer in cargoes(cluster, Contribution, MergedSlice) if offer.size_bytes]
    inputs, labels = draw(400, 0).tensors
    for name in NAMES:
        with torch.no_grad():
            assert (cluster.nodes[name].model(inputs).argmax(1) == labels).float().mean().item() > 0.8


@virtual_time
async def test_who_trains_alone_tells_nobody_of_his_rounds() -> None:
    cluster = Cluster("ada")
    cluster.add("ada", blobs(), members_min=1)
    await cluster.train()
    expect_one_model(cluster)
    assert not [message for message in cluster.hub.messages("ada") if isinstance(message, Offer)]
