"""Strict reading of TOML files into attrs values: what is not exactly right is a `BadConfig` of one line that names the
file, the key, what was expected and how to mend it."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.errors import AttributeValidationNote, IterableValidationNote

from crowd.config.hints import did_you_mean
from crowd.errors import BadConfig
from crowd.strict import Hook, MissingKey, UnknownKey, Wording, set_up

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of the file at `path`; a byte order mark, as some editors write it, is read over. Raises `BadConfig`
    if the file is missing, unreadable or no TOML (with the line)."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
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
    first = min(error.exceptions, key=lambda cause: not isinstance(cause, UnknownKey))
    return _first_cause(first, place)


def _steps(error: BaseException) -> tuple[str, ...]:
    steps: list[str] = []
    for note in getattr(error, "__notes__", ()):  # the innermost first
        match note:
            case IterableValidationNote():
                # People count from one.
                steps.insert(0, f"#{note.index + 1}" if isinstance(note.index, int) else str(note.index))
            case AttributeValidationNote():
                steps.insert(0, note.name)
    return tuple(steps)


def _explain(cause: BaseException, place: tuple[str, ...]) -> str:
    match cause:
        case UnknownKey():
            hint = did_you_mean(str(cause.key), (field.alias for field in attrs.fields(cause.cls)))
            return f"unknown key {_dotted((*place, str(cause.key)))!r}; {hint}"
        case MissingKey():
            return f"the key {_dotted((*place, cause.key))!r} is missing"
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


WORDING = Wording(mapping="a table", shown=_shown)


def _exactly(kind: type, expected: str) -> Hook:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise WORDING.unexpected(expected, value)
        return value

    return hook


def _number(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise WORDING.unexpected("a number", value)
    return float(value)


def _path(value: Any, _: Any) -> Path:
    if type(value) is not str or not value:
        raise WORDING.unexpected("a path", value)
    return Path(value)


_LEAVES: dict[Any, Hook] = {
    str: _exactly(str, "a string"),
    int: _exactly(int, "a whole number"),
    bool: _exactly(bool, "true or false"),
    float: _number,
    Path: _path,
}
_CONVERTER = cattrs.Converter()
set_up(_CONVERTER, WORDING, leaves=_LEAVES, complete=False)
