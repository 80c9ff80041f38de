"""A data set in memory: `SampleSet` (stacked tensors) and `SampleFormat` (what one sample of it looks like).

A task's map-style dataset is read by `materialise`, before a run; in a run no user code runs for a sample.
"""

import hashlib
import math
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from crowd.errors import BadConfig
from crowd.formatting import size
from crowd.user_code import place_and_cause

LABEL_MAX = 9999
"""Largest label; labels are counted one by one in every profile, so their number is limited."""

DTYPES = {
    name: getattr(torch, name)
    for name in ("uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
}
"""The dtypes that a sample may consist of, by the name that travels."""


@attrs.frozen(kw_only=True)
class SampleFormat:
    """Shape and dtype of one sample; equal on every device of a cluster."""

    input_dtype: str
    input_shape: tuple[int, ...]
    label_dtype: str
    label_shape: tuple[int, ...]

    @property
    def input_bytes(self) -> int:
        """Bytes of one input."""
        return math.prod(self.input_shape) * int(DTYPES[self.input_dtype].itemsize)

    @property
    def label_bytes(self) -> int:
        """Bytes of one label."""
        return self.label_elements * int(DTYPES[self.label_dtype].itemsize)

    @property
    def label_elements(self) -> int:
        """Numbers in one label."""
        return math.prod(self.label_shape)

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample on the wire: raw input and raw label."""
        return self.input_bytes + self.label_bytes

    @property
    def has_classes(self) -> bool:
        """Whether labels are class numbers; if not, all samples count as label 0."""
        return self.label_dtype == "int64" and self.label_shape == ()

    def __str__(self) -> str:
        return f"{self.input_dtype} {self.input_shape} with labels {self.label_dtype} {self.label_shape}"


@attrs.frozen(eq=False)
class SampleSet:
    """Samples in memory, as stacked tensors; never written in place."""

    inputs: Tensor = attrs.field(repr=False)
    """Inputs: (samples, *input_shape), contiguous."""
    labels: Tensor = attrs.field(repr=False)
    """Labels: (samples, *label_shape), contiguous."""

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def format(self) -> SampleFormat:
        """Shape and dtype of one sample."""
        return SampleFormat(
            input_dtype=_dtype_name(self.inputs),
            input_shape=tuple(self.inputs.shape[1:]),
            label_dtype=_dtype_name(self.labels),
            label_shape=tuple(self.labels.shape[1:]),
        )


def seeded(*parts: object) -> np.random.Generator:
    """PCG64 generator, seeded from BLAKE2b of `parts`: equal parts give the same order, in any process."""
    seed = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(seed, "little")))


def as_bytes(tensor: Tensor) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """The memory of a contiguous tensor as (bytes,) uint8, without a copy."""
    flat: np.ndarray[Any, np.dtype[np.uint8]] = tensor.reshape(-1).view(torch.uint8).numpy()
    return flat


def empty(form: SampleFormat) -> SampleSet:
    """A set of no samples, of the format `form`."""
    return SampleSet(
        torch.empty((0, *form.input_shape), dtype=DTYPES[form.input_dtype]),
        torch.empty((0, *form.label_shape), dtype=DTYPES[form.label_dtype]),
    )


def repeated(samples: SampleSet, count: int) -> SampleSet:
    """The first `count` of `samples`, of which there must be some; from the first on again where they are fewer."""
    rows = torch.arange(count) % len(samples)
    return SampleSet(samples.inputs[rows], samples.labels[rows])


def materialise(
    dataset: Any,
    what: str,
    like: SampleFormat | None = None,
    *,
    other: str = "the evaluation set",
    count_max: int | None = None,
    memory_bytes: int | None = None,
    copies: int = 1,
) -> SampleSet:
    """Read a map-style dataset of `(input, label)` into memory, or the first `count_max` samples of it (`None`: all).
    Labels that are single integers become int64.

    `what` names the data set in errors; `like` is the format that it must have, and has if it is empty: that of
    `other` samples. `memory_bytes` must hold so many `copies` of it; `None`: whatever there is. Raises `BadConfig` in
    one line, with the index of the sample at fault and what was expected.
    """
    if isinstance(dataset, torch.utils.data.DataLoader):
        raise BadConfig(f"{what} is a DataLoader: give its dataset (loader.dataset), and its batch size as batch_size")
    try:
        count = len(dataset) if count_max is None else min(len(dataset), count_max)
    except Exception as error:  # whatever a user's dataset raises, here and below
        raise BadConfig(f"{what} must be a map-style dataset with a length: {place_and_cause(error)}") from error
    if count == 0:
        if like is None:
            raise BadConfig(
                f"{what} is empty: a device without samples needs an evaluation set that has some, "
                f"to know the shape of the inputs"
            )
        return empty(like)
    first_input, first_label = _pair(dataset, 0, what)
    _expect_room(what, count, copies * count * (first_input.nbytes + first_label.nbytes), memory_bytes)
    inputs = torch.empty((count, *first_input.shape), dtype=first_input.dtype)
    labels = torch.empty((count, *first_label.shape), dtype=first_label.dtype)
    for index in range(count):
        features, label = _pair(dataset, index, what)
        _expect_alike("input", features, inputs, index, what)
        _expect_alike("label", label, labels, index, what)
        inputs[index] = features
        labels[index] = label
    samples = SampleSet(inputs, labels)
    _expect_usable(samples, what)
    if like is not None and samples.format != like:
        raise BadConfig(f"{what} has inputs {samples.format}, but {other} has {like}")
    return samples


def _pair(dataset: Any, index: int, what: str) -> tuple[Tensor, Tensor]:
    try:
        sample = dataset[index]
    except Exception as error:
        raise BadConfig(f"{what}[{index}] of {len(dataset)} cannot be read: {place_and_cause(error)}") from error
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        found = (
            f"{type(sample).__name__} of {len(sample)}" if isinstance(sample, tuple | list) else type(sample).__name__
        )
        raise BadConfig(f"{what}[{index}] must be a pair (input, label), found a {found}")
    features, label = sample
    label_tensor = _tensor(label, f"label of {what}[{index}]")
    if label_tensor.shape == () and not (label_tensor.is_floating_point() or label_tensor.is_complex()):
        label_tensor = label_tensor.to(torch.int64)
    features_tensor = _tensor(features, f"input of {what}[{index}]")
    for kind, tensor in (("input", features_tensor), ("label", label_tensor)):
        if tensor.dtype not in DTYPES.values():
            raise BadConfig(f"{kind} of {what}[{index}] is {tensor.dtype}; expected one of {', '.join(DTYPES)}")
        if tensor.numel() == 0:
            raise BadConfig(f"{kind} of {what}[{index}] has shape {tuple(tensor.shape)}, which holds nothing")
    return features_tensor, label_tensor


def _tensor(value: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadConfig(f"the {what} is a {type(value).__name__}; expected a tensor, an array or a number") from error


def _expect_room(what: str, count: int, needed_bytes: int, memory_bytes: int | None) -> None:
    if memory_bytes is not None and needed_bytes > memory_bytes:
        raise BadConfig(
            f"{what} does not fit into memory: its {count:,} samples need {size(needed_bytes)}, and "
            f"{size(max(0, memory_bytes))} are free; give this device fewer or smaller samples"
        )


def _expect_alike(kind: str, tensor: Tensor, stacked: Tensor, index: int, what: str) -> None:
    if tensor.shape != stacked.shape[1:] or tensor.dtype != stacked.dtype:
        raise BadConfig(
            f"{kind} of {what}[{index}] has shape {tuple(tensor.shape)} and {tensor.dtype}; "
            f"expected {tuple(stacked.shape[1:])} and {stacked.dtype}, like {what}[0]"
        )


def _expect_usable(samples: SampleSet, what: str) -> None:
    if samples.format.has_classes:
        outside = (samples.labels < 0) | (samples.labels > LABEL_MAX)
        if bool(outside.any()):
            index = int(outside.nonzero()[0])
            raise BadConfig(
                f"label of {what}[{index}] is {int(samples.labels[index])}; expected 0 to {LABEL_MAX}: leave samples "
                "without a class out"
            )
    for kind, tensor in (("input", samples.inputs), ("label", samples.labels)):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            finite = torch.isfinite(tensor).reshape(len(tensor), -1).all(dim=1)
            raise BadConfig(f"{kind} of {what}[{int((~finite).nonzero()[0])}] is not finite")


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
