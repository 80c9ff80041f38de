"""Production code with a hole in it, for as long as a test needs it."""

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock


@contextmanager
def rewritten(owner: ModuleType | type, name: str, *changes: tuple[str, str]) -> Iterator[None]:
    """In the source of a function, method or property of `owner`, the second of each pair takes the place of the first,
    which must be there exactly once."""
    found = inspect.getattr_static(owner, name)
    function = found.fget if isinstance(found, property) else found
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        if source.count(old) != 1:
            raise LookupError(f"{name} contains {old!r} {source.count(old)} times, not once")
        source = source.replace(old, new)
    namespace: dict[str, Any] = {}
    exec(compile(source, f"<{name} with a hole>", "exec"), function.__globals__, namespace)
    with mock.patch.object(owner, name, namespace[name]):
        yield
