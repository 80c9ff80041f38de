"""The tables of the comparison, written into texts between their marks."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crowd.bench.report import Comparison
from examples.maintenance import write_table
from examples.maintenance.write_table import COMPARISON, HEADLINE, README, TABLES, headline, with_table
from tests.bench.runs import run

BEGIN, END = "<!-- comparison: begin -->", "<!-- comparison: end -->"
HEADLINE_BEGIN, HEADLINE_END = "<!-- headline: begin -->", "<!-- headline: end -->"


def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, write_table.__file__, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def on_fashion(policy: str, seconds: float, **values: Any) -> dict[str, Any]:
    return run(policy, seconds, **({"task": "fashion", "cluster": "smart-home"} | values))


@pytest.fixture
def texts(tmp_path: Path) -> list[Path]:
    """One for all tables and one for the headline."""
    tables, brief = tmp_path / "text.md", tmp_path / "brief.md"
    tables.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    brief.write_text(f"before\n{HEADLINE_BEGIN}\nold\n{HEADLINE_END}\nafter\n")
    return [tables, brief]


def test_what_is_between_the_marks_is_replaced_and_nothing_else(tmp_path: Path, texts: list[Path]) -> None:
    runs, (tables, brief) = tmp_path / "runs.json", texts
    runs.write_text(json.dumps({"runs": [run("ours", 2.0), run("theirs", 8.0, reached=False)]}))
    for _ in range(2):
        done = call(str(runs), "--into", str(tables), "--headline", str(brief))
        assert (done.returncode, done.stderr) == (0, "")
        said = tables.read_text()
        assert said.startswith(f"before\n{BEGIN}\n\n| **digits** | home |\n| --- | ---: |\n| `ours` | **2.0 s**<br>")
        assert "| `theirs` | > 8.0 s<br>> 8.0 MB |" in said
        assert said.endswith(f"\n{END}\nafter\n")
        assert brief.read_text().startswith(f"before\n{HEADLINE_BEGIN}\n\n|  | reached | median regret |\n")
        assert brief.read_text().endswith(f"\n{HEADLINE_END}\nafter\n")
        assert "old" not in said + brief.read_text()


def test_the_headline_has_a_few_methods_on_a_few_clusters_and_what_they_came_to_on_all() -> None:
    runs = [
        on_fashion("crowd_learning", 2.0),
        on_fashion("fedavg", 8.0, reached=False),
        on_fashion("mercury", 3.0),
        on_fashion("crowd_learning", 9.0, cluster="elsewhere"),
        on_fashion("fedavg", 9.0, cluster="elsewhere"),
        on_fashion("mercury", 9.0, cluster="elsewhere"),
    ]
    assert headline(Comparison(runs)).splitlines() == [
        "|  | fashion, smart-home | reached | median regret |",
        "| --- | ---: | ---: | ---: |",
        "| `crowd_learning` | **2.0 s**, 2.0 MB | 2 of 2 | 0 % |",
        "| `fedavg` | > 8.0 s, > 8.0 MB | 1 of 2 | > 150 % |",
    ]


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_a_text_without_its_marks_is_left_alone(text: str) -> None:
    with pytest.raises(ValueError, match="expected one"):
        with_table(text, TABLES, "table")


@pytest.mark.parametrize(("file", "name"), [(COMPARISON, TABLES), (README, HEADLINE)])
def test_the_documents_have_their_marks(file: Path, name: str) -> None:
    assert "table" in with_table(file.read_text(), name, "table").splitlines()


def test_if_one_text_has_no_marks_the_other_is_not_written_either(tmp_path: Path, texts: list[Path]) -> None:
    runs, (tables, brief) = tmp_path / "runs.json", texts
    runs.write_text(json.dumps({"runs": [run("ours", 2.0)]}))
    before = tables.read_text()
    brief.write_text("no marks")
    done = call(str(runs), "--into", str(tables), "--headline", str(brief))
    assert done.returncode == 1
    assert (tables.read_text(), brief.read_text()) == (before, "no marks")


@pytest.mark.parametrize("text", [None, "", "[]", '{"runs": 5}', '{"runs": [{}]}', '{"runs": []}'])
def test_what_cannot_be_read_is_said_in_one_line_and_nothing_is_written(
    tmp_path: Path, texts: list[Path], text: str | None
) -> None:
    before = [file.read_text() for file in texts]
    if text is not None:
        (tmp_path / "runs.json").write_text(text)
    done = call(str(tmp_path / "runs.json"), "--into", str(texts[0]), "--headline", str(texts[1]))
    assert done.returncode == 1
    assert done.stderr.startswith(f"write_table: {tmp_path / 'runs.json'}: ")
    assert done.stderr.count("\n") == 1
    assert [file.read_text() for file in texts] == before
