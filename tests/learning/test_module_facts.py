"""What each module of a network takes, against what is counted by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from crowd.learning.work import prepare
from crowd.planning.profile import Module, TaskFacts
from tests.learning.nets import make_task

LABELS = torch.arange(20) % 3


def facts(network: Any, inputs: Tensor) -> TaskFacts:
    data = TensorDataset(inputs, LABELS)
    return prepare(make_task(model=network, data=data, evaluation=data)).facts


def test_of_a_convolutional_network_each_layer_is_counted() -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))

    found = facts(network, torch.randn(20, 1, 8, 8))
    outputs = 4 * 6 * 6
    assert found.modules == (
        Module("0", 4 * 9 + 4, 2 * (2 * 9 * outputs), 4 * outputs),  # nobody asks for its inputs' gradient
        Module("1", 2 * 4 + 2 * 4, 0, 4 * outputs),  # with mean and variance
        Module("4", 144 * 3 + 3, 3 * (2 * 144 * 3), 4 * 3),
    )


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Any:
        return self.head(self.lstm(inputs)[0][:, -1])


def test_a_recurrent_layer_is_one_module_with_its_states() -> None:
    lstm, head = facts(Recurrent, torch.randn(20, 7, 3)).modules
    assert (lstm.name, lstm.elements, lstm.activation_bytes) == ("lstm", 20 * (3 + 5 + 2), 4 * 5 * (7 + 1 + 1))
    assert (head.name, head.elements, head.activation_bytes) == ("head", 18, 12)
    # weights and their gradients in seven steps, and the gradients of the states between the steps, which nobody sees
    assert lstm.flops == pytest.approx(7 * 2 * (2 * 20 * (3 + 5)) + 6 * 2 * 20 * 5, rel=0.01)
    assert head.flops == pytest.approx(3 * 2 * 5 * 3, rel=0.5)


class Tied(nn.Module):
    """What reads its outputs off has the weights of the table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 4)
        self.middle = nn.Linear(4, 4)
        self.read = nn.Linear(4, 3, bias=False)
        self.read.weight = self.table.weight

    def forward(self, inputs: Tensor) -> Any:
        return self.read(self.middle(self.table(inputs)))


def test_what_has_the_weights_of_another_counts_to_the_one_before_it() -> None:
    assert facts(Tied, LABELS).modules == (
        Module("table", 12, 0, 16),
        Module("middle", 20, 3 * (2 * 16) + 3 * (2 * 12), 16),
    )


def test_a_frozen_part_is_computed_forward_alone() -> None:
    def network() -> nn.Module:
        backbone = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6))
        return nn.Sequential(backbone.requires_grad_(False), nn.Linear(6, 3))

    assert facts(network, torch.randn(20, 4)).modules == (
        Module("0.0", 30, 2 * 24, 24),
        Module("0.2", 42, 2 * 36, 24),
        Module("1", 21, 2 * (2 * 18), 12),
    )


class Attentive(nn.Module):
    """Products of its own, beside those of its layers; one layer is used twice, parameters of its own are used once."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, 4))
        self.layer = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Any:
        return self.head(self.layer(self.layer(inputs)) + inputs @ self.scale)


def test_a_module_used_twice_counts_twice_and_products_of_the_network_itself_are_its_own() -> None:
    assert facts(Attentive, torch.randn(20, 4)).modules == (
        Module("", 16, 2 * (2 * 16), 12),
        Module("layer", 20, 2 * (2 * 16) + 3 * (2 * 16), 2 * 16),
        Module("head", 15, 3 * (2 * 12), 12),
    )


class Lookup(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(9, 3)

    def forward(self, inputs: Tensor) -> Any:
        return self.bag(inputs)


def test_where_nothing_can_be_counted_work_is_divided_by_parameters() -> None:
    def network() -> nn.Module:
        return nn.Sequential(Lookup(), nn.BatchNorm1d(3))

    assert facts(network, torch.randint(0, 9, (20, 5))).modules == (
        Module("0.bag", 27, 6 * 27, 12),
        Module("1", 12, 6 * 6, 12),  # its statistics are no parameters
    )


def test_of_too_many_modules_neighbours_are_one() -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 2), *(nn.Linear(2, 2) for _ in range(299)), nn.Linear(2, 3))

    found = facts(network, torch.randn(20, 4))
    assert len(found.modules) == 151
    assert found.modules[0] == Module("0", 10 + 6, 2 * 16 + 3 * 8, 8)
    assert found.modules[150] == Module("300", 9, 3 * 12, 12)


def test_a_long_name_keeps_its_end() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleDict({"n" * 70: nn.Linear(4, 3)})

        def forward(self, inputs: Tensor) -> Any:
            return self.layers["n" * 70](inputs)

    assert [module.name for module in facts(Named, torch.randn(20, 4)).modules] == ["n" * 64]


def test_counting_leaves_no_hooks_behind() -> None:
    made = []

    def network() -> nn.Module:
        made.append(nn.Sequential(nn.Linear(4, 3)))
        return made[-1]

    facts(network, torch.randn(20, 4))
    assert not any(module._forward_hooks for each in made for module in each.modules())
