"""From a TOML file to attrs values, strictly: what is not exactly right is a `BadConfig` of one line that names the
file, the key, what was expected and how to mend it."""

import enum
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from crowd.config.hints import did_you_mean
from crowd.errors import BadConfig

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of the file at `path`. Raises `BadConfig` if it is missing, unreadable or no TOML (with the line)."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadConfig(f"{path}: no such file") from None
    except OSError as error:
        raise BadConfig(f"{path}: cannot be read: {error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfig(f"{path}: no valid TOML: {error}") from error


def structure(tables: Mapping[str, Any], kind: type[T], *, path: Path) -> T:
    """`tables`, read from `path`, as a `kind`: an attrs class, or a mapping or tuple of them.

    Raises `BadConfig` for the first key that is unknown, missing, of another type or out of range.
    """
    try:
        return _CONVERTER.structure(tables, kind)
    except (cattrs.BaseValidationError, ValueError) as error:
        raise BadConfig(f"{path}: {_explain(*_first_cause(error))}") from error


def _first_cause(error: BaseException, place: tuple[str, ...] = ()) -> tuple[BaseException, tuple[str, ...]]:
    """The first problem in a tree of them, and the keys that lead there."""
    place += _steps(error)
    if not isinstance(error, BaseExceptionGroup):
        return error, place
    # An unknown key comes first: a misspelt key is often the reason why another one is missing.
    first = min(error.exceptions, key=lambda cause: not isinstance(cause, ForbiddenExtraKeysError))
    return _first_cause(first, place)


def _steps(error: BaseException) -> tuple[str, ...]:
    for note in getattr(error, "__notes__", ()):
        match note:
            case IterableValidationNote():
                # People count from one.
                return (f"#{note.index + 1}" if isinstance(note.index, int) else str(note.index),)
            case AttributeValidationNote():
                return (note.name,)
    return ()


def _explain(cause: BaseException, place: tuple[str, ...]) -> str:
    match cause:
        case ForbiddenExtraKeysError():
            unknown = min(cause.extra_fields)
            hint = did_you_mean(unknown, (field.alias for field in attrs.fields(cause.cl)))
            return f"unknown key {_dotted((*place, unknown))!r}; {hint}"
        case KeyError():
            return f"the key {_dotted(place)!r} is missing"
        case BadConfig():
            # Raised by a class for one of its fields, which the message names.
            return _dotted((*place, str(cause)))
        case _:
            return f"{_dotted(place)}: {cause}" if place else str(cause)


def _dotted(place: tuple[str, ...]) -> str:
    return ".".join(place).replace(".#", " #")


def _shown(value: Any) -> str:
    match value:
        case dict():
            return "a table"
        case list():
            return "an array"
        case _:
            return repr(value)


def _exactly(kind: type, expected: str) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"expected {expected}, found {_shown(value)}")
        return value

    return hook


def _number(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"expected a number, found {_shown(value)}")
    return float(value)


def _path(value: Any, _: Any) -> Path:
    if type(value) is not str or not value:
        raise ValueError(f"expected a path, found {_shown(value)}")
    return Path(value)


def _enum_member(value: Any, kind: type[enum.Enum]) -> enum.Enum:
    choices = {member.value: member for member in kind}
    if type(value) is not str or value not in choices:
        hint = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"expected one of {hint}, found {_shown(value)}")
    return choices[value]


def _table(kind: type, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    fill: Callable[[Any, Any], Any] = make_dict_structure_fn(
        kind, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True, _cattrs_use_alias=True
    )

    def hook(value: Any, kind: Any) -> Any:
        if type(value) is not dict:
            raise ValueError(f"expected a table, found {_shown(value)}")
        return fill(value, kind)

    return hook


def _is_array(kind: Any) -> bool:
    return get_origin(kind) in (tuple,)


def _array(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    items = get_args(kind)
    endless = items[-1] is Ellipsis
    fill = converter.get_structure_hook(list[items[0]])  # type: ignore[valid-type]  # known at run time only

    def hook(value: Any, _: Any) -> Any:
        if type(value) is not list:
            raise ValueError(f"expected an array, found {_shown(value)}")
        if endless:
            return tuple(fill(value, list))
        if len(value) != len(items):
            raise ValueError(f"expected an array of {len(items)}, found {len(value)}")
        return tuple(converter.structure(item, item_kind) for item, item_kind in zip(value, items, strict=True))

    return hook


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    converter.register_structure_hook(str, _exactly(str, "a string"))
    converter.register_structure_hook(int, _exactly(int, "a whole number"))
    converter.register_structure_hook(bool, _exactly(bool, "true or false"))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(Path, _path)
    converter.register_structure_hook_func(lambda kind: isinstance(kind, enum.EnumMeta), _enum_member)
    converter.register_structure_hook_factory(_is_array)(_array)
    converter.register_structure_hook_factory(attrs.has)(_table)
    return converter


_CONVERTER = _make_converter()
