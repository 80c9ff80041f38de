"""A whole run in which one class is on a much slower device alone, which keeps its samples to itself."""

import attrs
import torch
from torch.utils.data import TensorDataset

import crowd
from devices.simulation.device import SimulatedCluster
from devices.simulation.virtual_time import run_virtually

CLASSES, COLUMNS = 3, 8
SPEEDS_KFLOPS = {"giant": 2_000_000, "pi": 20_000, "shy": 20_000}


def samples(labels: torch.Tensor, seed: int) -> TensorDataset:
    """Gaussian blobs, one for each class."""
    centres = torch.randn(CLASSES, COLUMNS, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(len(labels), COLUMNS, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(centres[labels] + 0.5 * noise, labels)


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(COLUMNS, 16), torch.nn.ReLU(), torch.nn.Linear(16, CLASSES))


def task(device: str) -> crowd.Task:
    """`giant` and `pi` have two classes, `shy` the third."""
    labels = torch.full((300,), 2) if device == "shy" else torch.arange(300) % 2
    return crowd.Task(
        model=network,
        data=samples(labels, len(device)),
        evaluation=samples(torch.arange(300) % CLASSES, 99),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
        batch_size=16,
        target=0.9,
        epochs_max=40,
    )


def test_a_class_on_one_slow_private_device_is_learnt() -> None:
    cluster = SimulatedCluster(SPEEDS_KFLOPS, task)
    shy = cluster.devices["shy"]
    shy.config = attrs.evolve(shy.config, share="never")
    run_virtually(cluster.train)
    giant = cluster.devices["giant"].node
    assert giant.results[giant.name].reached
    inputs, labels = samples(torch.full((200,), 2), 7).tensors
    recall = float((giant.model(inputs).argmax(dim=1) == labels).float().mean())
    assert recall >= 0.8
