"""The encoding of deltas on the wire, and error feedback: what an encoding loses is added to the next delta.

Encoding is lossy except for `FLOAT32`; decoding is bitwise the same on every processor (conversions are exact, and
`BLOCKWISE8` is one float32 multiplication per element). An encoding treats each tensor for itself, so that large
elements never erase small ones of another: scales are of one tensor, and statistics, which are few and of any size,
travel as float32 behind the encoded parameters (with `NONE` nothing travels).
"""

from collections.abc import Iterator
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from crowd.errors import MalformedMessage, TrainingDiverged
from crowd.learning.layout import Pieces
from crowd.learning.replica import is_finite
from crowd.planning.plan import Encoding
from crowd.units import ceil_div

BLOCK_ELEMENTS = 256
"""Elements of one tensor that share a scale in `BLOCKWISE8`."""
_CODE_MAX = 127
_FLOAT16_MAX = 65504.0
_SCALE_MAX = float(np.finfo(np.float32).max) / 128
_STRIP_BLOCKS = 512
"""Blocks that are encoded at a time, so that the intermediate values stay in the cache."""


def encoded_bytes(encoding: Encoding, pieces: Pieces) -> int:
    """Size of an encoded delta whose tensors lie as `pieces` says."""
    match encoding:
        case Encoding.FLOAT32:
            return 4 * pieces.elements
        case Encoding.FLOAT16:
            return 2 * sum(pieces.parameters) + 4 * pieces.statistics_elements
        case Encoding.BLOCKWISE8:
            return 4 * _blocks(pieces) + sum(pieces.parameters) + 4 * pieces.statistics_elements
        case Encoding.NONE:
            return 0
        case _:
            assert_never(encoding)


def encode(vector: Tensor, encoding: Encoding, pieces: Pieces) -> bytes:
    """`vector` (elements,) float32, finite, in `encoding`, little-endian; `pieces` says how its tensors lie.

    `FLOAT32` is the vector as it is. Else the parameters come first, then the statistics as float32. `FLOAT16` is
    clamped to its finite range. `BLOCKWISE8` is the scales of all blocks as float32 (the largest magnitude of the block
    / 127), then one int8 per element, rounded half to even; a block is 256 elements of one tensor, its last block what
    is left. Raises `TrainingDiverged` if an element is not finite.
    """
    if not is_finite(vector):
        raise TrainingDiverged("the delta of a round is no longer finite: lower the learning rate")
    match encoding:
        case Encoding.FLOAT32:
            return _float32_bytes(vector)
        case Encoding.FLOAT16:
            parameters, statistics = _taken_apart(vector, pieces)
            halves = parameters.clamp(-_FLOAT16_MAX, _FLOAT16_MAX).half()
            return halves.numpy().astype("<f2", copy=False).tobytes() + _float32_bytes(statistics)
        case Encoding.BLOCKWISE8:
            parameters, statistics = _taken_apart(vector, pieces)
            return _encode_blockwise8(parameters, pieces) + _float32_bytes(statistics)
        case Encoding.NONE:
            return b""
        case _:
            assert_never(encoding)


def decode(data: bytes, encoding: Encoding, pieces: Pieces) -> Tensor:
    """The vector (elements,) float32 that `data` stands for, whose tensors lie as `pieces` says; its own memory.

    Raises `MalformedMessage` for a wrong length, and for a scale or value that is not finite.
    """
    size_bytes = encoded_bytes(encoding, pieces)
    if len(data) != size_bytes:
        raise MalformedMessage(
            f"{pieces.elements} elements in {encoding.value} take {size_bytes} bytes, not {len(data)}"
        )
    border = size_bytes - 4 * pieces.statistics_elements
    match encoding:
        case Encoding.FLOAT32:
            vector = _numbers(data, "<f4")
        case Encoding.FLOAT16:
            vector = _put_together(_numbers(data[:border], "<f2"), _numbers(data[border:], "<f4"), pieces)
        case Encoding.BLOCKWISE8:
            vector = _put_together(_decode_blockwise8(data, pieces), _numbers(data[border:], "<f4"), pieces)
        case Encoding.NONE:
            return torch.zeros(pieces.elements)
        case _:
            assert_never(encoding)
    if not is_finite(vector):
        raise MalformedMessage("a delta must be finite")
    return vector


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


# --- blockwise8 -------------------------------------------------------------------------------------------------------


def _blocks(pieces: Pieces) -> int:
    return sum(ceil_div(length, BLOCK_ELEMENTS) for length in pieces.parameters)


def _strips(pieces: Pieces) -> Iterator[tuple[int, int, slice]]:
    """All elements of the parameters, some equal blocks at a time: number of the first block, how many there are, and
    which elements they are. Only the last block of a tensor is shorter than others, and it comes alone."""
    block = place = 0
    for length in pieces.parameters:
        whole = length // BLOCK_ELEMENTS
        for first in range(0, whole, _STRIP_BLOCKS):
            count = min(_STRIP_BLOCKS, whole - first)
            yield block, count, slice(place, place + count * BLOCK_ELEMENTS)
            block += count
            place += count * BLOCK_ELEMENTS
        rest = length - whole * BLOCK_ELEMENTS
        if rest:
            yield block, 1, slice(place, place + rest)
            block += 1
            place += rest


def _encode_blockwise8(parameters: Tensor, pieces: Pieces) -> bytes:
    scales = torch.empty(_blocks(pieces))
    codes = torch.empty(parameters.numel(), dtype=torch.int8)
    for block, count, elements in _strips(pieces):
        grid = parameters[elements].view(count, -1)
        scale = scales[block : block + count] = grid.abs().amax(dim=1) / _CODE_MAX
        # A block of zeros has scale 0; its codes are 0 whatever they are divided by.
        code = grid / torch.where(scale > 0, scale, 1.0).unsqueeze(1)
        codes[elements] = code.round_().clamp_(-_CODE_MAX, _CODE_MAX).view(-1)
    return _float32_bytes(scales) + codes.numpy().tobytes()


def _decode_blockwise8(data: bytes, pieces: Pieces) -> Tensor:
    scales = np.frombuffer(data, dtype="<f4", count=_blocks(pieces)).astype(np.float32)
    if not np.all((scales >= 0) & (scales <= _SCALE_MAX)):
        raise MalformedMessage("the scale of a block must be finite and not negative")
    codes = np.frombuffer(data, dtype=np.int8, count=sum(pieces.parameters), offset=scales.nbytes)
    vector = np.empty(codes.size, dtype=np.float32)
    for block, count, elements in _strips(pieces):
        grid = codes[elements].reshape(count, -1)
        np.multiply(grid, scales[block : block + count, np.newaxis], out=vector[elements].reshape(count, -1))
    return torch.from_numpy(vector)


def with_feedback(delta: Tensor, residual: Tensor, encoding: Encoding, pieces: Pieces) -> tuple[bytes, Tensor]:
    """Encode `delta + residual`, whose tensors lie as `pieces` says; returns the bytes and the new residual, what they
    failed to say. Neither argument is written into. All (elements,) float32; raises `TrainingDiverged` like
    `encode`."""
    total = delta + residual
    data = encode(total, encoding, pieces)
    return data, total - decode(data, encoding, pieces)
