"""What people train, each a small example, on two devices and on one machine that has all the data."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from crowd.config.node_file import MODEL_FILE
from crowd.learning.task import Task
from crowd.learning.work import prepare, starting_model
from tests.node.cluster import Cluster
from tests.support.virtual import virtual_time

CLASSES, EPOCHS, BATCH = 3, 8, 16
DEVICES = {"ada": 0, "ben": 1}
POINTS_APART = 0.05
"""Largest difference of the two accuracies."""

Samples = tuple[Tensor, Tensor]


# --- samples ----------------------------------------------------------------------------------------------------------


def signals(count: int, seed: int) -> Samples:
    """Waves (count, 12, 2) whose frequency is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    phase, noise = torch.rand(count, 1, 2, generator=generator), torch.randn(count, 12, 2, generator=generator)
    steps = torch.arange(12.0)[None, :, None]
    return torch.sin(0.7 * (1 + labels)[:, None, None] * steps + phase) + 0.1 * noise, labels


def texts(count: int, seed: int) -> Samples:
    """Ten words (count, 10) of a vocabulary of twelve; which of the first three is among them is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    words = torch.randint(CLASSES, 12, (count, 10), generator=generator)
    words[torch.arange(count), torch.randint(10, (count,), generator=generator)] = labels
    return words, labels


def images(count: int, seed: int) -> Samples:
    """Images (count, 3, 8, 8) whose brightest channel is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    pixels = torch.randn(count, 3, 8, 8, generator=generator)
    pixels[torch.arange(count), labels] += 0.5
    return pixels, labels


def points(count: int, seed: int, *, scarce: int = 1) -> Samples:
    """Points (count, 8) about three centres; of class 0 there are so many times fewer."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % (2 * scarce + 1) % 2 + 1
    labels[:: 2 * scarce + 1] = 0
    centres = 1.2 * torch.eye(8)[:CLASSES]
    return centres[labels] + 0.5 * torch.randn(count, 8, generator=generator), labels


def scarce(count: int, seed: int) -> Samples:
    return points(count, seed, scarce=5)


def doubles(count: int, seed: int) -> Samples:
    """The points as numpy makes them: in double precision."""
    inputs, labels = points(count, seed)
    return inputs.double(), labels


# --- networks ---------------------------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.recurrent, self.head = layer(2, 12, batch_first=True), nn.Linear(12, CLASSES)

    def forward(self, inputs: Tensor) -> Any:
        return self.head(self.recurrent(inputs)[0][:, -1])


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(12, 8), nn.Linear(8, CLASSES)

    def forward(self, inputs: Tensor) -> Any:
        return self.head(self.words(inputs).mean(dim=1))


class Causal(nn.Module):
    """A transformer that looks back only."""

    mask: Tensor
    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(12, 16), nn.Linear(16, CLASSES)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.register_buffer("mask", torch.full((10, 10), -torch.inf).triu(diagonal=1))
        self.register_buffer("positions", 0.1 * torch.sin(torch.arange(10.0)[:, None] * torch.arange(16.0)))

    def forward(self, inputs: Tensor) -> Any:
        return self.head(self.layer(self.words(inputs) + self.positions, src_mask=self.mask)[:, -1])


class Tied(nn.Module):
    """The same weights on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.there, self.back, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)
        self.back.weight = self.there.weight

    def forward(self, inputs: Tensor) -> Any:
        return self.head(self.back(torch.relu(self.there(inputs))))


def perceptron(wrap: Callable[[nn.Module], nn.Module] = lambda layer: layer) -> nn.Module:
    return nn.Sequential(wrap(nn.Linear(8, 32)), nn.ReLU(), wrap(nn.Linear(32, CLASSES)))


class Converts(nn.Module):
    """A network that takes double precision, and works in single."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = perceptron()

    def forward(self, inputs: Tensor) -> Any:
        return self.inner(inputs.float())


def frozen() -> nn.Module:
    network = perceptron()
    network[0].requires_grad_(False)  # type: ignore[index]  # a sequence of layers
    return network


def channels_last() -> Any:
    network: Any = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)
    )
    return network.to(memory_format=torch.channels_last)


# --- optimisers -------------------------------------------------------------------------------------------------------


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.02)


def two_groups(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    every = list(parameters)
    decayed = {"params": [parameter for parameter in every if parameter.dim() > 1], "weight_decay": 0.1}
    others = {"params": [parameter for parameter in every if parameter.dim() <= 1], "weight_decay": 0.0}
    return torch.optim.AdamW([decayed, others], lr=0.01)


def clipped(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    every = list(parameters)
    optimizer = torch.optim.SGD(every, lr=0.2, momentum=0.9)

    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(every, 0.5)

    optimizer.register_step_pre_hook(clip)
    return optimizer


def falling(epochs: float) -> float:
    return math.exp(-0.2 * epochs)


def shifted(inputs: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The images of a batch, each moved to the right, around its edge."""
    by = torch.randint(8, (len(inputs),), generator=generator)
    columns = (torch.arange(8) - by[:, None]) % 8  # (batch, 8)
    return inputs.gather(3, columns[:, None, None, :].expand_as(inputs)), labels


# --- the examples -----------------------------------------------------------------------------------------------------

WEIGHTS = torch.tensor([5.0, 1.0, 1.0])
EXAMPLES: dict[str, tuple[Callable[[int, int], Samples], dict[str, Any]]] = {
    "LSTM": (signals, {"model": lambda: Recurrent(nn.LSTM), "optimizer": adam}),
    "GRU": (signals, {"model": lambda: Recurrent(nn.GRU), "optimizer": adam}),
    "embedding": (texts, {"model": Bag, "optimizer": adam, "epochs_max": 20}),
    "causal transformer": (texts, {"model": Causal, "optimizer": adam}),
    "frozen backbone": (points, {"model": frozen}),
    "tied weights": (points, {"model": Tied}),
    "channels last": (images, {"model": channels_last}),
    "weight norm": (points, {"model": lambda: perceptron(nn.utils.parametrizations.weight_norm)}),
    "old weight norm": (points, {"model": lambda: perceptron(nn.utils.weight_norm)}),
    "spectral norm": (points, {"model": lambda: perceptron(nn.utils.parametrizations.spectral_norm)}),
    "old spectral norm": (points, {"model": lambda: perceptron(nn.utils.spectral_norm)}),
    "double precision": (doubles, {"model": Converts}),
    "Adam": (points, {"optimizer": adam}),
    "AdamW with two groups": (points, {"optimizer": two_groups}),
    "clipping and schedule": (points, {"optimizer": clipped, "schedule": falling}),
    "augmentation": (images, {"model": channels_last, "augment": shifted}),
    "class weights": (scarce, {"loss": nn.CrossEntropyLoss(weight=WEIGHTS)}),
}


def make_task(data: Samples, evaluation: Samples, changes: dict[str, Any]) -> Task:
    values: dict[str, Any] = {"model": perceptron, "optimizer": sgd, "batch_size": BATCH, "epochs_max": EPOCHS}
    return Task(data=TensorDataset(*data), evaluation=TensorDataset(*evaluation), **(values | changes))


def _task(task: Task, device: str) -> Task:
    return task


def first_network(task: Task) -> nn.Module:
    return starting_model(task, prepare(task).layout, seed=0, run=1)


def centrally(task: Task, data: Samples) -> nn.Module:
    """The network after as many epochs of all the data on one machine."""
    model = first_network(task).train()
    optimizer = task.optimizer(model.parameters())
    rates = [group["lr"] for group in optimizer.param_groups]
    order = torch.Generator().manual_seed(0)
    for epoch in range(task.epochs_max):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1.0 if task.schedule is None else task.schedule(float(epoch)))
        for rows in torch.randperm(len(data[1]), generator=order).split(BATCH):
            inputs, labels = data[0][rows], data[1][rows]
            if task.augment is not None:
                inputs, labels = task.augment(inputs, labels, order)
            optimizer.zero_grad()
            task.loss(model(inputs), labels).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def recall(model: nn.Module, samples: Samples) -> float:
    """The mean over the classes of the part that is right."""
    right = model(samples[0]).argmax(dim=1) == samples[1]
    return float(sum(right[samples[1] == label].float().mean() for label in range(CLASSES))) / CLASSES


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("name", EXAMPLES)
@virtual_time
async def test_two_devices_learn_what_one_machine_with_all_the_data_does(name: str) -> None:
    draw, changes = EXAMPLES[name]
    parts = {device: draw(96, seed) for device, seed in DEVICES.items()}
    evaluation, unseen = draw(60, 8), draw(300, 9)
    cluster = Cluster(*DEVICES)
    for device, part in parts.items():
        cluster.add(device, partial(_task, make_task(part, evaluation, changes)), share="never")
    await cluster.train()
    assert len(set(cluster.digests.values())) == 1
    node = cluster.nodes["ada"]
    together = (torch.cat([part[0] for part in parts.values()]), torch.cat([part[1] for part in parts.values()]))
    task = make_task(together, evaluation, changes)
    expected = recall(centrally(task, together), unseen)
    assert expected > 0.8, "too hard to tell anything by it"
    assert recall(node.model, unseen) > expected - POINTS_APART
    start = first_network(task)
    trained = dict(node.model.named_parameters())
    for parameter_name, parameter in start.named_parameters():
        assert torch.equal(parameter, trained[parameter_name]) is not parameter.requires_grad
    assert node._store is not None
    written = safetensors.torch.load(node._store.read(MODEL_FILE) or b"")
    assert all(torch.equal(value, written[key]) for key, value in node.model.state_dict().items())
