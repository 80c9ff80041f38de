"""Networks as programs of `torch.export`."""

import io
import zipfile
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from crowd.errors import BadConfig
from crowd.learning.program import TRIED, as_program, few_inputs, load_trained
from tests.learning.nets import FEATURES, make_task, normalised
from tests.node.test_networks import EXAMPLES, images, perceptron, points


def convolutional() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    return nn.Sequential(*layers, nn.Dropout(0.5))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "batch normalisation": (convolutional, images),
    **{name: (changes.get("model", perceptron), draw) for name, (draw, changes) in EXAMPLES.items()},
}


@torch.no_grad()
def used(model: nn.Module, inputs: Tensor) -> nn.Module:
    """The network, with statistics of some batches."""
    model.train()
    for _ in range(3):
        model(inputs)
    return model


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_does_what_the_network_does_in_evaluation_mode_with_any_number_of_samples(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make, draw = NETWORKS[name]
    network = used(make(), draw(16, 1)[0])
    program = as_program(network, draw(4, 2)[0])
    assert program.batch is None
    assert (program.input_dtype, program.input_shape) == (str(draw(1, 2)[0].dtype)[6:], draw(1, 2)[0].shape[1:])
    assert capfd.readouterr() == ("", ""), "torch warns at length of what is as it should be"
    loaded = torch.export.load(io.BytesIO(program.data)).module()
    for count in (1, 2, 5, 33):
        inputs = draw(count, 3)[0]
        torch.testing.assert_close(loaded(inputs), network.eval()(inputs))


# --- what torch cannot leave open, or cannot trace --------------------------------------------------------------------


class OneByOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = perceptron()

    def forward(self, inputs: Tensor) -> Any:
        return torch.stack([self.inner(row) for row in inputs])


class Branches(OneByOne):
    def forward(self, inputs: Tensor) -> Any:
        return self.inner(inputs) if inputs.sum() > 0 else self.inner(-inputs)


class Numpy(OneByOne):
    def forward(self, inputs: Tensor) -> Any:
        return self.inner(torch.from_numpy(inputs.detach().numpy()))


class Counts(OneByOne):
    calls: ClassVar = [0]

    def forward(self, inputs: Tensor) -> Any:
        self.calls[0] += 1
        return self.inner(inputs) * self.calls[0]


def test_a_network_whose_forward_fixes_the_number_of_samples_takes_one() -> None:
    network, (inputs, _) = OneByOne(), points(4, 0)
    program = as_program(network, inputs)
    assert program.batch == 1
    loaded = torch.export.load(io.BytesIO(program.data)).module()
    torch.testing.assert_close(torch.cat([loaded(row[None]) for row in inputs]), network(inputs))


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (Numpy, r"^torch\.export cannot make a program of the network: .*test_program\.py, line \d+: RuntimeError: "),
        (Branches, r"test_program\.py, line \d+: .*Could not guard on data-dependent expression"),
        (Counts, r"^the program that torch\.export makes of the network computes something else, up to \d"),
    ],
)
def test_what_torch_cannot_export_is_refused_in_one_line_that_says_what_to_do(
    network: Callable[[], nn.Module], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadConfig, match=complaint) as caught:
        as_program(network(), points(4, 0)[0])
    assert str(caught.value).endswith("or export the parameters alone, as .safetensors")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_nothing_of_a_sample_or_of_this_machine_s_files_is_in_the_program() -> None:
    inputs = torch.full((1, 8), 0.7123)
    data = as_program(OneByOne(), inputs).data
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    assert any(b"OneByOne" in part for part in parts.values()), "what was made of the network is to be read there"
    for part in parts.values():
        assert inputs.numpy().tobytes() not in part
        assert b"test_program.py" not in part
        assert b"site-packages" not in part


# --- what goes in -----------------------------------------------------------------------------------------------------


class Forbidden(TensorDataset):
    """Of which only the first samples may be read."""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        assert index < TRIED
        return tuple(tensor[index] for tensor in self.tensors)


def test_a_few_samples_are_read_of_the_data_or_else_of_the_evaluation_set() -> None:
    data = Forbidden(torch.ones(50, FEATURES), torch.zeros(50, dtype=torch.int64))
    evaluation = Forbidden(torch.zeros(50, FEATURES), torch.zeros(50, dtype=torch.int64))
    assert torch.equal(few_inputs(make_task(data=data, evaluation=None)), torch.ones(TRIED, FEATURES))
    assert torch.equal(few_inputs(make_task(data=data, evaluation=evaluation)), torch.ones(TRIED, FEATURES))
    assert torch.equal(few_inputs(make_task(data=[], evaluation=evaluation)), torch.zeros(TRIED, FEATURES))
    with pytest.raises(BadConfig, match="data is empty"):
        few_inputs(make_task(data=[], evaluation=None))


def test_a_trained_model_is_loaded_whole() -> None:
    trained, fresh = used(normalised(), torch.randn(8, FEATURES)), normalised()
    load_trained(fresh, trained.state_dict())
    inputs = torch.randn(5, FEATURES)
    assert torch.equal(fresh.eval()(inputs), trained.eval()(inputs))


@pytest.mark.parametrize(
    ("trained", "complaint"),
    [
        (lambda: normalised()[:2], r"^the model has no 3\.bias, which the network has$"),
        (lambda: normalised().append(nn.Linear(3, 3)), r"^the model has 4\.bias, which the network has not$"),
        (
            lambda: nn.Sequential(nn.Linear(7, 8), *list(normalised())[1:]),
            r"^0\.weight is of shape \(8, 7\) in the model and \(8, 6\) in the network$",
        ),
    ],
)
def test_a_model_of_another_network_is_refused(trained: Callable[[], nn.Module], complaint: str) -> None:
    with pytest.raises(BadConfig, match=complaint):
        load_trained(normalised(), trained().state_dict())
