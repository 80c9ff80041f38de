"""The networks that a node has, while it trains and afterwards, and what their cards say."""

import gc
import weakref
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from random import Random
from typing import Any

import anyio
import attrs
import pytest
import torch
from structlog.testing import capture_logs

from crowd.actors.probe import Probe
from crowd.config.node_file import MODEL_FILE
from crowd.learning import replica
from crowd.learning.replica import ReplicaState
from crowd.learning.work import starting_model
from crowd.model_card import CARD_FILE, ModelCard
from crowd.node import Node
from crowd.planning.plan import Assignment, Plan
from crowd.ports import Store
from crowd.trained import Models, samples_by_lender
from crowd.units import device_id
from devices.store import MemoryStore
from tests.node.cluster import CLUSTER, FEATURES, Cluster, blobs, draw, round_of
from tests.support.disk import Disk
from tests.support.virtual import virtual_time

EVALUATED = 400


def pair(**changes: Any) -> Cluster:
    cluster = Cluster("ada", "ben")
    for name in ("ada", "ben"):
        cluster.add(name, blobs(**changes))
    return cluster


def right(model: torch.nn.Module) -> float:
    """The part of the common evaluation set that it gets right."""
    inputs, labels = draw(EVALUATED, 0).tensors
    with torch.no_grad():
        return int((model(inputs).argmax(dim=1) == labels).sum()) / EVALUATED


def card_of(store: Store | None) -> ModelCard:
    data = store.read(CARD_FILE) if store is not None else None
    assert data is not None
    return ModelCard.from_bytes(data, Path(CARD_FILE))


# --- the card ---------------------------------------------------------------------------------------------------------


@virtual_time
async def test_at_the_end_of_a_run_each_device_writes_the_model_and_then_its_card() -> None:
    cluster = Cluster("ada", "ben")
    disk = Disk()
    cluster.add("ada", blobs(), store=disk)
    cluster.add("ben", blobs(samples=150))
    await cluster.train()
    ada, ben = cluster.nodes.values()
    card, model = card_of(disk), disk.read(MODEL_FILE)
    assert [name for name in disk._written if name in (MODEL_FILE, CARD_FILE)] == [MODEL_FILE, CARD_FILE]
    assert model is not None
    assert card == card.of_file(model) == ada.trained.card
    assert (card.task, card.cluster, card.run) == ("blobs", CLUSTER, 1)
    assert (card.metric, card.better, card.target, card.reached) == ("accuracy", "higher", 0.87, True)
    assert card.value == right(ada.model) == ada.trained.value
    assert card.value is not None
    assert card.value >= 0.87
    assert card.digest == ada.digest
    assert card.rounds == ada.results[ada.name].progress.round
    trained = [result.samples_trained for result in ada.results.values()]
    assert 0 < card.samples_trained <= sum(trained), "what the last round trained is not taken"
    assert card.epochs == pytest.approx(card.samples_trained / 350, rel=0.05)
    assert card.data == {"ada": 200, "ben": 150}
    assert card.torch_version == torch.__version__
    assert attrs.evolve(card_of(ben._store), when=card.when) == card


def test_whose_samples_nobody_trains_is_not_named_and_what_several_train_is_added_up() -> None:
    ada, ben, cy = (device_id(name) for name in ("ada", "ben", "cy"))
    lent = [(ben, ada, (3, 4)), (ada, ada, (1, 0)), (ben, ben, (1, 1)), (cy, ada, (0, 0))]
    assignments = tuple(Assignment(lender=lender, trainer=trainer, counts=counts) for lender, trainer, counts in lent)
    assert list(samples_by_lender(Plan(members=(), assignments=assignments)).items()) == [("ada", 1), ("ben", 9)]


async def play_on(node: Node, over: anyio.Event) -> None:
    async with node:
        await node.wait()
        await over.wait()


@virtual_time
async def test_who_comes_when_the_run_is_over_says_what_the_others_know_and_not_whose_data_it_was() -> None:
    cluster = Cluster("ada", "ben", "cy")
    over = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for name in ("ada", "ben"):
            tasks.start_soon(play_on, cluster.add(name, blobs()), over)
        await cluster.nodes["ada"].wait()
        late = cluster.add("cy", blobs())
        await cluster.train("cy")
        over.set()
    expected, card = card_of(cluster.nodes["ada"]._store), card_of(late._store)
    assert late.results[late.name].value is None
    assert expected.data is not None
    assert card == attrs.evolve(expected, when=card.when, data=None, held=None)


@virtual_time
async def test_what_a_former_life_knew_of_the_run_stays_in_the_card() -> None:
    cluster, over = pair(), anyio.Event()
    disk = Disk()
    cluster.add("ada", blobs(), store=disk)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(play_on, cluster.nodes["ben"], over)
        await cluster.train("ada")
        before = card_of(disk)
        again = cluster.add("ada", blobs(), store=disk)
        await cluster.train("ada")
        over.set()
    assert before.value is not None
    assert again.trained.card == card_of(disk) == before


@virtual_time
async def test_a_card_that_cannot_be_read_is_named_and_replaced() -> None:
    cluster, store = Cluster("ada", "ben"), MemoryStore()
    store.write(CARD_FILE, b"{")
    cluster.add("ada", blobs(), store=store)
    cluster.add("ben", blobs())
    with capture_logs() as logs:
        await cluster.train()
    assert [line["event"] for line in logs].count("card_replaced") == 1
    assert card_of(store).digest == cluster.nodes["ada"].digest


@virtual_time
async def test_parameters_of_one_s_own_have_no_value_that_anybody_has_measured() -> None:
    cluster = Cluster("ada", "ben")
    for name in ("ada", "ben"):
        cluster.add(name, blobs(epochs_max=4), policy="local_only")
    await cluster.train()
    ada, ben = (card_of(node._store) for node in cluster.nodes.values())
    assert ada.digest != ben.digest
    assert (ada.value, ben.value) == (None, None)


# --- before the end ---------------------------------------------------------------------------------------------------


class States(Probe):
    """Remembers, without keeping them, the states that rounds led to on a device."""

    def __init__(self, seen: Callable[[ReplicaState], None] = lambda state: None) -> None:
        self._seen = seen
        self.known: list[weakref.ref[ReplicaState]] = []

    def completed(self, active: Any, *, after: ReplicaState, **_: Any) -> None:
        self.known.append(weakref.ref(after))
        self._seen(after)

    @property
    def alive(self) -> int:
        gc.collect()
        return sum(state() is not None for state in self.known)


@virtual_time
async def test_a_node_refers_to_the_trainer_s_own_state_and_keeps_none_of_earlier_rounds() -> None:
    cluster = Cluster("ada", "ben")
    told: list[int] = []

    def look(after: ReplicaState) -> None:
        assert node.latest._state is after
        told.append(probe.alive)

    node = cluster.add("ada", blobs(), probe=(probe := States(look)))
    cluster.add("ben", blobs())
    await cluster.train()
    assert len(told) > 5
    assert max(told) == 2, "that before the round, and that after it"
    assert probe.alive == 1


@virtual_time
async def test_asking_for_the_network_in_every_round_changes_nothing() -> None:
    def dropping(device: str) -> Any:
        def model() -> torch.nn.Module:
            return torch.nn.Sequential(torch.nn.Linear(FEATURES, 32), torch.nn.Dropout(0.2), torch.nn.Linear(32, 2))

        return attrs.evolve(blobs()(device), model=model)

    ends = []
    for ask in (False, True):
        cluster = Cluster("ada", "ben")
        nodes = [cluster.add(name, dropping, chance=Random(name)) for name in ("ada", "ben")]
        torch.manual_seed(0)

        async def follow(node: Node, asks: bool) -> None:
            async with aclosing(node.progress()) as news:
                async for progress in news:
                    if asks and progress.round:
                        assert node.model(torch.zeros(1, FEATURES)).shape == (1, 2)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, nodes[0], ask)
            await cluster.train()
        ends.append(nodes[0].trained._state)
    assert ends[0].round == ends[1].round
    assert torch.equal(ends[0].vector, ends[1].vector)


@virtual_time
async def test_who_fetches_a_state_has_its_network() -> None:
    cluster = Cluster("ada", "ben", "cy")
    for name in ("ada", "ben"):
        cluster.add(name, blobs(target=1.0, epochs_max=30))
    fetched = []

    class Fetched(Probe):
        def state_replaced(self, state: ReplicaState, residual: torch.Tensor) -> None:
            if state.round:
                fetched.append(state.round)
                assert late.latest._state is state
                assert not late.trained.is_final

    late = cluster.add("cy", blobs(target=1.0, epochs_max=30), probe=Fetched())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cluster.train, "ada", "ben")
        await round_of(cluster.nodes["ada"], 3)
        tasks.start_soon(cluster.play, "cy")
    assert fetched
    assert fetched[0] >= 3


class Projected(torch.nn.Module):
    """With random features, which torch draws and training leaves as they are."""

    R: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("R", torch.randn(FEATURES, 16), persistent=False)
        self.head = torch.nn.Linear(16, 2)

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.head(torch.relu(inputs @ self.R))


@virtual_time
async def test_what_a_network_draws_and_never_trains_is_what_it_was_trained_with() -> None:
    cluster = pair(model=Projected, target=0.8)
    await cluster.train()
    for node in cluster.nodes.values():
        assert right(node.model) == node.trained.value


# --- a later run ------------------------------------------------------------------------------------------------------


def test_while_a_later_run_goes_on_the_last_finished_model_stays_and_the_one_in_training_is_the_latest() -> None:
    cluster = Cluster("ada", "ben")
    node = cluster.add("ada", blobs())
    with pytest.raises(RuntimeError, match="no round is complete yet"):
        _ = node.latest
    task = blobs()("ada")
    ended = pair(epochs_max=2)

    @virtual_time
    async def train() -> None:
        await ended.train()

    train()
    result = ended.nodes["ada"].results[device_id("ada")]
    final = ended.nodes["ada"].latest._state
    node._models = Models(
        node.config,
        task,
        MemoryStore(),
        task_name="blobs",
        crowd_version="0.1.0",
        local_time=node._device.sensor.local_time,
    )
    node._models.hold(final)
    node._models.finish(final, result, ())
    assert node.trained is node.latest is node._models.final

    first = replica.initial(starting_model(task, final.layout, seed=0, run=2), 2, final.layout)
    node._models.hold(first)
    assert node.latest is node.trained, "no round of the second run is complete yet"
    node._models.hold(second := attrs.evolve(first, round=1))
    assert (node.latest.run, node.latest.round, node.latest.is_final) == (2, 1, False)
    assert (node.trained.run, node.trained.is_final, node.trained.digest) == (1, True, node.digest)
    with pytest.raises(RuntimeError, match="the run is not over"):
        node.latest.save()

    node._models.hold(last := attrs.evolve(second, round=2, finished=True))
    ended_again = attrs.evolve(result, progress=last.progress, model_digest=last.digest, value=0.5)
    node._models.finish(last, ended_again, ())
    assert node.trained is node.latest
    assert (node.trained.run, node.trained.value, node.trained.is_saved) == (2, 0.5, True)
