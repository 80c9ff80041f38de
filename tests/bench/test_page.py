"""The page: it needs nothing else, it is well-formed, and nothing that is in it can be taken for its own code."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from crowd.bench.page import page
from crowd.bench.pictures import COLOURS, colours
from tests.bench.runs import cell, entry, run

VOID = {"meta", "br", "link", "img", "hr", "input"}
CLUSTER = "# Three devices <script>alert(1)</script> & more:\n# what a test needs.\n\n[cluster]\n# not this\n"


class Reader(HTMLParser):
    """Checks that what is opened is closed, and notes what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.references: list[str] = []
        self.scripts = 0
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            assert value is not None
            if name == "id":
                self.names.append(value)
            if name in {"href", "xlink:href", "src", "srcset", "action", "data"}:
                self.references.append(value)
            if "url(" in value:
                self.references.append(value.partition("url(")[2].partition(")")[0])


@pytest.fixture
def html(tmp_path: Path) -> str:
    file = tmp_path / "home.toml"
    file.write_text(CLUSTER)
    runs = {
        "fedavg": run("fedavg", 8.0),
        "crowd_learning": run("crowd_learning", 2.0),
        "diloco": run("diloco", 20.0, reached=False),
        "ship_once": run("ship_once", 0.0, reached=False, accuracy_curve=[], final_accuracy=None),
    }
    entries = {cell(policy, file=file): entry(of) for policy, of in runs.items()}
    return page(entries, {cell("all_reduce", file=file): "ValueError: <b>&"}, made_by="crowd bench --html '<x>'")


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def test_it_is_well_formed_and_refers_to_nothing_outside(html: str) -> None:
    reader = read(html)
    assert html.startswith("<!DOCTYPE html>")
    inside = {f"#{name}" for name in reader.names}
    assert [name for name in reader.references if not name.startswith("data:image/png;base64,")]
    for reference in reader.references:
        assert reference in inside or reference.startswith("data:image/png;base64,")
    assert "@import" not in html


def test_what_comes_from_files_and_failures_is_text(html: str) -> None:
    reader = read(html)
    assert reader.scripts == 1, "its own"
    text = "".join(reader.text)
    assert "Three devices <script>alert(1)</script> & more: what a test needs." in text
    assert "not this" not in text
    assert "ValueError: <b>&" in text
    assert "crowd bench --html '<x>'" in text


def test_it_says_of_every_policy_how_it_fared_and_what_it_is(html: str) -> None:
    text = " ".join("".join(read(html).text).split())
    for words in ("2.0 s", "2.0 MB", "> 20.0 s", "> 900 %", "300 %", "FedAvg (McMahan et al.", "handwritten digits"):
        assert words in text
    assert text.index("crowd_learning") < text.index("fedavg") < text.index("diloco"), "by regret"
    assert html.count("<svg") == 2 + 3, "two of the accuracy, one of every policy that took any time"


def test_pictures_have_the_page_s_own_ground_and_ink(html: str) -> None:
    pictures = html.partition("</style>")[2]
    assert "currentColor" in pictures
    assert "#ffffff" not in pictures


def test_the_same_runs_make_the_same_page(html: str, tmp_path: Path) -> None:
    file = tmp_path / "home.toml"
    entries = {cell(policy, file=file): entry(run(policy, 8.0)) for policy in ("fedavg", "diloco")}
    assert page(entries, {}, made_by="x") == page(entries, {}, made_by="x")


def test_more_policies_than_colours_share_them() -> None:
    policies = [f"p{number}" for number in range(len(COLOURS) + 1)]
    assert colours(policies)[policies[-1]] == COLOURS[0]
