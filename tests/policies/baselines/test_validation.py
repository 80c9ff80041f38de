"""The baselines do what their papers say: whole nodes under virtual time, and the same training in a few lines of plain
torch on the very batches that the nodes' networks were shown."""

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest
import torch

from crowd.learning import replica
from crowd.learning.layout import Layout
from crowd.learning.task import Task
from crowd.planning.plan import PPM, Outer
from crowd.tasks import digits
from crowd.tasks.partition import Partition
from policies.baselines.diloco import OUTER
from policies.baselines.fedbuff import SERVER
from policies.baselines.fedprox import PROXIMAL_PPM
from tests.node.cluster import Cluster
from tests.support.virtual import virtual_time

NAMES = ("ada", "ben", "cy", "dan")
BATCH, STEPS = 32, 11
"""Of an epoch of one device."""
Batch = tuple[torch.Tensor, torch.Tensor]
"""Inputs and labels."""


class Recorder(torch.nn.Module):
    """Passes its input on, and remembers what it was shown in training."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[torch.Tensor] = []

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.shown.append(samples.clone())
        return samples


class Recorded:
    """A training of `digits` in four equal IID parts of whole batches, and which batches each device trained in it, in
    order."""

    def __init__(self, optimizer: Callable[..., torch.optim.Optimizer], *, epochs: int) -> None:
        self.optimizer = optimizer
        self._epochs = epochs
        self.batches: dict[str, list[Batch]] = {}
        self._recorders: dict[str, list[Recorder]] = {name: [] for name in NAMES}
        """By device, one of each network that it made."""
        self._labels: dict[bytes, torch.Tensor] = {}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.start = digits.network()

    def task(self, device: str) -> Task:
        part = Partition(part=NAMES.index(device), parts=len(NAMES))
        task = digits.task(device, part)
        assert isinstance(task.data, torch.utils.data.TensorDataset)
        images, labels = task.data.tensors
        self._labels.update({image.numpy().tobytes(): label for image, label in zip(images, labels, strict=True)})
        return attrs.evolve(
            task,
            data=torch.utils.data.Subset(task.data, range(STEPS * BATCH)),
            model=partial(self._network, device),
            optimizer=self.optimizer,
            target=1.0,
            epochs_max=self._epochs,
            batch_size=BATCH,
        )

    def _network(self, device: str) -> torch.nn.Module:
        self._recorders[device].append(Recorder())
        return torch.nn.Sequential(self._recorders[device][-1], *self.replica().children())

    async def train(self, policy: str, *, speeds: tuple[int, ...] = (1, 1, 1, 1), apart: bool = False) -> torch.Tensor:
        """The parameters with which all devices end (`apart`: the first, each with its own), as one vector; `batches`
        are then what led there."""
        cluster = Cluster(*NAMES)
        for name, speed in zip(NAMES, speeds, strict=True):
            cluster.add(name, self.task, speed_kflops=speed * 1_000_000, members_min=len(NAMES), policy=policy)
        await cluster.train()
        assert len(set(cluster.digests.values())) == (len(NAMES) if apart else 1)
        results = [cluster.nodes[name].results[cluster.nodes[name].name] for name in NAMES]
        assert {result.generations for result in results} == {1}, "a round that was begun twice would be recorded twice"
        self.batches = {name: self._shown(name) for name in NAMES}
        return vector(cluster.nodes[NAMES[0]].model)

    def _shown(self, device: str) -> list[Batch]:
        """To the network that was trained in the run: networks made before measured the device, those after it rest."""
        last = [recorder for recorder in self._recorders[device] if recorder.shown][-1]
        return [
            (inputs, torch.stack([self._labels[image.numpy().tobytes()] for image in inputs])) for inputs in last.shown
        ]

    def replica(self) -> torch.nn.Module:
        """The network that every device starts from."""
        network = digits.network()
        network.load_state_dict(self.start.state_dict())
        return network


def vector(network: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach()


def step(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    *,
    centre: torch.Tensor | None = None,
    proximal: float = 0.0,
) -> None:
    inputs, labels = batch
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(network(inputs), labels)
    if centre is not None and proximal:
        here = torch.nn.utils.parameters_to_vector(network.parameters())
        loss = loss + proximal / 2 * (here - centre).square().sum()
    loss.backward()
    optimizer.step()


def local_sgd(
    recorded: Recorded, *, rounds: int, outer: Callable[..., torch.optim.Optimizer], proximal: float = 0.0
) -> torch.Tensor:
    """Local SGD: in each round every worker takes its steps from the common parameters, and the outer optimiser steps
    along the mean, by samples, of what they moved. With the outer rate 1 that is averaging. `proximal` times half the
    squared distance from the common parameters is part of the loss."""
    common = torch.nn.Parameter(vector(recorded.replica()))
    outer_optimizer = outer([common])
    workers = {name: recorded.replica() for name in NAMES}
    optimizers = {name: recorded.optimizer(workers[name].parameters()) for name in NAMES}
    steps = {name: len(batches) // rounds for name, batches in recorded.batches.items()}
    for number in range(rounds):
        moved, samples = torch.zeros_like(common), 0
        for name, worker in workers.items():
            mine = recorded.batches[name][number * steps[name] : (number + 1) * steps[name]]
            torch.nn.utils.vector_to_parameters(common.detach().clone(), worker.parameters())
            for batch in mine:
                step(worker, optimizers[name], batch, centre=common.detach(), proximal=proximal)
            count = sum(len(labels) for _, labels in mine)
            moved += count * (common.detach() - vector(worker))
            samples += count
        common.grad = moved / samples
        outer_optimizer.step()
    return common.detach()


def single_process(recorded: Recorded) -> torch.Tensor:
    """SGD in one process: each step on what all devices trained in their steps of that number, as one large batch."""
    network = recorded.replica()
    optimizer = recorded.optimizer(network.parameters())
    for parts in zip(*recorded.batches.values(), strict=True):
        inputs, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        step(network, optimizer, (inputs, labels))
    return vector(network)


def gossip(recorded: Recorded, weights: torch.Tensor) -> torch.Tensor:
    """Decentralised SGD: after each step all workers' parameters X (workers, elements) become `weights` @ X. Returns
    their mean at the end."""
    workers = [recorded.replica() for _ in NAMES]
    optimizers = [recorded.optimizer(worker.parameters()) for worker in workers]
    for batches in zip(*recorded.batches.values(), strict=True):
        for worker, optimizer, batch in zip(workers, optimizers, batches, strict=True):
            step(worker, optimizer, batch)
        mixed = weights @ torch.stack([vector(worker) for worker in workers])
        for worker, own in zip(workers, mixed, strict=True):
            torch.nn.utils.vector_to_parameters(own.clone(), worker.parameters())
    return torch.stack([vector(worker) for worker in workers]).mean(0)


def plain_sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def with_momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


averaging = partial(torch.optim.SGD, lr=1.0)
nesterov = partial(torch.optim.SGD, lr=0.7, momentum=0.9, nesterov=True)


@virtual_time
async def test_fedavg_on_equal_parts_is_local_sgd_with_averaging() -> None:
    recorded = Recorded(with_momentum, epochs=3)
    reached = await recorded.train("fedavg")
    assert [len(batches) for batches in recorded.batches.values()] == 4 * [3 * STEPS]
    torch.testing.assert_close(reached, local_sgd(recorded, rounds=3, outer=averaging), rtol=1e-4, atol=1e-6)


@virtual_time
async def test_diloco_is_local_sgd_with_an_outer_step_of_torch_s_nesterov() -> None:
    recorded = Recorded(with_momentum, epochs=3)
    reached = await recorded.train("diloco")
    expected = local_sgd(recorded, rounds=3, outer=nesterov)
    torch.testing.assert_close(reached, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(reached, local_sgd(recorded, rounds=3, outer=averaging), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", [plain_sgd, with_momentum])
@virtual_time
async def test_all_reduce_is_sgd_in_one_process_on_the_batches_of_all(optimizer: Any) -> None:
    recorded = Recorded(optimizer, epochs=1)
    reached = await recorded.train("all_reduce")
    assert [[len(labels) for _, labels in batches] for batches in recorded.batches.values()] == 4 * [STEPS * [BATCH]]
    torch.testing.assert_close(reached, single_process(recorded), rtol=1e-4, atol=1e-6)


@virtual_time
async def test_balanced_all_reduce_weighs_unequal_batches_as_one_process_does() -> None:
    recorded = Recorded(with_momentum, epochs=1)
    reached = await recorded.train("all_reduce_balanced", speeds=(11, 2, 11, 8))
    assert [len(batches[0][1]) for batches in recorded.batches.values()] == [44, 8, 44, 32]
    torch.testing.assert_close(reached, single_process(recorded), rtol=1e-4, atol=1e-6)


@virtual_time
async def test_fedprox_is_local_sgd_on_the_loss_with_its_proximal_term() -> None:
    recorded = Recorded(with_momentum, epochs=3)
    reached = await recorded.train("fedprox")
    proximal = local_sgd(recorded, rounds=3, outer=averaging, proximal=PROXIMAL_PPM / PPM)
    torch.testing.assert_close(reached, proximal, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(reached, local_sgd(recorded, rounds=3, outer=averaging), rtol=1e-4, atol=1e-6)


@virtual_time
async def test_fedprox_takes_from_slow_devices_what_they_have_by_the_end_of_the_cycle() -> None:
    recorded = Recorded(with_momentum, epochs=2)
    await recorded.train("fedprox", speeds=(4, 2, 2, 1))
    samples = [sum(len(labels) for _, labels in batches) for batches in recorded.batches.values()]
    assert samples[0] == samples[1] == samples[2]
    assert samples[3] == pytest.approx(samples[0] / 2, rel=0.05)


@virtual_time
async def test_local_training_ends_with_what_each_device_trained_alone() -> None:
    recorded = Recorded(with_momentum, epochs=2)
    reached = await recorded.train("local_only", apart=True)
    alone = recorded.replica()
    optimizer = with_momentum(alone.parameters())
    for batch in recorded.batches[NAMES[0]]:
        step(alone, optimizer, batch)
    torch.testing.assert_close(reached, vector(alone), rtol=1e-4, atol=1e-6)


@virtual_time
async def test_d_psgd_is_decentralised_sgd_on_a_ring() -> None:
    recorded = Recorded(with_momentum, epochs=1)
    reached = await recorded.train("d_psgd")
    weights = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 1, 1]]) / 3
    torch.testing.assert_close(reached, gossip(recorded, weights), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(reached, gossip(recorded, torch.eye(4)), rtol=1e-3, atol=1e-5)


@virtual_time
async def test_fedbuff_with_one_device_at_a_time_goes_the_server_s_rate_of_its_way_in_the_order_of_arrival() -> None:
    """With a buffer of one, and a device so fast that the others never finish, nothing is ever stale."""
    recorded = Recorded(plain_sgd, epochs=1)
    reached = await recorded.train("fedbuff", speeds=(10**6, 1, 1, 1))
    alone = recorded.replica()
    optimizer = plain_sgd(alone.parameters())
    batches = recorded.batches[NAMES[0]]
    assert len(batches) == len(NAMES) * STEPS
    for begin in range(0, len(batches), STEPS):
        version = vector(alone)
        for batch in batches[begin : begin + STEPS]:
            step(alone, optimizer, batch)
        torch.nn.utils.vector_to_parameters(
            torch.lerp(version, vector(alone), SERVER.rate_ppm / PPM), alone.parameters()
        )
    torch.testing.assert_close(reached, vector(alone), rtol=1e-3, atol=1e-5)


@virtual_time
async def test_mercury_trains_on_what_is_wrong_most() -> None:
    """Some samples are trained several times and others not at all, and none with the weight of all others."""
    recorded = Recorded(with_momentum, epochs=1)
    reached = await recorded.train("mercury")
    for batches in recorded.batches.values():
        images = [image.numpy().tobytes() for inputs, _ in batches for image in inputs]
        assert len(images) == STEPS * BATCH
        assert len(set(images)) < len(images)
    assert not torch.allclose(reached, single_process(recorded), rtol=1e-4, atol=1e-6), "the weights are not all 1"


def test_diloco_s_outer_step_is_torch_s() -> None:
    random = torch.Generator().manual_seed(0)
    state = replica.ReplicaState(layout=Layout.plain(1_000), vector=torch.randn(1_000, generator=random))
    parameter = torch.nn.Parameter(state.vector.clone())
    optimizer = nesterov([parameter])
    for _ in range(5):
        outer_gradient = torch.randn(1_000, generator=random)
        parameter.grad = outer_gradient
        optimizer.step()
        state = apply(state, OUTER, -outer_gradient)
    torch.testing.assert_close(state.vector, parameter.detach())


def apply(state: replica.ReplicaState, outer: Outer, delta: torch.Tensor) -> replica.ReplicaState:
    return replica.apply(state, outer, delta, samples=1, epochs_ppb=0, counters=(), streak=0, finished=False)
