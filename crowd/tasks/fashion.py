"""Fashion-MNIST and a small convolutional network. Xiao, Rasul and Vollgraf, arXiv:1708.07747.

Images of 28×28 pixels, uint8 from 0 to 255, in the IDX files of Debian's package `dataset-fashion-mnist`. `task` is the
first 12,000 to train and the first 3,000 of the test set to evaluate; `full_task` is all 60,000 and 10,000.
"""

import functools
import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import torch

from crowd.errors import BadConfig
from crowd.learning.task import Task
from crowd.tasks.partition import Partition
from crowd.tasks.recipe import LabelledSamples, sgd
from crowd.tasks.scale import Scale

DIRECTORY_VARIABLE = "CROWD_FASHION_MNIST_DIR"
"""Name of the environment variable that says where the four files are, if not where Debian puts them."""

_DIRECTORY = "/usr/share/datasets/fashion-mnist"
_PIXELS = (28, 28)
_CLASSES = 10
_UNSIGNED_BYTE = 0x08


def task(device: str, part: Partition) -> Task:
    """The small Fashion-MNIST task, with the part of the data that `device` plays the owner of. Raises `BadConfig` if
    the data set is missing or damaged."""
    train, evaluation = small_samples()
    return _task("fashion", train, evaluation, part)


def full_task(device: str, part: Partition) -> Task:
    """The Fashion-MNIST task with the whole data set; else as `task`."""
    train, evaluation = _samples("train"), _samples("t10k")
    return _task("fashion-full", train, evaluation, part)


def network() -> torch.nn.Module:
    """The network: from (batch, 1, 28, 28) uint8 pixels to (batch, 10) float32 logits; 54,314 parameters."""
    return torch.nn.Sequential(
        Scale(255.0),
        torch.nn.Conv2d(1, 8, kernel_size=5, padding=2),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(8, 16, kernel_size=5, padding=2),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),  # (batch, 784)
        torch.nn.Linear(784, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, _CLASSES),
    )


def small_samples() -> tuple[LabelledSamples, LabelledSamples]:
    """The first 12,000 training and the first 3,000 test images, (samples, 1, 28, 28) uint8."""
    return _first(_samples("train"), 12_000), _first(_samples("t10k"), 3_000)


def _task(name: str, train: LabelledSamples, evaluation: LabelledSamples, part: Partition) -> Task:
    return Task(
        name=name,
        model=network,
        data=train.part(part),
        evaluation=evaluation.dataset(),
        optimizer=sgd,
        target=0.84,
        epochs_max=60,
    )


def _first(samples: LabelledSamples, count: int) -> LabelledSamples:
    return LabelledSamples(inputs=samples.inputs[:count], labels=samples.labels[:count])


def _samples(stem: str) -> LabelledSamples:
    return _read(Path(os.environ.get(DIRECTORY_VARIABLE, _DIRECTORY)), stem)


@functools.cache
def _read(directory: Path, stem: str) -> LabelledSamples:
    """The images and labels of one half of the data set, decoded once for each process."""
    images = _idx(directory / f"{stem}-images-idx3-ubyte.gz", dimensions=3)
    labels = _idx(directory / f"{stem}-labels-idx1-ubyte.gz", dimensions=1)
    if images.shape[1:] != _PIXELS or len(images) != len(labels) or bool((labels >= _CLASSES).any()):
        raise BadConfig(f"the {stem} files in {directory} are not Fashion-MNIST: install them again")
    return LabelledSamples(inputs=images.unsqueeze(1), labels=labels.to(torch.int64))


def _idx(path: Path, *, dimensions: int) -> torch.Tensor:
    """The uint8 array in an IDX file: two zeros, the code of the type, the number of dimensions, then each of them as a
    big-endian 32-bit number, then the elements (Yann LeCun's format, as the data set's page describes it)."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise BadConfig(
            f"{path} is missing: apt install dataset-fashion-mnist, or set {DIRECTORY_VARIABLE} to where the files are"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise BadConfig(f"{path} cannot be read ({error}): install it again") from error
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise BadConfig(f"{path} is no IDX file of {dimensions} dimensions of bytes: install it again")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise BadConfig(f"{path} is damaged: {shape} promised, {len(content) - start} bytes found; install it again")
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).reshape(shape)
