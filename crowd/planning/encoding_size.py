"""The encodings of deltas, and the bytes that each takes: all that planning knows of them.

How a delta is encoded and decoded is in `crowd.learning.encoding`, with a class for each; one test holds them together.
"""

import enum
from typing import assert_never

from crowd.units import ceil_div

BLOCK_ELEMENTS = 256
"""Elements of one tensor that share a scale in `Encoding.BLOCKWISE8`."""
SCALE_BYTES = 4


class Encoding(enum.Enum):
    """The encoding of a delta on the wire."""

    FLOAT32 = "float32"
    """IEEE 754 binary32, little-endian; lossless."""
    FLOAT16 = "float16"
    """IEEE 754 binary16, little-endian."""
    BLOCKWISE8 = "blockwise8"
    """Signed 8-bit integers with one float32 scale for each block of 256."""
    NONE = "nothing"
    """No bytes: the delta stays on its device."""


def encoded_bytes(encoding: Encoding, *parameters: int, statistics: int = 0) -> int:
    """Bytes on the wire of a delta of some parameters, of so many elements each, and of `statistics` elements that are
    statistics, which travel as float32. Plans take the whole for one parameter, so that they need no borders."""
    match encoding:
        case Encoding.FLOAT32:
            size_bytes = 4 * sum(parameters)
        case Encoding.FLOAT16:
            size_bytes = 2 * sum(parameters)
        case Encoding.BLOCKWISE8:
            blocks = sum(ceil_div(elements, BLOCK_ELEMENTS) for elements in parameters)
            size_bytes = sum(parameters) + SCALE_BYTES * blocks
        case Encoding.NONE:
            return 0
        case _:
            assert_never(encoding)
    return size_bytes + 4 * statistics
