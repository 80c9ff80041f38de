"""The text behind a result: which modules a module imports, all the way down, and one digest of them all."""

import ast
import functools
import importlib.util
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

from crowd import plugins
from crowd.experiment.experiment import backends


def source_digest(roots: Iterable[str], *, data: Iterable[Path] = ()) -> str:
    """Of the text of the modules `roots` and of all that they import, wherever in a function, that belongs to the
    engine or to any installed plug-in; and of the files `data`. Nothing is imported."""
    roots = sorted(set(roots))
    followed = _plug_in_packages() | {root.partition(".")[0] for root in roots}
    modules: dict[str, Path] = {}
    unread = list(roots)
    while unread:
        name = unread.pop()
        if name in modules or name.partition(".")[0] not in followed:
            continue
        if (file := _file_of(name)) is not None:
            modules[name] = file
            unread += _imports(name, file)
    digest = blake2b(digest_size=16)
    for label, file in [*sorted(modules.items()), *((path.name, path) for path in sorted(data))]:
        digest.update(f"{label}\0{_digest_of(file)}\0".encode())
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
    """Where the modules of a top-level package are, and its own file. Looking does not import it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return (), None
    origin = Path(spec.origin) if spec.has_location and spec.origin is not None else None
    return tuple(Path(place) for place in spec.submodule_search_locations or ()), origin


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
def _imports(module: str, file: Path) -> frozenset[str]:
    """Dotted names that may be modules which `module` needs: the packages that it is in, and all that it imports."""
    return frozenset(_imported(module, file))


def _imported(module: str, file: Path) -> Iterator[str]:
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    yield from _with_parents(package)
    for node in ast.walk(ast.parse(file.read_bytes(), filename=str(file))):
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


@functools.cache
def _digest_of(file: Path) -> str:
    return blake2b(file.read_bytes(), digest_size=16).hexdigest()
