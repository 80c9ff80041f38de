"""Data that have changed since they were read: the next run trains them, and only what is new moves."""

from typing import Any, ClassVar

import anyio
import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from crowd.errors import BadConfig
from crowd.learning.own_data import DataSet, OwnData
from crowd.learning.samples import SampleSet
from crowd.learning.shards import SampleStore
from crowd.protocol.messages import Offer, SampleNames, Samples
from tests.node.cluster import FEATURES, draw, round_of
from tests.node.growing import AFTER, BEFORE, Growing, counts, first
from tests.node.living import FEW, NAMES, Living
from tests.support.virtual import virtual_time

SAMPLE_BYTES, KEY_BYTES = 40, 8


class Marked(torch.nn.Module):
    """Remembers which samples it was given, by their first features."""

    trained: ClassVar[set[float]] = set()
    judged: ClassVar[set[float]] = set()
    listens: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(FEATURES, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.listens:
            (self.trained if self.training else self.judged).update(inputs[:, 0].tolist())
        outputs: torch.Tensor = self.layer(inputs)
        return outputs


def lent(living: Living, lender: str) -> tuple[int, int]:
    """Bytes of samples and of names that this device has offered."""
    offers = [message for message in living.cluster.hub.messages(lender) if isinstance(message, Offer)]
    samples, names = (
        sum(offer.size_bytes for offer in offers if isinstance(offer.cargo, kind)) for kind in (Samples, SampleNames)
    )
    return samples, names


@virtual_time
async def test_the_next_run_trains_what_has_come_and_only_that_moves() -> None:
    cy = Growing(first(BEFORE))
    async with Living(policy="ship_once", tasks={"cy": cy}, samples=3500, **FEW) as living:
        node = living.cluster.nodes["cy"]
        await living.over(1)
        assert lent(living, "cy") == (BEFORE * SAMPLE_BYTES, 0)
        cy.data = first(AFTER)
        assert await node.data_changed()
        assert not await node.data_changed(), "they are known now"
        await node.train()
        await living.over(2)
        assert lent(living, "cy") == (AFTER * SAMPLE_BYTES, AFTER * KEY_BYTES)
        trained = [node.results[other].samples_trained for other in node.results]
    assert max(trained) == FEW["epochs_max"] * (2 * 3500 + AFTER)


@virtual_time
async def test_new_samples_of_a_borrower_move_nothing_that_it_has_borrowed() -> None:
    grows = Growing(draw(250, 3))
    async with Living(policy="ship_once", tasks={"ada": grows}) as living:
        node = living.cluster.nodes["ada"]
        await living.over(1)
        assert node.plan is not None
        assert [trainer.device for trainer in node.plan.trainers] == ["ada"]
        moved = {name: lent(living, name) for name in living.cluster.nodes}
        for run, count in ((2, 300), (3, 220)):
            grows.data = draw(count, run)
            assert await node.data_changed()
            await node.train()
            await living.over(run)
            result = node.results[node.name]
            assert result.samples_trained == FEW["epochs_max"] * (2 * 200 + count)
        assert {name: lent(living, name) for name in living.cluster.nodes} == moved


@virtual_time
async def test_nobody_is_judged_on_what_it_was_trained_on() -> None:
    trained, judged = Marked.trained, Marked.judged
    Marked.listens = False  # to the networks that are made to try them
    grows = Growing(first(200), evaluation=None, model=Marked)
    async with Living(evaluation=None, model=Marked, **FEW, tasks={"ada": grows}) as living:
        node = living.cluster.nodes["ada"]
        await round_of(node, 1)
        Marked.listens = True
        await living.over(1)
        for run, count in ((2, 210), (3, 300)):
            grows.data = first(count)
            Marked.listens = False
            await node.data_changed()
            Marked.listens = True
            await node.train()
            await living.over(run)
    known = set(first(300).tensors[0][:, 0].tolist())
    assert known <= trained | judged
    assert not trained & judged & known
    assert len(judged & known) > 300 // 20


@virtual_time
async def test_data_are_read_when_the_run_is_over() -> None:
    ada = Growing(first(BEFORE))
    async with Living(tasks={"ada": ada}) as living:
        node = living.cluster.nodes["ada"]
        await round_of(node, 1)
        ada.data = first(AFTER)
        reads = ada.reads
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(node.data_changed)
            await anyio.wait_all_tasks_blocked()
            assert ada.reads == reads
        assert ada.reads == reads + 1
        assert node.results[node.name].progress.finished


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (TensorDataset(torch.zeros(20, FEATURES + 1), torch.zeros(20).long()), "but the data set that was read before"),
        (TensorDataset(torch.zeros(20, FEATURES), torch.full((20,), 2)), "Target 2 is out of bounds"),
        (TensorDataset(torch.full((20, FEATURES), np.nan), torch.zeros(20).long()), "is not finite"),
        (7, "must be a map-style dataset"),
    ],
)
@virtual_time
async def test_data_that_cannot_be_trained_are_refused_and_the_former_ones_stay(data: Any, words: str) -> None:
    ada = Growing(first(BEFORE))
    async with Living(tasks={"ada": ada}) as living:
        node = living.cluster.nodes["ada"]
        await living.over(1)
        ada.data = data
        with pytest.raises(BadConfig, match=words):
            await node.data_changed()
        await node.train()
        await living.over(2)
        assert counts(node) == BEFORE


@virtual_time
async def test_a_device_may_come_to_have_its_first_samples_and_lose_all_of_them() -> None:
    ada = Growing([])
    async with Living(tasks={"ada": ada}) as living:
        node = living.cluster.nodes["ada"]
        await living.over(1)
        for run, data in ((2, first(BEFORE)), (3, [])):
            ada.data = data
            assert await node.data_changed()
            await node.train()
            await living.over(run)
            assert counts(node) == len(data)


@virtual_time
async def test_all_samples_may_go_where_each_device_holds_out_its_own() -> None:
    ada = Growing(first(BEFORE), evaluation=None)
    async with Living(tasks={"ada": ada}, evaluation=None, **FEW) as living:
        node = living.cluster.nodes["ada"]
        await living.over(1)
        ada.data = first(0)
        assert await node.data_changed()
        await node.train()
        await living.over(2)
        assert counts(node) == 0


@virtual_time
async def test_data_that_are_others_at_each_reading_are_refused() -> None:
    class Jittered(torch.utils.data.Dataset[Any]):
        def __init__(self) -> None:
            self.random = np.random.default_rng(0)

        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return self.random.standard_normal(FEATURES).astype(np.float32), index % 2

    async with Living(tasks={"ada": Growing(Jittered())}) as living:
        node = living.cluster.nodes["ada"]
        await living.over(1)
        with pytest.raises(BadConfig, match="others whenever they are read"):
            await node.data_changed()


@virtual_time
async def test_actors_that_start_again_have_the_data_that_were_read_last() -> None:
    ada = Growing(first(BEFORE))
    async with Living(tasks={"ada": ada}) as living:
        node = living.cluster.nodes["ada"]
        await living.over(1)
        ada.data = first(AFTER)
        living.starts.failures = len(NAMES)
        await node.data_changed()
        await anyio.sleep(60)
        assert not living.starts.failures, "the plan that follows has ended the actors of all devices"
        await node.train()
        await living.over(2)
        assert counts(node) == AFTER


# --- a plan means data that are no longer here ------------------------------------------------------------------------


def data_set(number: int, samples: int) -> DataSet:
    inputs, labels = first(samples).tensors
    found = SampleSet(inputs, labels)
    return DataSet(number=number, digest=b"", store=SampleStore(found), evaluation=found, trial=found)


def test_data_wait_for_the_first_plan_that_means_them() -> None:
    own = OwnData(data_set(0, 10))
    own.put(data_set(1, 20))
    assert own.go_by(0)
    assert own.present.number == 0
    assert own.go_by(1)
    assert own.present.number == 1
    assert not own.go_by(0), "they are gone"
    own.put(data_set(2, 30))
    own.put(data_set(3, 40))
    assert not own.go_by(2), "others have come before a plan meant them"
    assert own.present.number == 1
    own.begin_anew()
    assert own.present.number == 3
