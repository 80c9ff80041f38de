"""The page: it needs nothing else, it is well-formed, and nothing that is in it can be taken for its own code."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from crowd.bench.page import page
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
    runs = [
        run("fedavg", 8.0, bytes_total=1_000_000),
        run("crowd_learning", 2.0),
        run("diloco", 20.0, reached=False),
        run("ship_once", 0.0, reached=False, curve=[], final_value=None),
    ]
    runs += [first | {"seed": 1, "seconds_total": 2 * first["seconds_total"]} for first in runs]
    entries = {cell(of["policy"], file=file, seed=of["seed"]): entry(of) for of in runs}
    failures = {cell("all_reduce", file=file): "ValueError: <b>&"}
    return page(entries, failures, leaders=("crowd_learning", "z"), made_by="crowd bench --html '<x>'")


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
    for words in (
        "3.0 s",
        "2.0 s – 4.0 s",
        "2.0 MB",
        "> 30.0 s",
        "> 900 %",
        "300 %",
        "to 95.0% accuracy",
        "FedAvg (McMahan et al.",
        "handwritten digits",
        "GFLOP/s, ",
        "10 times as long as crowd_learning with the same seed, which is never stopped",
    ):
        assert words in text
    assert text.index("crowd_learning") < text.index("fedavg") < text.index("diloco"), "by regret"
    assert html.count("<svg") == 2 + 3, "two of the accuracy, one of every policy that took any time"


def test_green_are_the_fastest_and_the_thriftiest(html: str) -> None:
    table, _, sections = html.partition("How to read this")
    for part in (table, sections):
        best = re.findall(r'<span class="best">([^<]+)</span>', part)
        assert [words for words in best if words != "green"] == ["3.0 s", "1.0 MB"]


def test_who_was_busy_is_told_of_the_first_seed_by_name(html: str) -> None:
    text = " ".join("".join(read(html).text).split())
    assert "crowd_learning, seed 0: reached the target after 2.0 s" in text
    assert "diloco, seed 0: given up after 20.0 s" in text
    assert ", seed 1:" not in text
    assert 'aria-label="home, digits, diloco: who was busy when"' in html


def test_a_place_where_all_failed_is_named_and_nothing_is_drawn_of_it(tmp_path: Path) -> None:
    file = tmp_path / "home.toml"
    file.write_text(CLUSTER)
    html = page({}, {cell("fedavg", file=file): "it burns"}, leaders=(), made_by="x")
    text = "".join(read(html).text)
    assert "it burns" in text
    assert "<svg" not in html


def test_pictures_have_the_page_s_own_ground_and_ink(html: str) -> None:
    pictures = html.partition("</style>")[2]
    assert "currentColor" in pictures
    assert "#ffffff" not in pictures


def test_the_same_runs_make_the_same_page(html: str, tmp_path: Path) -> None:
    file = tmp_path / "home.toml"
    entries = {cell(policy, file=file): entry(run(policy, 8.0)) for policy in ("fedavg", "diloco")}
    assert page(entries, {}, leaders=(), made_by="x") == page(entries, {}, leaders=(), made_by="x")
