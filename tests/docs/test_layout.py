"""Each folder of the product says in its `__init__.py` what it is for and what is in it, and that is what is in it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("crowd", "brokers", "devices", "policies")
FOLDERS = sorted(file.parent for package in PACKAGES for file in (ROOT / package).rglob("__init__.py"))

HEAD = "\n\nLayout:\n"
ENTRY = re.compile(r"    (\S+)  +\S.*")


def _docstring(folder: Path) -> str:
    return ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""


def _contents(folder: Path) -> list[str]:
    """Its files, but `__init__.py`, and its folders with a slash."""
    found = [path for path in folder.iterdir() if path.name not in ("__init__.py", "__pycache__")]
    return sorted(f"{path.name}/" if path.is_dir() else path.name for path in found)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_a_folder_says_what_it_is_for_and_names_each_of_its_files_once(folder: Path) -> None:
    purpose, head, layout = _docstring(folder).partition(HEAD)
    assert head, "expected a sentence, then `Layout:`, then a line for each file and folder"
    assert re.fullmatch(r"[A-Z`].*\.", purpose.split("\n\n")[0].replace("\n", " ")), "expected a sentence at first"
    entries = [ENTRY.fullmatch(line) for line in layout.splitlines()]
    assert all(entries), "expected `    name.py  what it is` in each line of the layout, and nothing after it"
    assert sorted(entry[1] for entry in entries if entry) == _contents(folder)


def test_every_folder_with_modules_is_a_package_and_so_has_a_layout() -> None:
    with_modules = {file.parent for package in PACKAGES for file in (ROOT / package).rglob("*.py")}
    assert sorted(with_modules) == FOLDERS
