from functools import partial
from typing import Any

import attrs
import pytest
import torch

from crowd.learning.fingerprint import fingerprint, loss_name
from crowd.learning.samples import SampleSet
from tests.learning.nets import layout_of, linear, make_task, separable


def of(evaluation: SampleSet | None = None, form: SampleSet | None = None, **changes: Any) -> bytes:
    task = make_task(**changes)
    model = task.model()
    return fingerprint(task, model, (form or separable(1)).format, evaluation, layout_of(model))


def test_devices_with_other_data_and_other_initial_parameters_share_a_fingerprint() -> None:
    assert of(data=None) == of()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"model": linear},
        {"form": SampleSet(torch.zeros(1, 6).double(), torch.zeros(1).long())},
        {"form": SampleSet(torch.zeros(1, 7), torch.zeros(1).long())},
        {"loss": torch.nn.functional.nll_loss},
        {"optimizer": torch.optim.Adam},
        {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.06, momentum=0.9)},
        {"optimizer": lambda parameters: torch.optim.SGD([{"params": list(parameters), "lr": 0.01}], momentum=0.9)},
        {"batch_size": 9},
        {"target_accuracy": 0.5},
        {"epochs_max": 3},
        {"evaluation": separable(5)},
    ],
)
def test_whatever_replicas_must_have_in_common_changes_the_fingerprint(changes: dict[str, Any]) -> None:
    assert of(**changes) != of()


def test_the_content_of_the_evaluation_set_counts() -> None:
    assert of(separable(5)) == of(separable(5)) != of(separable(5, seed=1))


def test_how_an_optimiser_computes_does_not_count() -> None:
    def sgd(foreach: bool) -> Any:
        return lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, foreach=foreach)

    assert of(optimizer=sgd(True)) == of(optimizer=sgd(False)) == of()


def test_a_loss_is_named_by_its_function_or_its_class() -> None:
    assert loss_name(torch.nn.functional.cross_entropy) == "cross_entropy"
    assert loss_name(torch.nn.MSELoss()) == "MSELoss"
    assert loss_name(partial(torch.nn.functional.cross_entropy, label_smoothing=0.1)) == "partial"


def test_a_task_is_not_changed_by_taking_its_fingerprint() -> None:
    task = make_task()
    model = task.model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fingerprint(task, model, separable(1).format, None, layout_of(model))
    assert attrs.asdict(task, recurse=False).keys() == attrs.asdict(make_task(), recurse=False).keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
