"""A device's part of a run after a complete round, as a file from which it goes on after a power cut: `Checkpoint`.

A file has, one after the other: `MAGIC`; the format's version (1 byte); the length of the header (4 bytes,
little-endian); the header (strict CBOR); the replicated state as it travels (`state_file`); what is this device's own
(safetensors); the BLAKE2b digest (16 bytes) of all that. Schedules and samplers keep nothing that outlives a plan, and
a resumed run begins with a new one.
"""

import hashlib
import reprlib
from collections.abc import Mapping
from typing import Any

import attrs
import cattrs
import cbor2
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from crowd.errors import MalformedMessage
from crowd.learning import state_file
from crowd.learning.layout import Layout
from crowd.learning.replica import ReplicaState
from crowd.protocol.strict import load_plain, strict_converter
from crowd.units import DIGEST_BYTES

MAGIC = b"crowd checkpoint"
VERSION = 2
_LENGTH_BYTES = 4
_RESIDUAL = "residual"
_DTYPES = frozenset(
    {
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
    }
)
"""Of an optimiser's tensors that can be kept."""
_converter = strict_converter({})


class Damaged(ValueError):
    """A file is no whole checkpoint, or one of another version of the format."""


class OfAnother(ValueError):
    """A checkpoint is of another cluster or task."""


@attrs.frozen(kw_only=True)
class Owner:
    """What a checkpoint belongs to: nobody else can go on from it."""

    cluster: str
    fingerprint: bytes = attrs.field(repr=lambda digest: digest.hex()[:8])
    """The task's."""


@attrs.frozen(kw_only=True)
class _Header:
    owner: Owner
    state_bytes: int
    """Length of the state."""


@attrs.frozen(kw_only=True, eq=False)
class Checkpoint:
    """What one device has to go on with. Immutable: it shares its tensors with the trainer."""

    state: ReplicaState
    residual: Tensor | None = attrs.field(repr=False)
    """What is left of earlier deltas, (elements,) float32; `None`: nothing."""
    inner: Mapping[int, Mapping[str, Any]] | None = attrs.field(repr=False)
    """The inner optimiser's state, by parameter and name: tensors, numbers and `None`; `None` if it is made of anything
    else, and begins anew."""


def kept_inner(optimizer_state: Mapping[Any, Any]) -> Mapping[int, Mapping[str, Any]] | None:
    """What a checkpoint keeps of an optimiser's state, as `torch.optim.Optimizer.state_dict` has it under `state`."""
    for parameter, values in optimizer_state.items():
        if type(parameter) is not int or not isinstance(values, Mapping):
            return None
        if not all(type(name) is str and _is_kept(value) for name, value in values.items()):
            return None
    return optimizer_state


def _is_kept(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.layout is torch.strided and value.dtype in _DTYPES
    return value is None or type(value) in (bool, int, float)


def to_bytes(checkpoint: Checkpoint, owner: Owner) -> bytes:
    """The file, to be written for this owner."""
    state = state_file.to_bytes(checkpoint.state)
    own = {} if checkpoint.residual is None else {_RESIDUAL: checkpoint.residual}
    known: set[int] = set()
    for parameter, values in (checkpoint.inner or {}).items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensor = value.detach().cpu().contiguous()
                place = tensor.untyped_storage().data_ptr()  # safetensors takes no two tensors that share memory
                own[f"tensor/{parameter}/{name}"] = tensor.clone() if place in known else tensor
                known.add(place)
            else:
                kind = type(value).__name__
                number = torch.tensor(0 if value is None else value, dtype=_NUMBERS[kind][0])
                own[f"{kind}/{parameter}/{name}"] = number
    if checkpoint.inner is None:
        own["anew"] = torch.tensor(True)
    header = cbor2.dumps(_converter.unstructure(_Header(owner=owner, state_bytes=len(state))))
    start = MAGIC + bytes([VERSION]) + len(header).to_bytes(_LENGTH_BYTES, "little")
    parts = (start, header, state, safetensors.torch.save(own))
    hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        hasher.update(part)
    return b"".join((*parts, hasher.digest()))


def from_bytes(data: bytes, owner: Owner, layout: Layout, counters_count: int) -> Checkpoint:
    """What `to_bytes` wrote for that owner, whose states have that layout and so many counters. Raises `Damaged` or
    `OfAnother`."""
    version = data[len(MAGIC) : len(MAGIC) + 1]
    if not data.startswith(MAGIC) or not version:
        raise Damaged("it is no checkpoint")
    if version[0] != VERSION:
        raise Damaged(f"it has version {version[0]} of the format, and this program knows version {VERSION}")
    body = memoryview(data)[:-DIGEST_BYTES]
    if hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest() != data[-DIGEST_BYTES:]:
        raise Damaged("its content does not match its digest")
    try:
        at = len(MAGIC) + 1 + _LENGTH_BYTES
        header_end = at + int.from_bytes(body[at - _LENGTH_BYTES : at], "little")
        header = _converter.structure(load_plain(bytes(body[at:header_end])), _Header)
        if header.owner != owner:
            raise OfAnother(_difference(header.owner, owner))
        state_end = header_end + header.state_bytes
        state = state_file.from_bytes(bytes(body[header_end:state_end]), layout, counters_count)
        own = safetensors.torch.load(bytes(body[state_end:]))
        residual = own.pop(_RESIDUAL, None)
        if residual is not None and (residual.shape, residual.dtype) != (state.vector.shape, torch.float32):
            raise Damaged(f"its residual has the shape {tuple(residual.shape)}, not {tuple(state.vector.shape)}")
        inner = None if own.pop("anew", None) is not None else _inner(own)
    except OfAnother:
        raise
    except (ValueError, KeyError, MalformedMessage, safetensors.SafetensorError, cattrs.BaseValidationError) as error:
        raise Damaged(f"it cannot be read: {reprlib.repr(str(error))}") from error
    return Checkpoint(state=state, residual=residual, inner=inner)


def _difference(found: Owner, expected: Owner) -> str:
    if found.cluster != expected.cluster:
        return f"it is of the cluster {found.cluster!r}"
    return "it is of another task, or of this one with other settings"


_NUMBERS: Mapping[str, tuple[torch.dtype, Any]] = {
    "bool": (torch.bool, bool),
    "int": (torch.int64, int),
    "float": (torch.float64, float),
    "NoneType": (torch.bool, lambda _: None),
}
"""By the name of a number's type: the dtype in which it is kept, and the way back."""


def _inner(own: Mapping[str, Tensor]) -> dict[int, dict[str, Any]]:
    inner: dict[int, dict[str, Any]] = {}
    for key, tensor in own.items():
        kind, parameter, name = key.split("/", 2)
        value = tensor if kind == "tensor" else _NUMBERS[kind][1](tensor.item())
        inner.setdefault(int(parameter), {})[name] = value
    return inner
