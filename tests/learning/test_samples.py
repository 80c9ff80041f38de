from typing import Any

import numpy as np
import pytest
import torch

from crowd.errors import BadConfig
from crowd.learning.samples import SampleFormat, empty, materialise
from tests.learning.nets import dataset, separable

IMAGE = SampleFormat(input_dtype="uint8", input_shape=(2, 3), label_dtype="int64", label_shape=())


def pairs(*labels: Any, shape: tuple[int, ...] = (2, 3)) -> list[Any]:
    return [(np.full(shape, index, dtype=np.uint8), label) for index, label in enumerate(labels)]


def test_a_dataset_becomes_stacked_tensors_of_its_own_dtypes() -> None:
    samples = materialise(pairs(2, 0, 1), "data")
    assert samples.format == IMAGE
    assert samples.inputs[:, 0, 0].tolist() == [0, 1, 2]
    assert samples.labels.tolist() == [2, 0, 1]
    assert samples.format.sample_bytes == 6 + 8


@pytest.mark.parametrize("label", [1, np.int32(1), np.array(1), torch.tensor(1, dtype=torch.int16), True])
def test_any_single_integer_is_a_class_number(label: Any) -> None:
    samples = materialise(pairs(label), "data")
    assert samples.labels.tolist() == [1]
    assert samples.format.has_classes


@pytest.mark.parametrize("label", [0.5, [0.0, 1.0], torch.tensor([1, 2])])
def test_any_other_label_is_kept_as_it_is_and_names_no_class(label: Any) -> None:
    samples = materialise(pairs(label), "data")
    assert torch.equal(samples.labels[0], torch.as_tensor(label))
    assert not samples.format.has_classes


def test_a_dataset_is_read_once() -> None:
    class Counting(list[Any]):
        reads = 0

        def __getitem__(self, index: Any) -> Any:
            self.reads += 1
            return super().__getitem__(index)

    counting = Counting(pairs(0, 1, 2))
    materialise(counting, "data")
    assert counting.reads <= len(counting) + 1  # the first sample tells the shape


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (iter([]), "data must be a map-style dataset with a length"),
        ([1, 2], r"data\[0\] must be a pair \(input, label\)"),
        ([(torch.zeros(1), 0), torch.zeros(3)], r"data\[1\] must be a pair \(input, label\)"),
        (pairs(0) + pairs(0, shape=(3, 2)), r"input of data\[1\] has shape \(3, 2\).*expected \(2, 3\)"),
        ([(torch.zeros(1), 0), (torch.zeros(1).int(), 0)], r"input of data\[1\] has .*int32; expected .*float32"),
        (pairs(0, [1, 2]), r"label of data\[1\] has shape \(2,\)"),
        (pairs("cat"), r"label of data\[0\] is a str; expected a tensor, an array or a number"),
        (pairs(None), r"label of data\[0\] is a NoneType"),
        (pairs(1j), r"label of data\[0\]"),
        ([(torch.zeros(2, dtype=torch.bool), 0)], r"input of data\[0\] is torch.bool; expected one of uint8"),
        ([(torch.zeros(0), 0)], r"input of data\[0\] has shape \(0,\)"),
        (pairs(0, -1), r"label of data\[1\] is -1; expected 0 to 9999"),
        (pairs(0, 0, 10_000), r"label of data\[2\] is 10000; expected 0 to 9999"),
        ([(torch.zeros(2), 0), (torch.tensor([0.0, torch.nan]), 0)], r"input of data\[1\] is not finite"),
        ([], "a device without samples needs an evaluation set"),
    ],
)
def test_data_that_cannot_be_used_is_refused_in_one_line(data: Any, complaint: str) -> None:
    with pytest.raises(BadConfig, match=complaint) as refused:
        materialise(data, "data")
    assert "\n" not in str(refused.value)


def test_a_dataset_that_is_shorter_than_it_says_is_refused() -> None:
    class Short(list[Any]):
        def __len__(self) -> int:
            return 5

    with pytest.raises(BadConfig, match=r"data\[2\] of 5 cannot be read: IndexError"):
        materialise(Short(pairs(0, 1)), "data")


def test_a_device_without_samples_takes_their_format_from_the_evaluation_set() -> None:
    samples = materialise([], "data", like=IMAGE)
    assert len(samples) == 0
    assert samples.format == IMAGE
    assert empty(IMAGE).format == IMAGE


def test_data_and_evaluation_set_must_have_one_format() -> None:
    with pytest.raises(BadConfig, match="but the evaluation set has uint8"):
        materialise(dataset(separable(3)), "data", like=IMAGE)


class Large:
    """Two samples of a terabyte each; only the first is ever made, of which nothing is written."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        assert index == 0
        return torch.zeros(1, dtype=torch.uint8).expand(1_000_000), 0


def test_data_that_do_not_fit_into_memory_are_refused_with_what_they_need() -> None:
    with pytest.raises(BadConfig) as refused:
        materialise(Large(2_000_000), "data", memory_bytes=3_000_000_000)
    assert str(refused.value) == (
        "data does not fit into memory: its 2,000,000 samples need 2000.0 GB, and 3.0 GB are free; "
        "give this device fewer or smaller samples"
    )
    small = materialise(pairs(0, 1), "data", memory_bytes=28)
    assert len(small) == 2
    with pytest.raises(BadConfig, match="need 28 B, and 27 B are free"):
        materialise(pairs(0, 1), "data", memory_bytes=27)
    with pytest.raises(BadConfig, match="need 56 B, and 28 B are free"):
        materialise(pairs(0, 1), "data", memory_bytes=28, copies=2)
