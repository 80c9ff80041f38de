"""The numbers of a task are taken as what they are, or refused."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import crowd
from crowd.errors import BadConfig
from crowd.learning.work import prepare
from tests.learning.nets import make_task


@pytest.mark.parametrize("field", ["batch_size", "epochs_max"])
@pytest.mark.parametrize("value", [5, np.int64(5), np.uint8(5), 5.0, np.float64(5), np.float32(5), torch.tensor(5)])
def test_whole_numbers_of_any_type_are_integers(field: str, value: Any) -> None:
    task = make_task(**{field: value})
    assert type(getattr(task, field)) is int
    assert getattr(task, field) == 5
    as_given, as_int = (prepare(make_task(**{field: count})).facts for count in (value, 5))
    assert as_given == as_int


@pytest.mark.parametrize("field", ["batch_size", "epochs_max"])
@pytest.mark.parametrize("value", [0, -1, 5.5, math.inf, math.nan, "5", None, [5]])
def test_what_is_no_whole_number_above_0_is_refused(field: str, value: Any) -> None:
    with pytest.raises(BadConfig, match=f"^the task's {field}: expected a whole number above 0, found "):
        make_task(**{field: value})


@pytest.mark.parametrize("value", [1, np.float64(0.5), np.float32(0.5), torch.tensor(0.5)])
def test_a_target_is_a_number_of_any_type(value: Any) -> None:
    task = make_task(target=value)
    assert type(task.target) is float
    assert task.target == float(value)


@pytest.mark.parametrize("metric", [crowd.metrics.Accuracy(), crowd.metrics.MacroF1()])
@pytest.mark.parametrize("value", [0, 1.01, 91, math.nan, "0.9"])
def test_a_target_that_no_value_of_the_metric_can_meet_is_refused(metric: Any, value: Any) -> None:
    with pytest.raises(BadConfig, match=r"^the task's target: expected a number above 0 and at most 1 for "):
        make_task(target=value, metric=metric)


@pytest.mark.parametrize("value", [-3.5, 0, 91])
def test_a_quantity_may_have_any_target(value: float) -> None:
    assert make_task(target=value, metric=crowd.metrics.R2()).target == value
    with pytest.raises(BadConfig, match=r"^the task's target: expected a number, found nan"):
        make_task(target=math.nan, metric=crowd.metrics.R2())


def test_a_task_needs_no_target_and_its_patience_is_a_count() -> None:
    assert make_task().target is make_task().patience is None
    assert make_task(patience=np.int64(3)).patience == 3
    with pytest.raises(BadConfig, match=r"^the task's patience: expected a whole number above 0, or None, found 0"):
        make_task(patience=0)


@pytest.mark.parametrize("value", ["accuracy", crowd.metrics.Accuracy, lambda outputs, labels: 0.5])
def test_what_is_no_metric_is_refused(value: Any) -> None:
    with pytest.raises(BadConfig, match=r"^the task's metric: expected a metric, as .*, found "):
        make_task(metric=value)


def test_a_name_is_text() -> None:
    with pytest.raises(BadConfig, match=r"^the task's name: expected some text, found 3"):
        make_task(name=3)


@pytest.mark.parametrize("field", ["seed", "members_min"])
def test_the_numbers_of_a_node_are_taken_like_those_of_a_task(field: str) -> None:
    make: Any = partial(crowd.NodeConfig, name="a", cluster="home", broker="memory://a")
    for value in (3, np.int64(3), 3.0, np.float32(3)):
        config = make(**{field: value})
        assert type(getattr(config, field)) is int
        assert getattr(config, field) == 3
    for wrong in (2.5, -1, math.inf, "3"):
        with pytest.raises(BadConfig, match=f"^{field}: expected "):
            make(**{field: wrong})
