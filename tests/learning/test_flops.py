"""Plans and simulations know how much arithmetic a network takes."""

from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from torch.utils.data import TensorDataset

from crowd.learning.flops import FlopCounter
from crowd.learning.work import prepare
from tests.learning.nets import FEATURES, make_task

BATCH, STEPS, INPUTS, HIDDEN = 4, 7, 3, 5


class Cells(torch.nn.Module):
    """A recurrent layer, a step at a time."""

    def __init__(self, cell: torch.nn.RNNCellBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, inputs: torch.Tensor) -> Any:
        hidden = inputs.new_zeros(len(inputs), HIDDEN)
        state: Any = (hidden, hidden) if isinstance(self.cell, torch.nn.LSTMCell) else hidden
        for step in range(inputs.shape[1]):
            state = self.cell(inputs[:, step], state)
        return state[0] if isinstance(state, tuple) else state


def counted(network: torch.nn.Module, inputs: torch.Tensor) -> int:
    with FlopCounter() as counter:
        outputs = network(inputs)
        (outputs[0] if isinstance(outputs, tuple) else outputs).sum().backward()
    return counter.flops_per_sample(len(inputs), network)


@pytest.mark.parametrize(
    ("layer", "cell", "gates"),
    [
        (torch.nn.LSTM, torch.nn.LSTMCell, 4),
        (torch.nn.GRU, torch.nn.GRUCell, 3),
        (torch.nn.RNN, torch.nn.RNNCell, 1),
    ],
)
def test_a_recurrent_layer_is_as_much_work_as_its_cells(layer: Any, cell: Any, gates: int) -> None:
    inputs = torch.randn(BATCH, STEPS, INPUTS)
    whole = counted(layer(INPUTS, HIDDEN, batch_first=True), inputs)
    assert whole == pytest.approx(counted(Cells(cell(INPUTS, HIDDEN)), inputs), rel=0.1)
    # a multiplication and an addition for each weight and step, forward, and for the gradients of weights and states
    forward = 2 * STEPS * gates * HIDDEN * (INPUTS + HIDDEN)
    states = 2 * STEPS * gates * HIDDEN * HIDDEN
    assert whole == pytest.approx(2 * forward + states, rel=0.1)


def test_counting_leaves_fast_kernels_on() -> None:
    before = torch.backends.mkldnn.enabled
    counted(torch.nn.Linear(3, 2), torch.randn(2, 3))
    assert torch.backends.mkldnn.enabled is before


class Table(torch.nn.Module):
    """Looks its outputs up, without a product."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = torch.nn.EmbeddingBag(9, 3)

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.bag(inputs)


def test_work_that_cannot_be_counted_is_estimated_and_said() -> None:
    data = TensorDataset(torch.randint(0, 9, (20, FEATURES)), torch.arange(20) % 3)
    with capture_logs() as logs:
        work = prepare(make_task(model=Table, data=data, evaluation=data))
    assert work.facts.flops_per_sample == 6 * 9 * 3
    (said,) = logs
    assert (said["event"], said["log_level"], said["network"]) == ("work_cannot_be_counted", "warning", "Table")


def test_the_count_is_by_the_common_samples_so_that_all_devices_have_the_same() -> None:
    """A packed sequence is as much work as it is long."""

    class Packed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = torch.nn.LSTM(1, 3, batch_first=True)

        def forward(self, inputs: torch.Tensor) -> Any:
            lengths = (inputs != 0).sum(dim=1)
            packed = torch.nn.utils.rnn.pack_padded_sequence(
                inputs[..., None], lengths, batch_first=True, enforce_sorted=False
            )
            return self.recurrent(packed)[1][0][-1]

    def samples(length: int) -> TensorDataset:
        inputs = torch.ones(20, 9)
        inputs[:, length:] = 0
        return TensorDataset(inputs, torch.arange(20) % 3)

    def flops(own: int, common: int) -> int:
        task = make_task(model=Packed, data=samples(own), evaluation=samples(common))
        return prepare(task).facts.flops_per_sample

    assert flops(2, 5) == flops(9, 5) < flops(2, 6)
