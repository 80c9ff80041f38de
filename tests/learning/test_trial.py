"""What does not fit together is refused before anything is trained."""

import re
import threading
from typing import Any

import anyio
import pytest
import torch
from torch.utils.data import TensorDataset

from crowd.errors import BadConfig
from crowd.learning.pool import EpochSampler
from crowd.learning.speed_test import measure_speed
from crowd.learning.work import LocalTrainer, Work, prepare
from devices.torch_compute import TorchCompute
from tests.learning.nets import CLASSES, FEATURES, dataset, make_task, separable, train
from tests.learning.test_work import pool_of

SAMPLES = separable(40)
TWO_CLASSES = (SAMPLES.labels > 0).long()


def prepared(**changes: Any) -> Work:
    return prepare(make_task(**changes))


def refusal(**changes: Any) -> str:
    with pytest.raises(BadConfig) as refused:
        prepared(**changes)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- metrics ----------------------------------------------------------------------------------------------------------


def outputs(count: int) -> Any:
    return lambda: torch.nn.Linear(FEATURES, count)


def one_logit(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(outputs.reshape(len(labels), -1)[:, 0], labels.float())


def per_pixel() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Unflatten(1, (1, 2, 3)), torch.nn.Conv2d(1, 4, 1))


@pytest.mark.parametrize(
    ("labels", "changes"),
    [
        pytest.param(TWO_CLASSES, {"model": outputs(1), "loss": one_logit}, id="one logit"),
        pytest.param(
            TWO_CLASSES,
            {"model": lambda: torch.nn.Sequential(outputs(1)(), torch.nn.Flatten(0)), "loss": one_logit},
            id="one logit, squeezed",
        ),
        pytest.param(SAMPLES.inputs[:, :1], {"model": outputs(1), "loss": torch.nn.MSELoss()}, id="regression"),
        pytest.param(
            (SAMPLES.inputs > 0).long(), {"model": outputs(6), "loss": lambda out, y: out.mean()}, id="many labels"
        ),
        pytest.param(
            torch.nn.functional.one_hot(SAMPLES.labels, 3).float(), {"model": outputs(3)}, id="one-hot labels"
        ),
        pytest.param(torch.zeros(40, 2, 3).long(), {"model": per_pixel}, id="classes not last"),
    ],
)
@pytest.mark.parametrize("common", [True, False])
def test_what_has_no_accuracy_is_refused_with_a_way_out(
    labels: torch.Tensor, changes: dict[str, Any], common: bool
) -> None:
    data = TensorDataset(SAMPLES.inputs, labels)
    said = refusal(data=data, evaluation=data if common else None, **changes)
    assert said.startswith("the metric accuracy cannot take ")
    assert "outputs (batch, ..., classes) of 2 classes or more" in said
    assert said.endswith("choose another metric, Task(metric=…)")


def test_a_single_logit_is_told_how_two_classes_are_written() -> None:
    data = TensorDataset(SAMPLES.inputs, TWO_CLASSES)
    said = refusal(data=data, evaluation=data, model=outputs(1), loss=one_logit)
    assert "outputs (8, 1) and labels (8,) torch.int64; for two classes let the network have 2 outputs" in said
    prepared(data=data, evaluation=data, model=outputs(2))


def test_a_label_that_no_output_can_predict_is_refused() -> None:
    labels = torch.arange(40).remainder(3).where(torch.arange(40) != 33, -100)[:, None].expand(40, 2).contiguous()
    model = lambda: torch.nn.Sequential(torch.nn.Linear(FEATURES, 6), torch.nn.Unflatten(1, (2, 3)))  # noqa: E731

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten())

    data = TensorDataset(SAMPLES.inputs, labels)
    said = refusal(data=data, evaluation=data, model=model, loss=loss)
    assert said.startswith("label of data[33] is [-100, -100], but the network has 3 outputs: expected 0 to 2; if the")
    kept = TensorDataset(SAMPLES.inputs[:33], labels[:33])
    prepared(data=kept, evaluation=kept, model=model, loss=loss)


def test_a_device_without_samples_refuses_by_the_evaluation_set() -> None:
    data = TensorDataset(SAMPLES.inputs, TWO_CLASSES)
    said = refusal(data=dataset(separable(0)), evaluation=data, model=outputs(1), loss=one_logit)
    assert said.startswith("the metric accuracy cannot take evaluation: ")


# --- what a network needs of its samples ------------------------------------------------------------------------------


class Own(torch.nn.Module):
    """Ends in a layer for the classes; how it reads its inputs is the subclass's."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = torch.nn.GRU(1, 4, batch_first=True)
        self.layer = torch.nn.Linear(4, CLASSES)


class Standardising(Own):
    def forward(self, inputs: torch.Tensor) -> Any:
        scaled = (inputs - inputs.mean(dim=1, keepdim=True)) / inputs.std(dim=1, keepdim=True)
        return self.layer(self.recurrent(scaled[..., None])[1][-1])


class Packing(Own):
    def forward(self, inputs: torch.Tensor) -> Any:
        lengths = (inputs != 0).sum(dim=1)
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            inputs[..., None], lengths, batch_first=True, enforce_sorted=False
        )
        return self.layer(self.recurrent(packed)[1][-1])


class MaskedMean(Own):
    def forward(self, inputs: torch.Tensor) -> Any:
        there = (inputs != 0).float()[..., None]
        return self.layer((self.recurrent(inputs[..., None])[0] * there).sum(1) / there.sum(1))


def measured(**changes: Any) -> int:
    task = make_task(**changes)
    work = prepare(task)
    return anyio.run(measure_speed, task, work, TorchCompute())


@pytest.mark.parametrize("count", [0, 1, 2, 40])
@pytest.mark.parametrize("network", [Standardising, Packing, MaskedMean])
def test_a_network_that_needs_real_samples_starts_and_is_measured(network: type[Own], count: int) -> None:
    padded = SAMPLES.inputs.clone()
    padded[::2, 3:] = 0
    evaluation = TensorDataset(padded, SAMPLES.labels)
    data = TensorDataset(padded[:count], SAMPLES.labels[:count])
    assert measured(model=network, data=data, evaluation=evaluation) > 0


def test_a_network_that_divides_by_zero_is_not_told_to_learn_more_slowly() -> None:
    empty = TensorDataset(torch.zeros(40, FEATURES), SAMPLES.labels)
    said = refusal(model=MaskedMean, data=empty, evaluation=empty)
    assert said.startswith("the loss of the untrained network on data is nan: look for a division by zero")


def test_the_speed_of_steps_that_diverge_is_measured_all_the_same() -> None:
    assert measured(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e30)) > 0


# --- what the task's own code does ------------------------------------------------------------------------------------


class Locked(torch.nn.Linear):
    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)
        self.lock = threading.Lock()


def weight_normed() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.utils.weight_norm(torch.nn.Linear(FEATURES, CLASSES)))


def scripted() -> Any:
    return torch.jit.script(torch.nn.Sequential(torch.nn.Linear(FEATURES, CLASSES)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("network", [Locked, weight_normed, scripted])
def test_a_network_need_not_be_copied_nor_take_hooks(network: Any) -> None:
    assert measured(model=network) > 0


class Late(torch.nn.Linear):
    """Makes a buffer in its first forward pass."""

    offset: torch.Tensor

    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "offset"):
            self.register_buffer("offset", torch.zeros(FEATURES))
        return super().forward(inputs + self.offset)


class Growing(torch.nn.Linear):
    """Has a buffer of the last batch's shape."""

    last: torch.Tensor

    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)
        self.register_buffer("last", torch.zeros(1, FEATURES))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.last = inputs.detach()
        return super().forward(inputs)


class Replacing(torch.nn.Linear):
    """Has another parameter for each batch."""

    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.weight = torch.nn.Parameter(self.weight.detach().clone())
        return super().forward(inputs)


class Named(torch.nn.Linear):
    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)

    def forward(self, inputs: torch.Tensor) -> Any:
        return {"logits": super().forward(inputs)}


def by_name(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(outputs["logits"], labels)


def failing(*arguments: Any, **more: Any) -> Any:
    raise KeyError("weights")


ONE_NETWORK = torch.nn.Linear(FEATURES, CLASSES)


class Tempered(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.temperature = torch.nn.Parameter(torch.ones(1))

    def forward(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs / self.temperature, labels)


def unconnected(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.ones(1, requires_grad=True).sum()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model": Late}, "offset of the network is made by its first forward pass: make it in __init__"),
        ({"model": Growing}, r"last of the network changes from \(1, 6\) torch.float32 to \(8, 6\)"),
        ({"model": Replacing}, "weight of the network is another tensor after a forward pass"),
        ({"model": Named, "loss": by_name}, "the network's output is a dict; expected one tensor"),
        ({"model": lambda: None}, r"model\(\) returned a NoneType; expected a torch.nn.Module"),
        ({"model": failing}, r"model\(\) failed: .*test_trial.py, line \d+: KeyError: 'weights'"),
        ({"model": lambda: ONE_NETWORK}, r"model\(\) returned the same weight twice: make a new network each time"),
        (
            {"model": lambda: torch.nn.Sequential(ONE_NETWORK, torch.nn.Linear(3, 3))},
            r"model\(\) returned the same 0.weight twice",
        ),
        ({"model": ONE_NETWORK}, "model: expected a function that makes the network, .*found a Linear"),
        ({"model": None}, "model: expected a function that makes the network, .*found a NoneType"),
        ({"loss": failing}, r"loss cannot take outputs .*test_trial.py, line \d+: KeyError: 'weights'"),
        ({"loss": torch.nn.CrossEntropyLoss}, "loss: expected a function of outputs and labels"),
        ({"loss": torch.nn.CrossEntropyLoss(reduction="none")}, r"the loss is a tensor of shape \(8,\); expected one"),
        ({"loss": lambda outputs, labels: 1.0}, "the loss is a float; expected one number, as a tensor"),
        ({"loss": lambda outputs, labels: outputs.sum().detach()}, "no parameter .* gets a gradient from the loss"),
        ({"loss": unconnected}, "no parameter .* gets a gradient from the loss"),
        ({"loss": Tempered()}, "temperature of the loss would be trained by nobody: make it a part of the network"),
        ({"batch_size": 1}, "batch_size is 1, but layer 1 normalises over a batch: expected 2 or more"),
        (
            {"optimizer": lambda parameters: torch.optim.SGD(ONE_NETWORK.parameters())},
            r"the task's optimizer\(\) has none of the network's parameters",
        ),
        ({"optimizer": failing}, r"optimizer\(\) failed: .*test_trial.py, line \d+: KeyError: 'weights'"),
        ({"optimizer": lambda parameters: None}, r"optimizer\(\) returned a NoneType"),
        ({"optimizer": torch.optim.SGD(ONE_NETWORK.parameters())}, "optimizer: expected a function that makes"),
        ({"optimizer": torch.optim.LBFGS}, "the optimiser LBFGS cannot step: .*argument: 'closure'"),
        ({"optimizer": torch.optim.SparseAdam}, "the optimiser SparseAdam cannot step: .*dense gradients"),
    ],
)
def test_what_a_task_of_ones_own_gets_wrong_is_one_line(changes: dict[str, Any], complaint: str) -> None:
    assert re.search(complaint, refusal(**changes))


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        OSError("image file is truncated"),
        KeyError("label"),
        ValueError("n/a"),
        RuntimeError("decode\nfailed"),
        ZeroDivisionError("division by zero"),
        IndexError("list index out of range"),
    ],
)
def test_a_data_set_that_raises_is_one_line_with_the_sample_the_cause_and_the_place(
    error: Exception, common: bool
) -> None:
    class Files(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 50

        def __getitem__(self, index: int) -> Any:
            if index == 17:
                raise error
            return torch.zeros(FEATURES), 0

    said = refusal(evaluation=Files()) if common else refusal(data=Files())
    what = "evaluation" if common else "data"
    assert re.match(rf"{what}\[17\] of 50 cannot be read: .*test_trial.py, line \d+: {type(error).__name__}: ", said)


def fails_at_five(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    assert len(labels) != 5, "five"
    return torch.nn.functional.cross_entropy(outputs, labels)


class FailsLater(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        assert not any("momentum_buffer" in state for state in self.state.values()), "five"
        return super().step(closure)


def fails_later(parameters: Any) -> torch.optim.Optimizer:
    return FailsLater(parameters, lr=0.1, momentum=0.9)


@pytest.mark.parametrize("changes", [{"loss": fails_at_five}, {"optimizer": fails_later}], ids=["loss", "optimizer"])
def test_what_fails_in_the_middle_of_the_training_is_one_line_with_its_place(changes: dict[str, Any]) -> None:
    task = make_task(model=outputs(CLASSES), **changes)
    local = LocalTrainer(task, task.model(), prepare(task).layout)
    pool = pool_of(separable(11))
    with pytest.raises(BadConfig, match=r"a training step failed: .*test_trial.py, line \d+: AssertionError: five"):
        train(local, pool, EpochSampler(11, seed=0, generation=1), 11)
