"""The encoding of deltas on the wire, and error feedback: what an encoding loses is added to the next delta.

Encoding is lossy except for `FLOAT32`; decoding is bitwise the same on every processor (conversions are exact, and
`BLOCKWISE8` is one float32 multiplication per element).
"""

from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from crowd.errors import MalformedMessage, TrainingDiverged
from crowd.learning.replica import is_finite
from crowd.planning.plan import Encoding
from crowd.units import ceil_div

BLOCK_ELEMENTS = 256
"""Elements that share a scale in `BLOCKWISE8`."""
_CODE_MAX = 127
_FLOAT16_MAX = 65504.0
_SCALE_MAX = float(np.finfo(np.float32).max) / 128
_PIECE_BLOCKS = 512
"""Blocks that are encoded at a time, so that the intermediate values stay in the cache."""


def encoded_bytes(elements: int, encoding: Encoding) -> int:
    """Bytes of an encoded delta of so many elements."""
    match encoding:
        case Encoding.FLOAT32:
            return 4 * elements
        case Encoding.FLOAT16:
            return 2 * elements
        case Encoding.BLOCKWISE8:
            return 4 * ceil_div(elements, BLOCK_ELEMENTS) + elements
        case Encoding.NONE:
            return 0
        case _:
            assert_never(encoding)


def encode(vector: Tensor, encoding: Encoding) -> bytes:
    """The bytes of `vector` (elements,) float32, finite, in `encoding`, little-endian.

    `FLOAT16` is clamped to its finite range. `BLOCKWISE8` is the scales of all blocks of 256 as float32 (the largest
    magnitude of the block / 127), then one int8 per element, rounded half to even. Raises `TrainingDiverged` if an
    element is not finite.
    """
    if not is_finite(vector):
        raise TrainingDiverged("the delta of a round is no longer finite: lower the learning rate")
    match encoding:
        case Encoding.FLOAT32:
            return vector.numpy().astype("<f4", copy=False).tobytes()
        case Encoding.FLOAT16:
            return vector.clamp(-_FLOAT16_MAX, _FLOAT16_MAX).half().numpy().astype("<f2", copy=False).tobytes()
        case Encoding.BLOCKWISE8:
            return _encode_blockwise8(vector)
        case Encoding.NONE:
            return b""
        case _:
            assert_never(encoding)


def _encode_blockwise8(vector: Tensor) -> bytes:
    elements = vector.numel()
    blocks = ceil_div(elements, BLOCK_ELEMENTS)
    whole = elements // BLOCK_ELEMENTS * BLOCK_ELEMENTS
    scales = torch.empty(blocks)
    codes = torch.empty(blocks * BLOCK_ELEMENTS, dtype=torch.int8)
    grids = list(torch.split(vector[:whole].view(-1, BLOCK_ELEMENTS), _PIECE_BLOCKS)) if whole else []
    if whole < elements:
        grids.append(torch.nn.functional.pad(vector[whole:], (0, blocks * BLOCK_ELEMENTS - elements)).view(1, -1))
    block = 0
    for grid in grids:
        stop = block + len(grid)
        scale = grid.abs().amax(dim=1) / _CODE_MAX
        scales[block:stop] = scale
        # A block of zeros has scale 0; its codes are 0 whatever they are divided by.
        code = grid / torch.where(scale > 0, scale, 1.0).unsqueeze(1)
        codes[block * BLOCK_ELEMENTS : stop * BLOCK_ELEMENTS] = code.round_().clamp_(-_CODE_MAX, _CODE_MAX).view(-1)
        block = stop
    return b"".join((scales.numpy().astype("<f4", copy=False).tobytes(), codes[:elements].numpy().tobytes()))


def decode(data: bytes, encoding: Encoding, elements: int) -> Tensor:
    """The vector (elements,) float32 that `data` stands for; its own memory.

    Raises `MalformedMessage` for a wrong length, and for a scale or value that is not finite.
    """
    if len(data) != encoded_bytes(elements, encoding):
        raise MalformedMessage(
            f"{elements} elements in {encoding.value} take {encoded_bytes(elements, encoding)} bytes, not {len(data)}"
        )
    match encoding:
        case Encoding.FLOAT32:
            vector = torch.from_numpy(np.frombuffer(data, dtype="<f4").astype(np.float32))
        case Encoding.FLOAT16:
            vector = torch.from_numpy(np.frombuffer(data, dtype="<f2").astype(np.float32))
        case Encoding.BLOCKWISE8:
            return _decode_blockwise8(data, elements)
        case Encoding.NONE:
            return torch.zeros(elements)
        case _:
            assert_never(encoding)
    if not is_finite(vector):
        raise MalformedMessage("a delta must be finite")
    return vector


def _decode_blockwise8(data: bytes, elements: int) -> Tensor:
    blocks = ceil_div(elements, BLOCK_ELEMENTS)
    scales = np.frombuffer(data, dtype="<f4", count=blocks).astype(np.float32)
    if not np.all((scales >= 0) & (scales <= _SCALE_MAX)):
        raise MalformedMessage("the scale of a block must be finite and not negative")
    codes = np.frombuffer(data, dtype=np.int8, offset=4 * blocks)
    vector = np.empty(elements, dtype=np.float32)
    whole = elements // BLOCK_ELEMENTS
    split = whole * BLOCK_ELEMENTS
    grid = (whole, BLOCK_ELEMENTS)
    np.multiply(codes[:split].reshape(grid), scales[:whole, np.newaxis], out=vector[:split].reshape(grid))
    if split < elements:
        np.multiply(codes[split:], scales[-1], out=vector[split:])
    return torch.from_numpy(vector)


def with_feedback(delta: Tensor, residual: Tensor, encoding: Encoding) -> tuple[bytes, Tensor]:
    """Encode `delta + residual`, both (elements,) float32; neither is written into. Returns the bytes and the new
    residual (elements,) float32, which is what the bytes fail to say. Raises `TrainingDiverged` like `encode`."""
    total = delta + residual
    data = encode(total, encoding)
    return data, total - decode(data, encoding, total.numel())
