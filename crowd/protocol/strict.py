"""CBOR and cattrs at their strictest: what comes out is exactly what was sent, or there is a `ValueError`.

cattrs by default turns 5 into "5", "5" into 5 and any iterable into a tuple; CBOR by default follows references, runs
decoders for a score of tags and ignores what comes behind the value. Nothing of that here.
"""

import enum
import io
import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, get_args, get_origin

import attrs
import cbor2
from cattrs.gen import make_dict_structure_fn, override
from cattrs.preconf.cbor2 import Cbor2Converter, make_converter
from cattrs.strategies import configure_tagged_union

from crowd.units import DeviceId, is_identifier

TEXT_CHARACTERS_MAX = 1024
DEPTH_MAX = 8
"""Depth of nested CBOR containers that is let in; the deepest message has 5."""

Hook = Callable[[Any, Any], Any]
"""A function from a plain value and the type that it should have to a value of that type; raises `ValueError`."""

_TAG = "t"


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
    """The items of `value`, if it is an array of signed 64-bit integers; else raises `ValueError`."""
    return tuple(integer(item) for item in _list(value))


def boolean(value: Any, _: Any = None) -> bool:
    """`value`, if it is a boolean; else raises `ValueError`."""
    if type(value) is not bool:
        raise ValueError(f"{reprlib.repr(value)} is no boolean")
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


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError(f"{reprlib.repr(value)} is no array")
    return value


def _map(value: Any) -> dict[Any, Any]:
    if type(value) is not dict:
        raise ValueError(f"{reprlib.repr(value)} is no map")
    return value


def strict_converter(fields: Mapping[str, Hook]) -> Cbor2Converter:
    """A converter to attrs classes of ints (natural numbers), booleans, byte strings, texts, identifiers, enums, tuples
    and dicts. `fields` has hooks for the fields of these names, whatever the class."""
    converter = make_converter(forbid_extra_keys=True)  # so that a tag is taken out before its class is structured

    for applies, make_hook in (
        (attrs.has, lambda cls: _class_hook(cls, converter, fields)),
        (_is_tuple, lambda cls: _tuple_hook(cls, converter)),
        (_is_dict, lambda cls: _dict_hook(cls, converter)),
        (_is_enum, _enum_hook),
    ):
        converter.register_structure_hook_factory(applies, make_hook)
    for plain, hook in ((int, natural), (bool, boolean), (bytes, byte_string), (str, text), (DeviceId, identifier)):
        converter.register_structure_hook(plain, hook)
    return converter


def tag_union(converter: Cbor2Converter, union: Any, tags: Mapping[type, str]) -> None:
    """Let `converter` read the members of `union` by their tags, with one clear error: `UnknownKind` for a tag that is
    not in `tags`."""
    configure_tagged_union(union, converter, tag_generator=tags.__getitem__, tag_name=_TAG)
    generated = converter.get_structure_hook(union)
    known = frozenset(tags.values())

    def structure(value: Any, _: Any) -> Any:
        if type(_map(value).get(_TAG)) is not str:
            raise ValueError(f"{reprlib.repr(value)} does not say its kind")
        if value[_TAG] not in known:
            raise UnknownKind(f"the kind {reprlib.repr(value[_TAG])} is not known here")
        return generated(value, union)

    converter.register_structure_hook(union, structure)


def _is_tuple(cls: Any) -> bool:
    return get_origin(cls) is tuple


def _is_dict(cls: Any) -> bool:
    return get_origin(cls) is dict


def _is_enum(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, enum.Enum)


def _class_hook(cls: Any, converter: Cbor2Converter, special: Mapping[str, Hook]) -> Hook:
    """A hook for an attrs class of which every field must be there, those with a default too."""
    names = {field.name for field in attrs.fields(cls)}
    overrides: Any = {name: override(struct_hook=special[name]) for name in names & special.keys()}
    generated = make_dict_structure_fn(cls, converter, **overrides)

    def structure(value: Any, _: Any) -> Any:
        keys = _map(value).keys()
        if keys - names:
            raise ValueError(f"{cls.__name__} has no {reprlib.repr(min(keys - names, key=repr))}")
        if names - keys:
            raise ValueError(f"{cls.__name__} lacks {min(names - keys)}")
        return generated(value, cls)

    return structure


def _enum_hook(cls: type[enum.Enum]) -> Hook:
    members = {member.value: member for member in cls}

    def structure(value: Any, _: Any) -> enum.Enum:
        if type(value) is not str or value not in members:
            raise ValueError(f"{reprlib.repr(value)} is none of {', '.join(members)}")
        return members[value]

    return structure


def _tuple_hook(cls: Any, converter: Cbor2Converter) -> Hook:
    item_types = get_args(cls)
    hooks = [(converter.get_structure_hook(item), item) for item in item_types if item is not Ellipsis]
    if item_types[-1] is Ellipsis:
        item_hook, item_type = hooks[0]
        return lambda value, _: tuple(item_hook(item, item_type) for item in _list(value))

    def structure(value: Any, _: Any) -> tuple[Any, ...]:
        if len(_list(value)) != len(hooks):
            raise ValueError(f"{reprlib.repr(value)} does not have {len(hooks)} items")
        return tuple(hook(item, item_type) for (hook, item_type), item in zip(hooks, value, strict=True))

    return structure


def _dict_hook(cls: Any, converter: Cbor2Converter) -> Hook:
    key_type, value_type = get_args(cls)
    key_hook, value_hook = converter.get_structure_hook(key_type), converter.get_structure_hook(value_type)
    return lambda value, _: {key_hook(key, key_type): value_hook(item, value_type) for key, item in _map(value).items()}
