import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.nn import functional

from crowd.learning.description import described
from crowd.learning.fingerprint import fingerprint
from crowd.learning.samples import SampleSet
from crowd.metrics import MacroF1
from crowd.planning.profile import differing_parts
from tests.learning.nets import layout_of, linear, make_task, separable


def of(evaluation: SampleSet | None = None, form: SampleSet | None = None, **changes: Any) -> bytes:
    task = make_task(**changes)
    model = task.model()
    form = form or separable(1)
    return fingerprint(task, model, form.format, evaluation, layout_of(model), {}, described(task.loss))


def differing(first: dict[str, Any], second: dict[str, Any]) -> tuple[str, ...]:
    one, other = of(**first), of(**second)
    assert (one == other) == (not differing_parts(one, other))
    return differing_parts(one, other)


def test_devices_with_other_data_and_other_initial_parameters_share_a_fingerprint() -> None:
    assert of(data=None) == of()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"name": "another"}, ("name",)),
        ({"model": linear}, ("network", "state")),
        ({"form": SampleSet(torch.zeros(1, 6).double(), torch.zeros(1).long())}, ("samples",)),
        ({"form": SampleSet(torch.zeros(1, 7), torch.zeros(1).long())}, ("samples",)),
        ({"loss": functional.nll_loss}, ("loss",)),
        ({"optimizer": torch.optim.Adam}, ("optimiser",)),
        ({"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.06, momentum=0.9)}, ("optimiser",)),
        (
            {"optimizer": lambda some: torch.optim.SGD([{"params": list(some), "lr": 0.01}], momentum=0.9)},
            ("optimiser",),
        ),
        ({"batch_size": 9}, ("batch size",)),
        ({"metric": MacroF1()}, ("metric",)),
        ({"metric": torchmetrics.classification.MulticlassF1Score(3)}, ("metric",)),
        ({"target": 0.5}, ("target",)),
        ({"patience": 4}, ("patience",)),
        ({"epochs_max": 3}, ("epochs",)),
        ({"evaluation": separable(5)}, ("evaluation set",)),
        ({"batch_size": 9, "epochs_max": 3}, ("batch size", "epochs")),
    ],
)
def test_whatever_replicas_must_have_in_common_is_told_apart_by_its_part(
    changes: dict[str, Any], parts: tuple[str, ...]
) -> None:
    assert differing(changes, {}) == parts


# --- the network ------------------------------------------------------------------------------------------------------


def net(activation: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 3))


class Written(nn.Module):
    """A network whose activation and dropout no print shows."""

    def __init__(self, slope: float = 0.01, activation: Callable[[Tensor], Tensor] = functional.relu) -> None:
        super().__init__()
        self.layer, self.slope, self.activation = nn.Linear(6, 3), slope, activation

    def forward(self, inputs: Tensor) -> Tensor:
        return self.activation(functional.leaky_relu(self.layer(inputs), self.slope))


class Configured(Written):
    """A network that keeps its settings in a dict."""

    def __init__(self, settings: dict[str, float]) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * self.settings["gain"]


def scaled_by(_: nn.Linear, factor: float) -> Callable[..., Tensor]:
    return lambda module, inputs, outputs: outputs * factor


def beside_its_weights(layer: nn.Linear, factor: float) -> Callable[..., Tensor]:
    weight = layer.weight
    return lambda module, inputs, outputs: outputs + factor * weight.mean() * layer.weight.mean()


def hooked(hook: Callable[[nn.Linear, float], Callable[..., Tensor]] | None, factor: float) -> nn.Module:
    """A network with a hook that holds on to what is around it."""
    layer = nn.Linear(6, 3)
    if hook is not None:
        layer.register_forward_hook(hook(layer, factor))
    return layer


class Addressed(Written):
    """A network that prints an address, another one for each object."""

    def extra_repr(self) -> str:
        return object.__repr__(self)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (net(nn.Tanh()), net(nn.ReLU())),
        (net(nn.Dropout(0.1)), net(nn.Dropout(0.9))),
        (Written, partial(Written, slope=0.2)),
        (Written, partial(Written, activation=torch.tanh)),
        (partial(Configured, {"gain": 1.0}), partial(Configured, {"gain": 2.0})),
        (partial(hooked, scaled_by, 1.0), partial(hooked, scaled_by, 2.0)),
        (partial(hooked, None, 1.0), partial(hooked, scaled_by, 1.0)),
        (
            lambda: nn.utils.spectral_norm(nn.Linear(6, 3), n_power_iterations=1),
            lambda: nn.utils.spectral_norm(nn.Linear(6, 3), n_power_iterations=5),
        ),
    ],
)
def test_an_activation_or_a_dropout_that_differs_is_a_difference_of_the_network(
    one: Callable[[], nn.Module], other: Callable[[], nn.Module]
) -> None:
    assert differing({"model": one}, {"model": other}) == ("network",)


@pytest.mark.parametrize(
    "model",
    [
        net(nn.Tanh()),
        Written,
        Addressed,
        partial(Configured, {"gain": 1.0}),
        partial(hooked, scaled_by, 2.0),
        partial(hooked, beside_its_weights, 2.0),
        lambda: nn.utils.spectral_norm(nn.Linear(6, 3)),
    ],
)
def test_a_network_made_twice_is_one_network(model: Callable[[], nn.Module]) -> None:
    assert of(model=model) == of(model=model)


# --- the loss ---------------------------------------------------------------------------------------------------------


def closing_over(weights: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda outputs, labels: functional.cross_entropy(outputs, labels, weight=weights)


def with_default(outputs: Tensor, labels: Tensor, smoothing: float = 0.1) -> Tensor:
    return functional.cross_entropy(outputs, labels, label_smoothing=smoothing)


class Weighted:
    """A loss that is an object."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return self.factor * functional.cross_entropy(outputs, labels)

    def halved(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return self(outputs, labels) / 2


def balanced(*weights: float) -> nn.Module:
    return nn.CrossEntropyLoss(weight=torch.tensor(weights))


LOSSES: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
    (lambda: functional.cross_entropy, lambda: partial(functional.cross_entropy, label_smoothing=0.9)),
    (
        lambda: partial(functional.cross_entropy, label_smoothing=0.1),
        lambda: partial(functional.cross_entropy, label_smoothing=0.9),
    ),
    (lambda: balanced(100.0, 1.0, 1.0), lambda: balanced(1.0, 1.0, 100.0)),
    (nn.CrossEntropyLoss, lambda: nn.CrossEntropyLoss(label_smoothing=0.9)),
    (nn.CrossEntropyLoss, lambda: nn.CrossEntropyLoss(ignore_index=2)),
    (lambda: closing_over(torch.ones(3)), lambda: closing_over(torch.tensor([1.0, 2.0, 1.0]))),
    (lambda: with_default, lambda: partial(with_default, smoothing=0.2)),
    (lambda: Weighted(1.0), lambda: Weighted(2.0)),
    (lambda: Weighted(1.0).halved, lambda: Weighted(2.0).halved),
    (lambda: Weighted(1.0).halved, lambda: Weighted(1.0)),
    (
        lambda: lambda outputs, labels: functional.cross_entropy(outputs, labels, label_smoothing=0.1),
        lambda: lambda outputs, labels: functional.cross_entropy(outputs, labels, label_smoothing=0.9),
    ),
    (
        lambda: lambda outputs, labels: functional.cross_entropy(outputs, labels),
        lambda: lambda outputs, labels: functional.multi_margin_loss(outputs, labels),
    ),
]


@pytest.mark.parametrize(("one", "other"), LOSSES)
def test_a_loss_counts_with_its_own_values(one: Callable[[], Any], other: Callable[[], Any]) -> None:
    assert differing({"loss": one()}, {"loss": other()}) == ("loss",)
    assert of(loss=one()) == of(loss=one())
    assert of(loss=other()) == of(loss=other())


WEIGHTS = torch.tensor([1.0, 1.0, 1.0])


def by_global(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, labels, weight=WEIGHTS)


def test_variables_of_the_file_that_a_loss_reads_are_values_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = of(loss=by_global)
    monkeypatch.setattr(sys.modules[__name__], "WEIGHTS", torch.tensor([1.0, 2.0, 1.0]))
    assert differing_parts(of(loss=by_global), before) == ("loss",)


def test_weights_that_differ_in_the_last_bit_are_the_same_weights() -> None:
    weights = torch.tensor([1.0, 0.1, 7 / 3, -4.0, 0.0])
    neighbours = torch.nextafter(weights, torch.zeros(5))
    assert described(closing_over(weights)) == described(closing_over(neighbours))


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_the_labels_of_the_evaluation_set_count_and_the_bits_of_its_inputs_do_not() -> None:
    samples = separable(5)
    nudged = SampleSet(torch.nextafter(samples.inputs, torch.tensor(torch.inf)), samples.labels)
    assert of(samples) == of(nudged)
    other = SampleSet(samples.inputs, samples.labels.flip(0))
    assert differing_parts(of(samples), of(other)) == ("evaluation set",)
    assert differing_parts(of(samples), of(separable(6))) == ("evaluation set",)


_STANDARDISED = """
import hashlib
import torch
import torchmetrics
from crowd import Task
from crowd.learning.work import prepare
from crowd.units import DeviceId
inputs = torch.randn(2000, 8, generator=torch.Generator().manual_seed(1)) * 1.7 + 3
labels = torch.arange(2000) % 3
inputs = (inputs - inputs.mean(0)) / inputs.std(0)
weights = 1 / inputs[labels == 1].abs().mean(0)[:3]
data = torch.utils.data.TensorDataset(inputs, labels)
task = Task(model=lambda: torch.nn.Linear(8, 3), data=data, evaluation=data, optimizer=torch.optim.SGD,
            loss=torch.nn.CrossEntropyLoss(weight=weights))
work = prepare(task)
print(work.facts.fingerprint.hex(), hashlib.sha256(inputs.numpy()).hexdigest())
"""


def test_two_kinds_of_processor_train_together_on_data_that_were_standardised_on_each() -> None:
    printed = []
    for capability in ("default", "avx2"):
        environment = os.environ | {"ATEN_CPU_CAPABILITY": capability}
        ran = subprocess.run(
            [sys.executable, "-c", _STANDARDISED], env=environment, check=True, capture_output=True, text=True
        )
        printed.append(ran.stdout.split())
    (one, inputs_there), (other, inputs_here) = printed
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):  # both kinds are here, and differ in a bit
        assert inputs_there != inputs_here
    assert one == other


def test_how_an_optimiser_computes_does_not_count() -> None:
    def sgd(foreach: bool) -> Any:
        return lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, foreach=foreach)

    assert of(optimizer=sgd(True)) == of(optimizer=sgd(False)) == of()


def test_a_task_is_not_changed_by_taking_its_fingerprint() -> None:
    task = make_task()
    model = task.model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fingerprint(task, model, separable(1).format, None, layout_of(model), {}, described(task.loss))
    assert attrs.asdict(task, recurse=False).keys() == attrs.asdict(make_task(), recurse=False).keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_metric_of_torchmetrics_counts_by_its_settings() -> None:
    def f1(beta: float) -> dict[str, Any]:
        return {"metric": torchmetrics.classification.MulticlassFBetaScore(beta, 3)}

    assert differing(f1(1.0), f1(1.0)) == ()
    assert differing(f1(1.0), f1(2.0)) == ("metric",)
