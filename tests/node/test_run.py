"""Trainings of whole nodes, from switching on to the same model everywhere, with what goes wrong in between."""

from collections.abc import Callable
from typing import Any

import anyio
import attrs
import pytest
import torch
from structlog.testing import capture_logs

from crowd.errors import InfeasiblePlan, TrainingDiverged
from crowd.planning.plan import Plan
from crowd.planning.policy import Cluster as Members
from crowd.planning.profile import Share
from crowd.ports import BrokerSession
from crowd.protocol.codec import Sealer
from crowd.protocol.messages import AckMessage, AskSamples, AskState, Message, Offer, SampleNames, Samples
from crowd.units import Address, Channel, DeviceId, Life, device_id
from policies.baselines.ship_once import ShipOnce
from tests.node.cluster import CLUSTER, FEATURES, LIMIT_S, Cluster, blobs, draw, network, round_of
from tests.support.virtual import virtual_time


def slow_sgd(parameters: Any) -> torch.optim.Optimizer:
    """Needs some thirty rounds."""
    return torch.optim.SGD(parameters, lr=0.003)


LONG: dict[str, Any] = {"optimizer": slow_sgd}


def expect_one_model(cluster: Cluster, *names: str) -> None:
    digests = {name: digest for name, digest in cluster.digests.items() if not names or name in names}
    assert None not in digests.values()
    assert len(set(digests.values())) == 1, digests
    weights = [
        torch.cat([parameter.reshape(-1) for parameter in cluster.nodes[name].model.parameters()]) for name in digests
    ]
    assert all(torch.equal(weights[0], others) for others in weights)
    for node in (cluster.nodes[name] for name in digests):
        assert node.results[node.name].reached


# --- the ordinary -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("ada", "ben"), ("ada", "ben", "cy", "dan", "eve")])
@virtual_time
async def test_devices_train_to_the_target_and_end_with_the_same_model(names: tuple[str, ...]) -> None:
    cluster = Cluster(*names)
    for name in names:
        cluster.add(name, blobs(), members_min=len(names))
    await cluster.train()
    expect_one_model(cluster)
    for node in cluster.nodes.values():
        assert set(node.results) == set(names)
        assert all(result.samples_trained > 0 for result in node.results.values())


@virtual_time
async def test_the_model_is_as_good_as_the_run_says() -> None:
    cluster = Cluster("ada", "ben")
    for name in ("ada", "ben"):
        cluster.add(name, blobs())
    await cluster.train()
    inputs, labels = draw(400, 0).tensors
    right = int((cluster.nodes["ada"].model(inputs).argmax(1) == labels).sum())
    told = cluster.nodes["ada"].results[DeviceId("ada")].curve[-1]
    assert (told.value, told.evaluated) == (right / 400, 400)
    assert right / 400 >= 0.87


@virtual_time
async def test_a_fast_device_without_samples_is_lent_some_and_helps() -> None:
    cluster = Cluster("ada", "helper")
    cluster.add("ada", blobs(400, **LONG))
    helper = cluster.add("helper", blobs(0, **LONG), speed_kflops=1_600)
    await cluster.train()
    expect_one_model(cluster)
    assert helper.results[helper.name].samples_trained > 0


@virtual_time
async def test_integer_buffers_follow_the_largest_and_running_statistics_end_equal() -> None:
    def normalised(seed: int) -> Callable[[], torch.nn.Module]:
        return lambda: network(seed, torch.nn.BatchNorm1d(32))

    cluster = Cluster("ada", "ben")
    cluster.add("ada", blobs(240, model=normalised(1)))
    cluster.add("ben", blobs(80, model=normalised(2)))
    await cluster.train()
    expect_one_model(cluster)
    ada, ben = (node.model.state_dict() for node in cluster.nodes.values())
    assert all(torch.equal(ada[name], ben[name]) for name in ada)
    rounds = cluster.nodes["ada"].results[DeviceId("ada")].progress.round
    assert int(ada["1.num_batches_tracked"]) >= rounds
    assert ada["1.running_mean"].abs().max() > 0.01


# --- devices come and go ----------------------------------------------------------------------------------------------


@virtual_time
async def test_a_cluster_that_loses_a_device_goes_on_without_it() -> None:
    cluster = Cluster("ada", "ben", "cy")
    for name in ("ada", "ben", "cy"):
        cluster.add(name, blobs(**LONG), members_min=3)

    async def unplug_cy() -> None:
        await round_of(cluster.nodes["ada"], 3)
        cluster.unplug("cy")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(unplug_cy)
        await cluster.train()
    assert cluster.digests["cy"] is None
    expect_one_model(cluster, "ada", "ben")
    plan = cluster.nodes["ada"].plan
    assert plan is not None
    assert [member.device for member in plan.members] == ["ada", "ben"]


@virtual_time
async def test_a_device_that_joins_later_catches_up_and_ends_equal() -> None:
    cluster = Cluster("ada", "ben", "cy")
    for name in ("ada", "ben", "cy"):
        cluster.add(name, blobs(**LONG))

    async def join_late() -> None:
        await round_of(cluster.nodes["ada"], 3)
        await cluster.play("cy")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(join_late)
        await cluster.train("ada", "ben")
    expect_one_model(cluster)
    cy = cluster.nodes["cy"]
    assert cy.results[cy.name].samples_trained > 0
    assert len(cy.results[cy.name].curve) < cy.results[cy.name].progress.round


@pytest.mark.parametrize("speed_kflops", [12, 400])
@virtual_time
async def test_a_device_that_joins_lets_a_long_round_be_finished(speed_kflops: int) -> None:
    """It has no plan of its own, and cannot know how long the others' rounds are: half a minute."""
    cluster = Cluster("ada", "ben", "cy")
    for name, speed in (("ada", 12), ("ben", 12), ("cy", speed_kflops)):
        cluster.add(name, blobs(), speed_kflops=speed)

    async def join_late() -> None:
        await round_of(cluster.nodes["ada"], 3)
        await cluster.play("cy")

    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join_late)
            await cluster.train("ada", "ben")
    expect_one_model(cluster)
    assert not [log for log in logs if log["event"] == "device_evicted"]


@virtual_time
async def test_a_device_that_joins_after_the_end_is_given_the_model_and_redoes_nothing() -> None:
    cluster = Cluster("ada", "ben", "cy")
    for name in ("ada", "ben", "cy"):
        cluster.add(name, blobs())
    async with cluster.nodes["ada"] as ada:  # stays when the run is over
        await cluster.train("ben")
        await ada.wait()
        await cluster.train("cy")
    expect_one_model(cluster)
    cy = cluster.nodes["cy"]
    assert cy.results[cy.name].samples_trained == 0


@virtual_time
async def test_a_broker_that_forgets_everything_in_the_middle_of_a_run_does_not_end_it() -> None:
    cluster = Cluster("ada", "ben", "cy")
    for name in ("ada", "ben", "cy"):
        cluster.add(name, blobs(**LONG), members_min=3)
    crashes = 0

    async def crash() -> None:
        nonlocal crashes
        for number in (2, 5, 6):
            await round_of(cluster.nodes["ben"], number)
            cluster.hub.crash()
            crashes += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(crash)
        await cluster.train()
    assert crashes == 3
    expect_one_model(cluster)


@virtual_time
async def test_devices_that_have_lost_their_disks_train_the_last_run_again() -> None:
    runs = []
    cluster = Cluster("ada", "ben")
    for _ in range(2):
        for name in ("ada", "ben"):
            cluster.add(name, blobs())
        await cluster.train()
        expect_one_model(cluster)
        results = [result for node in cluster.nodes.values() for result in node.results.values()]
        runs.append({result.progress.run for result in results})
        assert all(result.samples_trained > 0 for result in results)
    assert runs == [{1}, {1}]


# --- what cannot be trained -------------------------------------------------------------------------------------------


@virtual_time
async def test_a_node_whose_loss_is_no_longer_finite_ends_with_training_diverged() -> None:
    cluster = Cluster("ada", "ben", "cy")
    for name in ("ada", "ben"):
        cluster.add(name, blobs())
    inputs, labels = draw(200, 7).tensors
    broken = torch.utils.data.TensorDataset(inputs * 1e30, labels)
    cy = cluster.add("cy", blobs(data=broken), share=Share.NEVER)

    async def diverge() -> None:
        with pytest.raises(TrainingDiverged, match="lower the learning rate"):
            async with cy:
                await cy.wait()

    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(diverge)
            tasks.start_soon(cluster.train, "ada", "ben")
    expect_one_model(cluster, "ada", "ben")
    assert cy.digest is None


@virtual_time
async def test_a_cluster_where_nobody_has_samples_never_starts_and_says_why() -> None:
    cluster = Cluster("ada", "ben")
    for name in ("ada", "ben"):
        cluster.add(name, blobs(0))
    said: list[str] = []

    async def listen() -> None:
        async for progress in cluster.nodes["ada"].progress():
            assert progress.plan is not None
            said.append(progress.plan.why)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        with pytest.raises(TimeoutError):
            await cluster.train()
    assert said[-1] == "no device has samples"
    assert cluster.digests == {"ada": None, "ben": None}


@virtual_time
async def test_devices_that_begin_together_do_not_send_each_other_the_first_state() -> None:
    cluster = Cluster("ada", "ben", "cy")
    for name in ("ada", "ben", "cy"):
        cluster.add(name, blobs(model=lambda: torch.nn.Linear(FEATURES, 2)))
    await cluster.train("ada", "ben", "cy")
    expect_one_model(cluster, "ada", "ben", "cy")
    asked = [
        message for name in cluster.nodes for message in cluster.hub.messages(name) if isinstance(message, AskState)
    ]
    assert asked == []


# --- what may not leave a device --------------------------------------------------------------------------------------


def samples_sent(cluster: Cluster, name: str) -> list[str]:
    """The transfers in which a device offered samples, and those of which a chunk left it."""
    sent = [message for message in cluster.hub.messages(name) if isinstance(message, Offer)]
    lent = {offer.transfer for offer in sent if isinstance(offer.cargo, Samples | SampleNames)}
    known = {offer.transfer for offer in sent} - lent
    chunks = [
        delivery.address.name or ""
        for device, delivery in cluster.hub.published
        if device == name and delivery.address.channel is Channel.BLOB
    ]
    return [*lent, *(transfer for transfer in chunks if transfer not in known)]


def greedy_ship_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that plans as if everybody shared everything."""
    honest = ShipOnce.plan

    def plan(self: ShipOnce, cluster: Members) -> Plan:
        sharing = tuple(attrs.evolve(member, share=Share.RAW) for member in cluster.members)
        return honest(self, attrs.evolve(cluster, members=sharing))

    monkeypatch.setattr(ShipOnce, "plan", plan)


def add_lender_and_borrower(cluster: Cluster, share: Share) -> None:
    """The plan of ship-once moves all that `lender` has, in chunks, to `trainer`."""
    cluster.add("lender", blobs(3000, **LONG), policy="ship_once", share=share)
    cluster.add("trainer", blobs(3000, **LONG), policy="ship_once", speed_kflops=20_000)


@virtual_time
async def test_a_device_that_shares_sends_its_samples_in_chunks() -> None:
    cluster = Cluster("lender", "trainer")
    add_lender_and_borrower(cluster, Share.RAW)
    await cluster.train()
    expect_one_model(cluster)
    assert samples_sent(cluster, "lender")


@virtual_time
async def test_samples_of_a_device_that_never_shares_stay_and_it_is_left_to_train_them() -> None:
    cluster = Cluster("lender", "trainer")
    cluster.add("lender", blobs(400, **LONG), share=Share.NEVER)
    trainer = cluster.add("trainer", blobs(10, **LONG), speed_kflops=20_000)
    await cluster.train()
    expect_one_model(cluster)
    assert samples_sent(cluster, "lender") == []
    assert trainer.results[device_id("lender")].samples_trained > 0


@virtual_time
async def test_a_plan_that_would_move_what_may_not_leave_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    greedy_ship_once(monkeypatch)
    cluster = Cluster("lender", "trainer")
    add_lender_and_borrower(cluster, Share.NEVER)
    with pytest.raises(ExceptionGroup) as caught:
        await cluster.train()
    assert caught.group_contains(InfeasiblePlan)
    assert samples_sent(cluster, "lender") == []


@virtual_time
async def test_samples_that_may_not_leave_stay_even_when_the_plan_moves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    greedy_ship_once(monkeypatch)
    monkeypatch.setattr("crowd.actors.planner.decisions.violations", lambda plan, profiles: ())
    cluster = Cluster("lender", "trainer")
    add_lender_and_borrower(cluster, Share.NEVER)
    with capture_logs() as logs, anyio.move_on_after(60):
        await cluster.train()
    assert {entry["event"] for entry in logs} >= {"plan_activated", "lending_refused"}
    assert any(isinstance(message, AskSamples) for message in cluster.hub.messages("trainer"))
    assert samples_sent(cluster, "lender") == []


@pytest.mark.parametrize(("share", "names"), [(Share.NEVER, False), (Share.RAW, False), (Share.RAW, True)])
@virtual_time
async def test_samples_that_no_plan_moves_stay_when_a_member_asks_for_them(share: Share, names: bool) -> None:
    cluster = Cluster("ada", "ben", "mallory")
    cluster.add("ada", blobs(**LONG), share=share)
    cluster.add("ben", blobs(**LONG))

    async def ask(session: BrokerSession) -> None:
        await round_of(cluster.nodes["ada"], 2)
        plan = cluster.nodes["ada"].plan
        assert plan is not None
        own = [ranges for assignment, ranges in plan.ranges() if assignment.lender == "ada"]
        ack = [message.ack for message in cluster.hub.messages("ada") if isinstance(message, AckMessage)][-1]
        question: Message = AskSamples(
            generation=ack.generation, plan_digest=ack.plan_digest, data_epoch=0, ranges=own[0], names=names
        )
        for number, name in enumerate(("mallory", "ben")):
            me = device_id(name)
            address = Address(channel=Channel.TO, source=me, destination=device_id("ada"))
            life = Life(incarnation=9, boot=bytes([number]))
            await session.publish(address, Sealer(CLUSTER, me, life, cluster.signers[me]).seal(address, question))

    with capture_logs() as logs:
        async with cluster.raw("mallory").session() as session, anyio.create_task_group() as tasks:
            tasks.start_soon(ask, session)
            await cluster.train()
    assert [entry["borrower"] for entry in logs if entry["event"] == "lending_refused"] == ["mallory", "ben"]
    assert samples_sent(cluster, "ada") == []
    expect_one_model(cluster)


@virtual_time
async def test_without_maths_a_run_takes_its_time_and_leaves_the_model_as_it_was() -> None:
    rounds_s: dict[bool, list[float]] = {}
    for executes in (True, False):
        cluster = Cluster("ada", "ben")
        for name in ("ada", "ben"):
            cluster.add(name, blobs(target=1.0, epochs_max=5), executes=executes)
        began_s = anyio.current_time()
        await cluster.train()
        results = cluster.nodes["ada"].results.values()
        assert {result.samples_trained for result in results} == {1000}
        assert all(any(point.evaluated for point in result.curve) is executes for result in results)
        rounds_s[executes] = [point.elapsed_us / 1e6 for result in results for point in result.curve]
        rounds_s[executes].append(anyio.current_time() - began_s)
        learned = cluster.nodes["ada"].model.state_dict()
        starts = [blobs()(name).model().state_dict() for name in ("ada", "ben")]
        untouched = any(all(torch.equal(start[key], learned[key]) for key in learned) for start in starts)
        assert untouched is not executes
    assert rounds_s[True] == pytest.approx(rounds_s[False], rel=0.02)
