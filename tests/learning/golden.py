"""Prints the digests of fixed computations on the replicated state; run under one processor capability at a time."""

import hashlib
import json

import numpy as np
import torch

from crowd.learning import replica
from crowd.learning.encoding import decode, encode
from crowd.learning.layout import Layout, Pieces
from crowd.planning.plan import Encoding, Outer, OuterKind

ELEMENTS = 5003
PLAIN = Outer(rate_ppm=700_000)
NESTEROV = Outer(kind=OuterKind.NESTEROV, rate_ppm=700_000, momentum_ppm=900_000)


def numbers(seed: int) -> np.ndarray:
    """Made without a random library, whose streams are no promise: hash bytes over many magnitudes."""
    raw = hashlib.shake_128(str(seed).encode()).digest(4 * ELEMENTS)
    whole = np.frombuffer(raw, dtype="<i4").astype(np.float64)
    return np.ldexp(whole, np.arange(ELEMENTS) % 27 - 51).astype(np.float32)


def rounds(outer: Outer) -> str:
    state = replica.ReplicaState(layout=Layout.plain(ELEMENTS), vector=torch.from_numpy(numbers(0)), counters=(3,))
    for number in range(1, 4):
        merged = torch.from_numpy(numbers(number))
        state = replica.apply(
            state, outer, merged, samples=10, epochs_ppb=0, counters=(number,), streak=0, finished=False
        )
    return state.digest.hex()


def decoded(encoding: Encoding) -> str:
    pieces = Pieces((ELEMENTS,))
    vector = decode(encode(torch.from_numpy(numbers(4)), encoding, pieces), encoding, pieces)
    return hashlib.blake2b(vector.numpy().astype("<f4").tobytes(), digest_size=16).hexdigest()


def digests() -> dict[str, str]:
    return {"plain": rounds(PLAIN), "nesterov": rounds(NESTEROV)} | {
        encoding.value: decoded(encoding) for encoding in Encoding
    }


if __name__ == "__main__":
    print(json.dumps({"capability": torch.backends.cpu.get_cpu_capability(), "digests": digests()}))
