"""From plain values, as TOML or CBOR has them, to attrs values, with nothing converted: `set_up` makes a cattrs
converter strict, whose errors are `ValueError`, `UnknownKey` and `MissingKey`.

cattrs by default turns 5 into "5", "5" into 5 and any iterable into a tuple. Nothing of that here.
"""

import enum
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

Hook = Callable[[Any, Any], Any]
"""From a plain value and the type that it should have to a value of that type; raises `ValueError`."""


class UnknownKey(ValueError):
    """A class has no field for a key."""

    def __init__(self, cls: Any, key: object) -> None:
        super().__init__(f"{cls.__name__} has no {reprlib.repr(key)}")
        self.cls = cls
        self.key = key


class MissingKey(ValueError):
    """There is no key for a field of a class."""

    def __init__(self, cls: Any, key: str) -> None:
        super().__init__(f"{cls.__name__} lacks {key}")
        self.key = key


@attrs.frozen(kw_only=True)
class Wording:
    """How errors say what was found."""

    mapping: str
    """What a mapping is called where the plain values come from, as "a table"."""
    shown: Callable[[Any], str]
    """Any plain value in a few words."""

    def unexpected(self, expected: str, value: Any) -> ValueError:
        """The error for a `value` in place of what was `expected`."""
        return ValueError(f"expected {expected}, found {self.shown(value)}")


def set_up(
    converter: cattrs.Converter,
    wording: Wording,
    *,
    leaves: Mapping[Any, Hook],
    fields: Mapping[str, Hook] | None = None,
    complete: bool,
) -> None:
    """Let `converter` structure attrs classes, enums by their values, tuples and dicts of the `leaves`' types. `fields`
    has hooks for the fields of these names, whatever the class. With `complete` every field must be there, those with
    a default too."""
    special = fields or {}
    for applies, make_hook in (
        (attrs.has, lambda cls: _class_hook(cls, converter, wording, special, complete=complete)),
        (_is(tuple), lambda cls: _tuple_hook(cls, converter, wording)),
        (_is(dict), lambda cls: _dict_hook(cls, converter, wording)),
        (_is_enum, lambda cls: _enum_hook(cls, wording)),
    ):
        converter.register_structure_hook_factory(applies, make_hook)
    for kind, hook in leaves.items():
        converter.register_structure_hook(kind, hook)


def _is(origin: type) -> Callable[[Any], bool]:
    return lambda cls: get_origin(cls) is origin


def _is_enum(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, enum.Enum)


def _class_hook(
    cls: Any, converter: cattrs.Converter, wording: Wording, special: Mapping[str, Hook], *, complete: bool
) -> Hook:
    known = {field.alias for field in attrs.fields(cls)}
    required = [field.alias for field in attrs.fields(cls) if complete or field.default is attrs.NOTHING]
    overrides: Any = {name: override(struct_hook=special[name]) for name in known & special.keys()}
    fill: Hook = make_dict_structure_fn(
        cls, converter, _cattrs_detailed_validation=True, _cattrs_use_alias=True, **overrides
    )

    def structure(value: Any, _: Any) -> Any:
        if type(value) is not dict:
            raise wording.unexpected(wording.mapping, value)
        if unknown := value.keys() - known:
            raise UnknownKey(cls, min(unknown, key=repr))
        for key in required:
            if key not in value:
                raise MissingKey(cls, key)
        return fill(value, cls)

    return structure


def _enum_hook(cls: Any, wording: Wording) -> Hook:
    members = {member.value: member for member in cls}

    def structure(value: Any, _: Any) -> enum.Enum:
        if type(value) is not str or value not in members:
            raise wording.unexpected(f"one of {', '.join(map(repr, members))}", value)
        member: enum.Enum = members[value]
        return member

    return structure


def _tuple_hook(cls: Any, converter: cattrs.Converter, wording: Wording) -> Hook:
    item_types = get_args(cls)
    hooks = [(converter.get_structure_hook(item), item) for item in item_types if item is not Ellipsis]
    if item_types[-1] is Ellipsis:
        item_hook, item_type = hooks[0]

        def structure_all(value: Any, _: Any) -> tuple[Any, ...]:
            if type(value) is not list:
                raise wording.unexpected("an array", value)
            return tuple(_item(item_hook, item, item_type, index) for index, item in enumerate(value))

        return structure_all

    def structure(value: Any, _: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise wording.unexpected("an array", value)
        if len(value) != len(hooks):
            raise ValueError(f"expected an array of {len(hooks)}, found {len(value)}")
        return tuple(hook(item, item_type) for (hook, item_type), item in zip(hooks, value, strict=True))

    return structure


def _dict_hook(cls: Any, converter: cattrs.Converter, wording: Wording) -> Hook:
    key_type, value_type = get_args(cls)
    key_hook, value_hook = converter.get_structure_hook(key_type), converter.get_structure_hook(value_type)

    def structure(value: Any, _: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise wording.unexpected(wording.mapping, value)
        return {key_hook(key, key_type): _item(value_hook, item, value_type, key) for key, item in value.items()}

    return structure


def _item(hook: Hook, item: Any, kind: Any, place: Any) -> Any:
    """An item of a tuple or dict; an error is told its `place`, as cattrs does."""
    try:
        return hook(item, kind)
    except Exception as error:
        error.__notes__ = [*getattr(error, "__notes__", ()), IterableValidationNote("", place, kind)]
        raise
