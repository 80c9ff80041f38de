"""The canonical form in which planning's values are compared: CBOR (RFC 8949, section 4.2), and its digest."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import attrs
import cbor2

from crowd.units import DIGEST_BYTES


def canonical(value: Any) -> bytes:
    """The canonical CBOR form of an attrs instance (the array of its fields) or plain value."""
    return cbor2.dumps(_plain(value), canonical=True)


def canonical_array(items: Sequence[bytes]) -> bytes:
    """The canonical form of an array whose items are in canonical form already."""
    placeholders = cbor2.dumps([0] * len(items), canonical=True)  # one byte each
    return b"".join([placeholders[: len(placeholders) - len(items)], *items])


def blake2b(form: bytes) -> bytes:
    """BLAKE2b digest (16 bytes) of `form`."""
    return hashlib.blake2b(form, digest_size=DIGEST_BYTES).digest()


def digest(value: Any) -> bytes:
    """BLAKE2b digest (16 bytes) of the canonical form of `value`."""
    return blake2b(canonical(value))


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if (names := field_names(kind)) is not None:  # type: ignore[arg-type]  # a class is hashable, whatever mypy says
        return [_plain(getattr(value, name)) for name in names]
    if isinstance(value, tuple | list):
        return value if _PLAIN.issuperset(map(type, value)) else [_plain(item) for item in value]
    if hasattr(value, "value"):
        return value.value
    return value


_PLAIN = frozenset({int, bool, str, bytes, type(None)})


@functools.cache
def field_names(kind: type) -> tuple[str, ...] | None:
    """The field names of an attrs class, in order; `None` for any other class."""
    return tuple(field.name for field in attrs.fields(kind)) if attrs.has(kind) else None
