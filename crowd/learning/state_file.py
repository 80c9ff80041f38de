"""A whole replicated state as a safetensors file, as it travels: `to_bytes` and `from_bytes`."""

import json
import math
import struct
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from crowd.errors import MalformedMessage
from crowd.learning.layout import Layout
from crowd.learning.replica import Best, ReplicaState, is_finite
from crowd.planning.round_report import RATE_MAX, RoundReport
from crowd.units import device_id

_COUNTS = ("run", "base", "round", "samples", "epochs_ppb", "streak", "waited")
_FLAGS = ("closing", "finished")
_HEADER_BYTES_MAX = 65_536


def to_bytes(state: ReplicaState) -> bytes:
    """The whole state as a safetensors file; equal states give equal bytes."""
    tensors = {"vector": state.vector, "counters": torch.tensor(state.counters, dtype=torch.int64)}
    if state.momentum is not None:
        tensors["momentum"] = state.momentum
    metrics = {name: getattr(state, name) for name in (*_COUNTS, *_FLAGS)}
    metrics["rates"] = dict(sorted(state.report.rates.items()))
    best = state.best
    if best is not None:
        metrics["best"] = {"value": best.value, "exact": best.exact}
        tensors["best_counters"] = torch.tensor(best.counters, dtype=torch.int64)
        if not torch.equal(best.vector, state.vector):
            tensors["best"] = best.vector
    described = json.dumps(metrics | {"digest": state.digest.hex()})
    # One key only: the library writes several in an order that differs from process to process.
    return safetensors.torch.save(tensors, metadata={"state": described})


def from_bytes(data: bytes, layout: Layout, counters_count: int) -> ReplicaState:
    """What `to_bytes` wrote of a state of that `layout` with so many counters. Raises `MalformedMessage` for anything
    else: another size, shape or dtype, a value that is not finite, missing metadata, or content that does not match the
    digest in the metadata."""
    elements = layout.elements
    size_bytes_max = _HEADER_BYTES_MAX + 12 * elements + 16 * counters_count
    if len(data) > size_bytes_max:
        raise MalformedMessage(f"a state of {elements} elements has at most {size_bytes_max} bytes, not {len(data)}")
    try:
        tensors = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]  # not annotated by the library
        header_bytes = int.from_bytes(data[:8], "little")
        described = json.loads(json.loads(data[8 : 8 + header_bytes])["__metadata__"]["state"])
        metrics = {name: described[name] for name in _COUNTS}
        flags = {name: described[name] for name in _FLAGS}
        rates = described["rates"]
        told = described.get("best")
        digest = bytes.fromhex(described["digest"])
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedMessage(f"no state in safetensors form: {error}") from error
    are_flags = all(isinstance(value, bool) for value in flags.values())
    if not are_flags or not all(type(value) is int and value >= 0 for value in metrics.values()):
        raise MalformedMessage("the figures of a state must be counts")
    known = {"vector", "counters", "momentum"} | ({"best", "best_counters"} if told is not None else set())
    if not {"vector", "counters"} <= tensors.keys() <= known:
        raise MalformedMessage(f"a state has a vector and counters, not {sorted(tensors)}")
    momentum, vector = tensors.get("momentum"), _vector(tensors["vector"], elements)
    state = ReplicaState(
        layout=layout,
        vector=vector,
        counters=_counters(tensors["counters"], counters_count),
        momentum=None if momentum is None else _vector(momentum, elements),
        report=_report(rates),
        best=None if told is None else _best(told, tensors, vector, counters_count),
        **flags,
        **metrics,
    )
    try:
        matches = state.digest == digest
    except struct.error as error:
        raise MalformedMessage(f"a figure of the state is too large: {error}") from error
    if not matches:
        raise MalformedMessage("the state does not match its digest")
    return state


def _report(rates: Any) -> RoundReport:
    try:
        return RoundReport(rates={device_id(device): _rate(rate) for device, rate in rates.items()})
    except (AttributeError, ValueError) as error:
        raise MalformedMessage(f"the rates of a state are counts by device: {error}") from error


def _rate(told: Any) -> int:
    if type(told) is not int or not 0 < told <= RATE_MAX:
        raise ValueError(f"{told!r} is no rate")
    return told


def _raw(stored: dict[str, Any], dtype: str, numpy_dtype: str, count: int) -> "np.ndarray[Any, np.dtype[Any]]":
    if stored["dtype"] != dtype or stored["shape"] != [count]:
        raise MalformedMessage(f"expected {dtype} [{count}] in a state, not {stored['dtype']} {stored['shape']}")
    raw: np.ndarray[Any, np.dtype[Any]] = np.frombuffer(stored["data"], dtype=numpy_dtype)
    return raw


def _best(told: Any, tensors: dict[str, Any], vector: Tensor, counters_count: int) -> Best:
    """The best state, of which `told` has the figures. It is the present one, with this `vector`, unless it has one of
    its own."""
    match told:
        case {"value": float() as value, "exact": bool() as exact} if len(told) == 2 and math.isfinite(value):
            pass
        case _:
            raise MalformedMessage("the best state has a finite value")
    if "best_counters" not in tensors:
        raise MalformedMessage("the best state has counters")
    return Best(
        value=value,
        exact=exact,
        vector=_vector(tensors["best"], vector.numel()) if "best" in tensors else vector,
        counters=_counters(tensors["best_counters"], counters_count),
    )


def _counters(stored: dict[str, Any], count: int) -> tuple[int, ...]:
    return tuple(int(value) for value in _raw(stored, "I64", "<i8", count))


def _vector(stored: dict[str, Any], elements: int) -> Tensor:
    vector = torch.from_numpy(_raw(stored, "F32", "<f4", elements).astype(np.float32))
    if not is_finite(vector):
        raise MalformedMessage("a state must be finite")
    return vector
