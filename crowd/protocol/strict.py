"""CBOR at its strictest: what comes out is exactly what was said, or there is a `ValueError`.

CBOR by default follows references, runs decoders for a score of tags and ignores what comes behind the value. Nothing
of that here.
"""

import io
import math
import reprlib
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import attrs
import cbor2
from cattrs.preconf.cbor2 import Cbor2Converter, make_converter
from cattrs.strategies import configure_tagged_union

from crowd.strict import Hook, Wording, set_up
from crowd.units import DeviceId, is_identifier

TEXT_CHARACTERS_MAX = 1024
DEPTH_MAX = 8
"""Depth of nested CBOR containers that is let in; the deepest message has 5."""

_TAG = "t"


WORDING = Wording(mapping="a map", shown=reprlib.repr)


class UnknownKind(ValueError):
    """A kind of message that this version does not know."""


def load_plain(data: bytes) -> Any:
    """The one plain value that `data` is the CBOR form of: no tags, no indefinite lengths, no duplicate keys. Raises
    `ValueError` for anything else."""
    stream = io.BytesIO(data)
    decoder = cbor2.CBORDecoder(
        stream,
        semantic_decoders=_NoTags(),
        max_depth=DEPTH_MAX,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )
    try:
        value = decoder.decode()
    except cbor2.CBORError as error:
        raise ValueError(f"no valid CBOR: {str(error)[:200]}") from error
    if stream.tell() != len(data):
        raise ValueError(f"{len(data) - stream.tell()} bytes follow the CBOR value")
    return value


class _NoTags(Mapping[int, Callable[[Any, bool], Any]]):
    """A table that refuses every CBOR tag: references can tie knots, others parse what they are given."""

    def __getitem__(self, tag: int) -> Callable[[Any, bool], Any]:
        return _refuse_tag

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _refuse_tag(value: Any, immutable: bool) -> NoReturn:
    raise ValueError("tags are not used here")


def natural(value: Any, _: Any = None) -> int:
    """`value`, if it is an integer from 0 to 2^64 - 1; else raises `ValueError`."""
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError(f"{reprlib.repr(value)} is no integer from 0 to 2^64 - 1")
    return value


def integer(value: Any, _: Any = None) -> int:
    """`value`, if it is a signed 64-bit integer; else raises `ValueError`."""
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{reprlib.repr(value)} is no 64-bit integer")
    return value


def integers(value: Any, _: Any = None) -> tuple[int, ...]:
    if type(value) is not list:
        raise WORDING.unexpected("an array", value)
    return tuple(integer(item) for item in value)


def boolean(value: Any, _: Any = None) -> bool:
    """`value`, if it is a boolean; else raises `ValueError`."""
    if type(value) is not bool:
        raise ValueError(f"{reprlib.repr(value)} is no boolean")
    return value


def real(value: Any, _: Any = None) -> float:
    """`value`, if it is a finite floating-point number; else raises `ValueError`."""
    if type(value) is not float or not math.isfinite(value):
        raise ValueError(f"{reprlib.repr(value)} is no finite floating-point number")
    return value


def byte_string(value: Any, _: Any = None) -> bytes:
    """`value`, if it is a byte string; else raises `ValueError`."""
    if type(value) is not bytes:
        raise ValueError(f"{reprlib.repr(value)} is no byte string")
    return value


def text(value: Any, _: Any = None) -> str:
    """`value`, if it is a text of at most `TEXT_CHARACTERS_MAX` characters; else raises `ValueError`."""
    if type(value) is not str or len(value) > TEXT_CHARACTERS_MAX:
        raise ValueError(f"{reprlib.repr(value)} is no text of at most {TEXT_CHARACTERS_MAX} characters")
    return value


def identifier(value: Any, _: Any = None) -> str:
    """`value`, if it is an identifier as `is_identifier` says; else raises `ValueError`."""
    if type(value) is not str or not is_identifier(value):
        raise ValueError(f"{reprlib.repr(value)} is no identifier")
    return value


def strict_converter(fields: Mapping[str, Hook]) -> Cbor2Converter:
    """A converter to attrs classes of ints (natural numbers), finite floats, booleans, byte strings, texts,
    identifiers, enums, tuples and dicts. `fields` has hooks for the fields of these names, whatever the class."""
    converter = make_converter(forbid_extra_keys=True)  # so that a tag is taken out before its class is structured
    leaves = {int: natural, float: real, bool: boolean, bytes: byte_string, str: text, DeviceId: identifier}
    set_up(converter, WORDING, leaves=leaves, fields=fields, complete=True)
    return converter


def as_array(converter: Cbor2Converter, cls: Any) -> None:
    """Let `converter` read and write an attrs class of plain values as the array of its fields, without their names."""
    kinds: Any = types.GenericAlias(tuple, tuple(field.type for field in attrs.fields(cls)))
    fill = converter.get_structure_hook(kinds)
    converter.register_unstructure_hook(cls, lambda value: list(attrs.astuple(value)))
    converter.register_structure_hook(cls, lambda value, _: cls(*fill(value, kinds)))


def tag_union(converter: Cbor2Converter, union: Any, tags: Mapping[type, str]) -> None:
    """Let `converter` read the members of `union` by their tags, with one clear error: `UnknownKind` for a tag that is
    not in `tags`."""
    configure_tagged_union(union, converter, tag_generator=tags.__getitem__, tag_name=_TAG)
    generated = converter.get_structure_hook(union)
    known = frozenset(tags.values())

    def structure(value: Any, _: Any) -> Any:
        if type(value) is not dict or type(value.get(_TAG)) is not str:
            raise ValueError(f"{reprlib.repr(value)} does not say its kind")
        if value[_TAG] not in known:
            raise UnknownKind(f"the kind {reprlib.repr(value[_TAG])} is not known here")
        return generated(value, union)

    converter.register_structure_hook(union, structure)
