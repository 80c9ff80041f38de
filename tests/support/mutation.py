"""Production code with a hole in it, for as long as a test needs it.

A hole is made in the syntax tree: what is looked for is an expression or a statement, however it is written down, so
that line breaks, comments and docstrings do not matter. `replace`, `insert` and `delete` say what becomes of it,
`rewritten` in which function.
"""

import ast
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FunctionType, ModuleType
from typing import Literal, TypeAlias, TypeVar

import attrs

Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
T = TypeVar("T")


@attrs.frozen
class Change:
    """What takes the place of one expression or statement, or comes next to it; as source text, parsed when it is
    applied."""

    wanted: str
    place: Literal["instead", "before", "after"]
    new: str


def replace(wanted: str, new: str) -> Change:
    """Of two expressions the second takes the place of the first, wherever that is; else of two statements. The new one
    may be several statements."""
    return Change(wanted, "instead", new)


def insert(new: str, *, before: str = "", after: str = "") -> Change:
    """Statements before or after the one that is named; exactly one of them is."""
    if bool(before) == bool(after):
        raise ValueError("name the statement before which to insert, or the one after which")
    return Change(before or after, "before" if before else "after", new)


def delete(wanted: str) -> Change:
    """The statement goes."""
    return Change(wanted, "instead", "pass")


@contextmanager
def rewritten(owner: ModuleType | type, name: str, *changes: Change) -> Iterator[None]:
    """A function, method or property of `owner` with those changes in its body, for all who call it, however they came
    by it. `outer.inner` is a function that is defined in another.

    Each expression or statement that a change names must be there exactly once; otherwise raises `LookupError`, which
    says how often it is.
    """
    where = f"{owner.__name__}.{name}"
    outer, *inner = name.split(".")
    function = _function(owner, outer)
    definition = _definition(function)
    part = definition
    for step in inner:
        part = _only([node for node in _walk(part) if isinstance(node, Definition) and node.name == step], where, step)
    for change in changes:
        _apply(change, part, where)
    whole, function.__code__ = function.__code__, _compiled(definition, function)
    try:
        yield
    finally:
        function.__code__ = whole


# --- functions and their trees ----------------------------------------------------------------------------------------


def _function(owner: ModuleType | type, name: str) -> FunctionType:
    """What runs when it is called, under all its decorators."""
    found = inspect.getattr_static(owner, name)
    match found:
        case property(fget=inner) | staticmethod(__func__=inner) | classmethod(__func__=inner):
            found = inner
        case _:
            pass
    found = inspect.unwrap(found)
    if not isinstance(found, FunctionType):
        raise TypeError(f"{owner.__name__}.{name} is no function, method or property: {found!r}")
    return found


def _definition(function: FunctionType) -> Definition:
    source = inspect.getsource(function)
    if source[0].isspace():  # not dedented, as that would change what is in strings
        source = f"if True:\n{source}"
    [statement] = ast.parse(source).body
    [definition] = statement.body if isinstance(statement, ast.If) else [statement]
    assert isinstance(definition, Definition)
    return definition


def _compiled(definition: Definition, function: FunctionType) -> CodeType:
    """The function's code alone: defaults, annotations and decorators stay as they are. It is compiled inside of a
    function that has the variables which it closes over."""
    definition.decorator_list = []
    outer = ast.parse(f"def outer({', '.join(function.__code__.co_freevars)}): pass")
    around = outer.body[0]
    assert isinstance(around, ast.FunctionDef)
    around.body = [definition]
    code = compile(
        ast.fix_missing_locations(outer), f"<{function.__qualname__} with a hole>", "exec", dont_inherit=True
    )
    for name in ("outer", definition.name):
        [code] = [const for const in code.co_consts if isinstance(const, CodeType) and const.co_name == name]
    return code


# --- changes ----------------------------------------------------------------------------------------------------------


def _apply(change: Change, definition: Definition, where: str) -> None:
    wanted, new = _statement(change.wanted), ast.parse(change.new).body
    put: Sequence[ast.AST]
    match (change.place, wanted, new):
        case ("instead", ast.Expr(value=expression), [ast.Expr(value=other)]):
            old, put = _find(expression, definition, where, change.wanted), [other]
        case (place, _, _):
            old = _find(wanted, definition, where, change.wanted)
            put = [*new, old] if place == "before" else [old, *new] if place == "after" else new
    _Exchange(old, put).generic_visit(definition)


def _statement(source: str) -> ast.stmt:
    statements = ast.parse(source).body
    if len(statements) != 1:
        raise ValueError(f"one expression or statement can be looked for, not {len(statements)}: {source!r}")
    return statements[0]


def _find(wanted: ast.AST, definition: Definition, where: str, source: str) -> ast.AST:
    sought = ast.dump(wanted)
    alike = [node for node in _walk(definition) if type(node) is type(wanted) and ast.dump(node) == sought]
    return _only(alike, where, source)


def _walk(definition: Definition) -> Iterator[ast.AST]:
    """Its body, without its name, arguments and decorators."""
    for statement in definition.body:
        yield from ast.walk(statement)


def _only(found: list[T], where: str, wanted: str) -> T:
    if len(found) != 1:
        raise LookupError(f"{where} contains {wanted!r} {len(found)} times, not once")
    return found[0]


class _Exchange(ast.NodeTransformer):
    """Puts other nodes, of statements perhaps several, in the place of one very node."""

    def __init__(self, old: ast.AST, new: Sequence[ast.AST]) -> None:
        self._old = old
        self._new = new

    def visit(self, node: ast.AST) -> ast.AST | list[ast.AST]:
        if node is not self._old:
            return self.generic_visit(node)
        return self._new[0] if len(self._new) == 1 else list(self._new)
