"""The encoding of deltas on the wire, and error feedback: what an encoding loses is added to the next delta.

Layout: `encode`, `decode` and `with_feedback`; `Coding`, and a class for each encoding; `CODINGS` has them all.

Encoding is lossy except for `FLOAT32`; decoding is bitwise the same on every processor (conversions are exact, and
`BLOCKWISE8` is one float32 multiplication per element). An encoding treats each tensor for itself, so that large
elements never erase small ones of another: scales are of one tensor, and statistics, which are few and of any size,
travel as float32 behind the encoded parameters (with `NONE` nothing travels).
"""

import abc
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from crowd.errors import MalformedMessage, TrainingDiverged
from crowd.learning.layout import Pieces
from crowd.learning.replica import is_finite
from crowd.planning.encoding_size import BLOCK_ELEMENTS, Encoding, encoded_bytes

_CODE_MAX = 127
_FLOAT16_MAX = 65504.0
_SCALE_MAX = float(np.finfo(np.float32).max) / 128
_STRIP_BLOCKS = 512
"""Blocks that are encoded at a time, so that the intermediate values stay in the cache."""


def encode(vector: Tensor, encoding: Encoding, pieces: Pieces) -> bytes:
    """`vector` (elements,) float32, finite, in `encoding`, little-endian; `pieces` says how its tensors lie. As long as
    `encoded_bytes` says. Raises `TrainingDiverged` if an element is not finite."""
    if not is_finite(vector):
        raise TrainingDiverged("the delta of a round is no longer finite: lower the learning rate")
    return CODINGS[encoding].encode(vector, pieces)


def decode(data: bytes, encoding: Encoding, pieces: Pieces) -> Tensor:
    """The vector (elements,) float32 that `data` stands for, whose tensors lie as `pieces` says; its own memory.

    Raises `MalformedMessage` for a wrong length, and for a scale or value that is not finite.
    """
    size_bytes = encoded_bytes(encoding, *pieces.parameters, statistics=pieces.statistics_elements)
    if len(data) != size_bytes:
        raise MalformedMessage(
            f"{pieces.elements} elements in {encoding.value} take {size_bytes} bytes, not {len(data)}"
        )
    vector = CODINGS[encoding].decode(data, pieces)
    if not is_finite(vector):
        raise MalformedMessage("a delta must be finite")
    return vector


def with_feedback(delta: Tensor, residual: Tensor, encoding: Encoding, pieces: Pieces) -> tuple[bytes, Tensor]:
    """Encode `delta + residual`, whose tensors lie as `pieces` says; returns the bytes and the new residual, what they
    failed to say. Neither argument is written into. All (elements,) float32; raises `TrainingDiverged` like
    `encode`."""
    total = delta + residual
    data = encode(total, encoding, pieces)
    return data, total - decode(data, encoding, pieces)


# --- each encoding ----------------------------------------------------------------------------------------------------


class Coding(abc.ABC):
    """One way to write a vector (elements,) float32, whose tensors lie as `pieces` says. Without state."""

    lost: ClassVar[float]
    """How far a decoded element may be off, of the largest magnitude in its tensor. Statistics lose nothing, but for
    `Nothing`."""

    @abc.abstractmethod
    def encode(self, vector: Tensor, pieces: Pieces) -> bytes:
        """The bytes of `vector`, which is finite."""

    @abc.abstractmethod
    def decode(self, data: bytes, pieces: Pieces) -> Tensor:
        """The vector that `data`, of the right length, stands for; its own memory. Raises `MalformedMessage`."""


class Float32(Coding):
    """The vector as it is."""

    lost = 0.0

    def encode(self, vector: Tensor, pieces: Pieces) -> bytes:
        return _float32_bytes(vector)

    def decode(self, data: bytes, pieces: Pieces) -> Tensor:
        return _numbers(data, "<f4")


class Nothing(Coding):
    """No bytes: all of it is left for later."""

    lost = 1.0

    def encode(self, vector: Tensor, pieces: Pieces) -> bytes:
        return b""

    def decode(self, data: bytes, pieces: Pieces) -> Tensor:
        return torch.zeros(pieces.elements)


class _Parameterwise(Coding):
    """The parameters in some form, and behind them the statistics as float32."""

    def encode(self, vector: Tensor, pieces: Pieces) -> bytes:
        parameters, statistics = _taken_apart(vector, pieces)
        return self._encode_parameters(parameters, pieces.parameters) + _float32_bytes(statistics)

    def decode(self, data: bytes, pieces: Pieces) -> Tensor:
        border = len(data) - 4 * pieces.statistics_elements
        parameters = self._decode_parameters(data[:border], pieces.parameters)
        return _put_together(parameters, _numbers(data[border:], "<f4"), pieces)

    @abc.abstractmethod
    def _encode_parameters(self, parameters: Tensor, lengths: tuple[int, ...]) -> bytes:
        """The bytes of all parameters (elements,) in a row, of so many elements each."""

    @abc.abstractmethod
    def _decode_parameters(self, data: bytes, lengths: tuple[int, ...]) -> Tensor: ...


class Float16(_Parameterwise):
    """The nearest binary16, clamped to its finite range."""

    lost = 2.0**-11

    def _encode_parameters(self, parameters: Tensor, lengths: tuple[int, ...]) -> bytes:
        halves = parameters.clamp(-_FLOAT16_MAX, _FLOAT16_MAX).half()
        return halves.numpy().astype("<f2", copy=False).tobytes()

    def _decode_parameters(self, data: bytes, lengths: tuple[int, ...]) -> Tensor:
        return _numbers(data, "<f2")


class Blockwise8(_Parameterwise):
    """The scales of all blocks as float32 (the largest magnitude of the block / 127), then one int8 per element,
    rounded half to even. A block is 256 elements of one tensor, its last block what is left."""

    lost = 0.5 / _CODE_MAX

    def _encode_parameters(self, parameters: Tensor, lengths: tuple[int, ...]) -> bytes:
        codes = torch.empty(parameters.numel(), dtype=torch.int8)
        scales = []
        for count, elements in _strips(lengths):
            grid = parameters[elements].view(count, -1)
            scale = grid.abs().amax(dim=1) / _CODE_MAX
            # A block of zeros has scale 0; its codes are 0 whatever they are divided by.
            code = grid / torch.where(scale > 0, scale, 1.0).unsqueeze(1)
            codes[elements] = code.round_().clamp_(-_CODE_MAX, _CODE_MAX).view(-1)
            scales.append(scale)
        return b"".join(map(_float32_bytes, scales)) + codes.numpy().tobytes()

    def _decode_parameters(self, data: bytes, lengths: tuple[int, ...]) -> Tensor:
        border = len(data) - sum(lengths)
        scales = np.frombuffer(data[:border], dtype="<f4").astype(np.float32)
        if not np.all((scales >= 0) & (scales <= _SCALE_MAX)):
            raise MalformedMessage("the scale of a block must be finite and not negative")
        codes = np.frombuffer(data[border:], dtype=np.int8)
        vector = np.empty(codes.size, dtype=np.float32)
        block = 0
        for count, elements in _strips(lengths):
            grid = codes[elements].reshape(count, -1)
            np.multiply(grid, scales[block : block + count, np.newaxis], out=vector[elements].reshape(count, -1))
            block += count
        return torch.from_numpy(vector)


def _strips(lengths: tuple[int, ...]) -> Iterator[tuple[int, slice]]:
    """All elements of tensors of these lengths in a row, some equal blocks at a time: how many blocks, and which
    elements they are. Only the last block of a tensor is shorter than others, and it comes alone."""
    place = 0
    for length in lengths:
        rest = length % BLOCK_ELEMENTS
        for first in range(0, length - rest, _STRIP_BLOCKS * BLOCK_ELEMENTS):
            elements = min(_STRIP_BLOCKS * BLOCK_ELEMENTS, length - rest - first)
            yield elements // BLOCK_ELEMENTS, slice(place, place + elements)
            place += elements
        if rest:
            yield 1, slice(place, place + rest)
            place += rest


CODINGS: Mapping[Encoding, Coding] = {
    Encoding.FLOAT32: Float32(),
    Encoding.FLOAT16: Float16(),
    Encoding.BLOCKWISE8: Blockwise8(),
    Encoding.NONE: Nothing(),
}


# --- tensors and bytes ------------------------------------------------------------------------------------------------


def _float32_bytes(vector: Tensor) -> bytes:
    return vector.numpy().astype("<f4", copy=False).tobytes()


def _numbers(data: bytes, dtype: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=dtype).astype(np.float32))


def _taken_apart(vector: Tensor, pieces: Pieces) -> tuple[Tensor, Tensor]:
    """The parameters of `vector` and its statistics, each (elements,), in order."""
    if not pieces.statistics:
        return vector, vector[:0]
    is_statistic = _statistics_mask(pieces)
    return vector[~is_statistic], vector[is_statistic]


def _put_together(parameters: Tensor, statistics: Tensor, pieces: Pieces) -> Tensor:
    """The vector that `_taken_apart` took apart."""
    if not pieces.statistics:
        return parameters
    is_statistic = _statistics_mask(pieces)
    vector = torch.empty(pieces.elements)
    vector[~is_statistic], vector[is_statistic] = parameters, statistics
    return vector


def _statistics_mask(pieces: Pieces) -> Tensor:
    mask = torch.zeros(pieces.elements, dtype=torch.bool)
    for start, stop in pieces.statistics:
        mask[start:stop] = True
    return mask
