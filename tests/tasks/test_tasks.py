import gzip
import math
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, TensorDataset

from crowd.errors import BadConfig
from crowd.tasks import deep, digits, fashion, watch, wide
from crowd.tasks.partition import Partition

ALL = {"deep": deep.task, "digits": digits.task, "fashion": fashion.task, "watch": watch.task, "wide": wide.task}
ELEMENTS = {"deep": 19_810 + 336, "digits": 99_530, "fashion": 54_314, "watch": 32_295, "wide": 20_037_642}
IMAGES = (12_000, 3_000)
SIZES = {"deep": IMAGES, "digits": (1_437, 360), "fashion": IMAGES, "watch": (3_203, 1_255), "wide": IMAGES}
SAMPLE_BYTES = {"deep": 784, "digits": 64, "fashion": 784, "watch": 1_200, "wide": 784}


def tensors(data: "Dataset[Any] | None") -> TensorDataset:
    """Of this kind are the samples of every built-in task, and each has an evaluation set."""
    assert isinstance(data, TensorDataset)
    return data


@pytest.mark.parametrize("name", ALL)
def test_a_task_has_the_size_that_its_figures_are_of(name: str) -> None:
    task = ALL[name]("anyone", Partition())
    assert task.name == name
    assert task.batch_size == 32
    assert (len(tensors(task.data)), len(tensors(task.evaluation))) == SIZES[name]
    state = [tensor for tensor in task.model().state_dict().values() if tensor.is_floating_point()]
    assert sum(tensor.numel() for tensor in state) == ELEMENTS[name]
    assert {tensor.dtype for tensor in state} == {torch.float32}


@pytest.mark.parametrize("name", ALL)
def test_samples_are_small_on_the_wire_and_the_network_takes_them_as_they_are(name: str) -> None:
    task = ALL[name]("anyone", Partition())
    inputs, labels = tensors(task.data)[:4]
    assert inputs[0].numel() * inputs.element_size() == SAMPLE_BYTES[name]
    loss = task.loss(task.model()(inputs), labels)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


@pytest.mark.parametrize(("name", "divisor"), [("digits", 16), ("fashion", 255)])
def test_the_first_layer_scales_pixels_to_at_most_one(name: str, divisor: int) -> None:
    task = ALL[name]("anyone", Partition())
    inputs, _ = tensors(task.data)[:]
    assert inputs.dtype == torch.uint8
    assert inputs.max() == divisor
    assert next(task.model().children())(inputs).max() == 1.0


@pytest.mark.parametrize("name", ALL)
def test_devices_own_different_samples_and_share_the_evaluation_set(name: str) -> None:
    parts = [ALL[name](device, Partition(kind="dirichlet", part=part, parts=3)) for part, device in enumerate("abc")]
    assert sum(len(tensors(part.data)) for part in parts) == SIZES[name][0]
    first, *others = (tensors(part.evaluation)[:][0] for part in parts)
    assert all(torch.equal(first, other) for other in others)


def test_digits_are_stratified() -> None:
    _, labels = tensors(digits.task("anyone", Partition()).evaluation)[:]
    counts = torch.bincount(labels)
    assert counts.max() - counts.min() <= 3


def test_digits_train_to_their_target_in_a_few_epochs() -> None:
    task = digits.task("anyone", Partition())
    torch.manual_seed(0)
    network = task.model()
    optimizer = task.optimizer(network.parameters())
    inputs, labels = tensors(task.evaluation)[:]
    best = 0.0
    for _ in range(8):
        for batch in torch.utils.data.DataLoader(task.data, batch_size=task.batch_size, shuffle=True):
            optimizer.zero_grad()
            task.loss(network(batch[0]), batch[1]).backward()
            optimizer.step()
        best = max(best, (network(inputs).argmax(dim=1) == labels).float().mean().item())
    assert best >= (task.target or math.inf)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    digits._samples.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(BadConfig, match=r"pip install 'crowdlearning\[demo\]'"):
        digits.task("anyone", Partition())


def test_a_device_of_the_watch_task_owns_whole_subjects() -> None:
    parts = [watch.task("anyone", Partition(kind="subject", part=part, parts=10)) for part in range(10)]
    sizes = [len(tensors(part.data)) for part in parts]
    assert sum(sizes) == 3_203
    assert min(sizes) > 100


def test_watch_windows_are_normalised_and_labelled_with_seven_exercises() -> None:
    inputs, labels = tensors(watch.task("anyone", Partition()).data)[:]
    assert inputs.shape == (3_203, 6, 100)
    assert inputs.dtype == torch.float16
    channels = inputs.float().transpose(0, 1).flatten(1)  # (6, readings)
    assert channels.mean(dim=1).abs().max() < 0.05
    assert (channels.std(dim=1) - 1).abs().max() < 0.05
    assert labels.unique().tolist() == list(range(7))


def test_no_watch_window_is_both_trained_and_evaluated() -> None:
    task = watch.task("anyone", Partition())
    trained = {window.numpy().tobytes() for window in tensors(task.data)[:][0]}
    assert not any(window.numpy().tobytes() in trained for window in tensors(task.evaluation)[:][0])


def write_idx(path: Path, array: NDArray[Any], *, type_code: int = 8) -> None:
    header = bytes((0, 0, type_code, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of the form of Fashion-MNIST, with 4 images to train and 2 to evaluate."""
    monkeypatch.setenv(fashion.DIRECTORY_VARIABLE, str(tmp_path))
    for stem, count in (("train", 4), ("t10k", 2)):
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte.gz", np.full((count, 28, 28), 7))
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte.gz", np.arange(count))
    return tmp_path


def test_fashion_full_takes_all_that_the_files_hold_from_the_directory_that_the_environment_names(files: Path) -> None:
    task = fashion.full_task("anyone", Partition())
    assert task.name == "fashion-full"
    assert (len(tensors(task.data)), len(tensors(task.evaluation))) == (4, 2)
    assert sorted(tensors(task.data)[:][1].tolist()) == [0, 1, 2, 3]


def test_missing_fashion_files_say_what_to_install(files: Path) -> None:
    (files / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(BadConfig, match="apt install dataset-fashion-mnist"):
        fashion.task("anyone", Partition())


def cut_short(path: Path) -> None:
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:-1]))


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_bytes(b"no gzip"),
        lambda path: path.write_bytes(gzip.compress(b"")),
        lambda path: write_idx(path, np.zeros((4, 28, 28)), type_code=13),
        lambda path: write_idx(path, np.zeros((4, 784))),
        lambda path: write_idx(path, np.zeros((4, 27, 28))),
        lambda path: write_idx(path, np.zeros((3, 28, 28))),
    ],
)
def test_damaged_fashion_images_are_refused(files: Path, damage: Callable[[Path], object]) -> None:
    damage(files / "train-images-idx3-ubyte.gz")
    with pytest.raises(BadConfig, match=r"install (it|them) again"):
        fashion.task("anyone", Partition())


def test_a_label_that_is_no_class_is_refused(files: Path) -> None:
    write_idx(files / "train-labels-idx1-ubyte.gz", np.array([0, 1, 2, 10]))
    with pytest.raises(BadConfig, match="are not Fashion-MNIST"):
        fashion.task("anyone", Partition())
