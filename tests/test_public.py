"""What an application may import: `crowd` alone."""

import ast
import inspect
import re
from pathlib import Path

import attrs
import pytest

import crowd

EXAMPLES = Path(__file__).parents[1] / "examples"
OWN_PACKAGES = {"crowd", "brokers", "devices", "policies"}


@pytest.mark.parametrize("name", crowd.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    public = getattr(crowd, name)
    assert name == "__version__" or name == "DeviceId" or inspect.getdoc(public)


def test_each_field_of_a_task_is_explained_where_help_and_editors_look() -> None:
    text = inspect.getdoc(crowd.Task) or ""
    explained = re.findall(r"^    (\w+): \S", text.partition("Args:\n")[2], re.MULTILINE)
    assert explained == [field.name for field in attrs.fields(crowd.Task)]


def test_type_checkers_are_told_of_the_same_names() -> None:
    source = ast.parse(Path(crowd.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in source.body if isinstance(node, ast.If)]
    told = {
        (alias.name, statement.module)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    home = {"metrics": "crowd"}  # a module has no other
    names = [name for name in crowd.__all__ if name != "__version__"]
    assert told == {(name, home.get(name) or getattr(crowd, name).__module__) for name in names}


def test_what_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'crowd' has no attribute 'Nobody'"):
        crowd.Nobody  # noqa: B018


@pytest.mark.parametrize("name", ["quickstart.py", "embed_in_asyncio_app.py"])
def test_an_example_of_an_application_imports_nothing_else_of_this_project(name: str) -> None:
    nodes = list(ast.walk(ast.parse((EXAMPLES / name).read_text(encoding="utf-8"))))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    from_ = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    assert [module for module in plain + from_ if module.partition(".")[0] in OWN_PACKAGES] == ["crowd"]
    taken = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "crowd"]
    assert {alias.name for node in taken for alias in node.names} <= set(crowd.__all__)
    assert all(
        node.attr in crowd.__all__
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "crowd"
    )


@pytest.mark.parametrize("package", sorted(OWN_PACKAGES))
def test_its_annotations_count_for_type_checkers(package: str) -> None:
    assert (EXAMPLES.parent / package / "py.typed").is_file()
