"""The messages between two processes of this project, as lines of JSON: `MessageLines`."""

import json
from typing import Any, Generic, TypeVar, get_args

from cattrs.preconf.json import make_converter

T = TypeVar("T")

_KIND = "_type"
_converter = make_converter(forbid_extra_keys=True)


class MessageLines(Generic[T]):
    """A codec of messages to lines of JSON and back: each an attrs object, its class named in its line."""

    def __init__(self, union: Any) -> None:
        """Make the codec of `T`. `union` is `T` itself: an attrs class, or a union of some."""
        self._kinds: dict[str, type[T]] = {kind.__name__: kind for kind in get_args(union) or (union,)}

    def to_line(self, message: T) -> str:
        """The line of `message`, without an end."""
        return json.dumps({_KIND: type(message).__name__, **_converter.unstructure(message)})

    def from_line(self, line: str) -> T:
        """The message that `to_line` wrote in another process of this project. Any other line is a bug, and raises what
        comes of it."""
        fields = json.loads(line)
        return _converter.structure(fields, self._kinds[fields.pop(_KIND)])
