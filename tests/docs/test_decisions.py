"""The decisions and their index agree; links between the documents, and from the code to them, lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs" / "decisions"
INDEX = DECISIONS / "README.md"
ENTRIES = sorted(path for path in DECISIONS.glob("*.md") if path != INDEX)
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

LINES_MAX = 25
COLUMNS_MAX = 120
PARTS = ("Decision", "Why", "Figures", "Tried instead")
PARTS_REQUIRED = ("Decision", "Why")

ROW = re.compile(r"^\| (\d{3}) \| (\d{4}-\d{2}-\d{2}) \| \[(.+)\]\((.+?)\) \| (.+) \|$", re.MULTILINE)
HEAD = re.compile(r"# (.+)\n\nDate: (\d{4}-\d{2}-\d{2})(, .+)?\n\n")
PART = re.compile(rf"^\*\*({'|'.join(PARTS)})\.\*\* ", re.MULTILINE)
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
CITED = re.compile(r"\bdocs/[\w/-]+\.md(?:#[\w-]+)?")
LINK = re.compile(r"\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _targets(text: str) -> Iterator[str]:
    """Of all links that are no web addresses."""
    for match in LINK.finditer(CODE.sub("", FENCED.sub("", text))):
        target = match[1] or match[2]
        if "://" not in target and not target.startswith("mailto:"):
            yield target


def _anchors(text: str) -> set[str]:
    """The fragments by which a page's headings are reached, as GitHub makes them of their text."""
    headings = HEADING.findall(FENCED.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_decision_is_in_the_index_once_with_its_number_date_and_title() -> None:
    rows = ROW.findall(INDEX.read_text("utf-8"))
    listed = sorted((file, number, date, title) for number, date, title, file, _ in rows)
    heads = [(path, HEAD.match(path.read_text("utf-8"))) for path in ENTRIES]
    assert listed == [(path.name, path.name[:3], head[2], head[1]) for path, head in heads if head is not None]


def test_numbers_have_no_holes_and_follow_the_dates() -> None:
    rows = sorted(ROW.findall(INDEX.read_text("utf-8")))
    assert [int(row[0]) for row in rows] == list(range(1, len(ENTRIES) + 1))
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.stem)
def test_a_decision_has_title_date_and_parts_in_order_and_is_short(path: Path) -> None:
    text = path.read_text("utf-8")
    assert HEAD.match(text), "a decision begins with `# Title` and `Date: YYYY-MM-DD`"
    parts = PART.findall(text)
    assert parts == [part for part in PARTS if part in parts], "each part once, in this order"
    assert set(PARTS_REQUIRED) <= set(parts)
    assert len(text.splitlines()) <= LINES_MAX
    assert all(len(line) <= COLUMNS_MAX for line in text.splitlines())


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_links_lead_to_files_and_headings_that_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    for target in _targets(text):
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        _expect(there, anchor, target)


def test_pages_that_the_code_cites_exist() -> None:
    for folder in ("crowd", "brokers", "devices", "policies", "examples", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for cited in CITED.findall(path.read_text("utf-8")):
                file, _, anchor = cited.partition("#")
                _expect(ROOT / file, anchor, f"{_name(path)}: {cited}")


def _expect(there: Path, anchor: str, target: str) -> None:
    assert there.exists(), f"{target} does not exist"
    if anchor and there.suffix == ".md":
        assert anchor in _anchors(there.read_text("utf-8")), f"{target}: there is no such heading"
