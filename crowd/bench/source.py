"""The source behind a result: which modules a module imports, all the way down, and one digest of them all.

A module's digest is of what decides what it does: its syntax tree, without what only people and type checkers read. So
these count for nothing: comments, layout, docstrings and whatever else is a constant that nobody uses, the annotations
of parameters, results and variables, and all that is under `if TYPE_CHECKING`.

Two kinds of annotations do count. Those in the body of a class, with a value or without, declare the fields of attrs
and dataclasses, and their types decide how cattrs reads them. Those of a decorated function may be read by the
decorator, as `functools.singledispatch` does. A module that reads annotations or docstrings in any other way when it
runs gets a digest that does not change with them; of this project only the command line and `crowd.bench.about` do, for
people.
"""

import ast
import functools
import importlib.util
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

import attrs

from crowd import plugins
from crowd.experiment.experiment import backends


@attrs.frozen(kw_only=True)
class Module:
    """The facts about a Python file."""

    digest: str
    """Digest of what decides what the module does."""
    needs: frozenset[str]
    """Dotted names that may be modules: the packages that it is in, and all that it imports."""


def source_digest(roots: Iterable[str], *, data: Iterable[Path] = ()) -> str:
    """The digest of the modules `roots` and of all that they import, wherever in a function, that belongs to the engine
    or to any installed plug-in; and of the bytes of the files `data`. Nothing is imported."""
    roots = sorted(set(roots))
    followed = _plug_in_packages() | {root.partition(".")[0] for root in roots}
    digests: dict[str, str] = {}
    unread = list(roots)
    while unread:
        name = unread.pop()
        if name in digests or name.partition(".")[0] not in followed:
            continue
        if (file := _file_of(name)) is not None:
            module = _read(name, file)
            digests[name] = module.digest
            unread += module.needs
    digest = blake2b(digest_size=16)
    for label, part in [*sorted(digests.items()), *((path.name, _digest_of(path)) for path in sorted(data))]:
        digest.update(f"{label}\0{part}\0".encode())
    return digest.hexdigest()


def data_beside(module: str) -> tuple[Path, ...]:
    """All files of the package that `module` is in, and of folders in it, that are not Python's."""
    file = _file_of(module)
    if file is None or "." not in module:
        return ()
    return tuple(
        path
        for path in sorted(file.parent.rglob("*"))
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    )


def _plug_in_packages() -> set[str]:
    modules = {group.module_of(name) for group in (*plugins.GROUPS, backends) for name in group.names()}
    return {"crowd"} | {module.partition(".")[0] for module in modules}


@functools.cache
def _places(package: str) -> tuple[tuple[Path, ...], Path | None]:
    """The directories of a top-level package's modules, and its own file. Looking does not import it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return (), None
    origin = Path(spec.origin) if spec.has_location and spec.origin is not None else None
    return tuple(Path(place) for place in spec.submodule_search_locations or ()), origin


@functools.cache
def _file_of(module: str) -> Path | None:
    """The Python file behind a dotted name; `None` if it names no module with source."""
    package, _, rest = module.partition(".")
    places, own = _places(package)
    if not rest:
        return own if own is not None and own.suffix == ".py" else None
    for place in places:
        path = place.joinpath(*rest.split("."))
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return file
    return None


@functools.cache
def _digest_of(file: Path) -> str:
    return blake2b(file.read_bytes(), digest_size=16).hexdigest()


@functools.cache
def _read(name: str, file: Path) -> Module:
    tree = _Bare().visit(ast.parse(file.read_bytes(), filename=str(file)))
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    return Module(
        digest=blake2b(ast.dump(tree).encode(), digest_size=16).hexdigest(),
        needs=frozenset([*_with_parents(package), *_imports(tree, package)]),
    )


class _Bare(ast.NodeTransformer):
    """A transformer that removes what counts for nothing."""

    def __init__(self) -> None:
        self._in_class = False
        """Whether the node is in a class, but not in a function in it."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._inside(node, in_class=True)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        if not node.decorator_list:
            node.returns = None
            for argument in ast.walk(node.args):
                if isinstance(argument, ast.arg):
                    argument.annotation = None
        return self._inside(node, in_class=False)

    visit_AsyncFunctionDef = visit_FunctionDef

    def _inside(self, node: ast.AST, *, in_class: bool) -> ast.AST:
        outside, self._in_class = self._in_class, in_class
        self.generic_visit(node)
        self._in_class = outside
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if self._in_class:
            return node
        return None if node.value is None else ast.Assign(targets=[node.target], value=node.value)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        match node.test:
            case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
                return node.orelse
        return node


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield from _with_parents(alias.name)
            case ast.ImportFrom(module=name, names=names, level=level):
                base = package.split(".")[: -(level - 1) or None] if level else []
                origin = ".".join([*base, *(name.split(".") if name else [])])
                yield from _with_parents(origin)
                yield from (f"{origin}.{alias.name}" for alias in names)


def _with_parents(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]
