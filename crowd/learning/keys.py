"""What a sample is known by, wherever it is and whenever it is read: `keys_of`, a digest of its bytes."""

import hashlib
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np

from crowd.learning.samples import SampleSet, as_bytes

Keys: TypeAlias = "np.ndarray[Any, np.dtype[np.uint64]]"
"""Keys of samples: (samples,) uint64. Equal samples have the same, and hardly any others: of a million samples two that
differ have one key with a chance of one in 37 million."""

KEY_BYTES = 8


def keys_of(samples: SampleSet, rows: Iterable[int] | None = None) -> Keys:
    """The key of each of `samples`, or of these rows of them: BLAKE2b (8 bytes) of its input and its label, raw as they
    travel. Takes 3 µs for a sample of 784 bytes, so nothing that happens often should ask for it."""
    if not len(samples):
        return np.empty(0, dtype="<u8")
    inputs, labels = (as_bytes(tensor).reshape(len(samples), -1) for tensor in (samples.inputs, samples.labels))
    found = bytearray()
    for row in range(len(samples)) if rows is None else rows:
        digest = hashlib.blake2b(inputs[row].data, digest_size=KEY_BYTES)
        digest.update(labels[row].data)
        found += digest.digest()
    return np.frombuffer(bytes(found), dtype="<u8")
