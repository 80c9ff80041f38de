"""The tables of the comparison, written into a text between its marks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from examples.maintenance import write_table
from examples.maintenance.write_table import BEGIN, END, README, with_table
from tests.bench.runs import run


def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, write_table.__file__, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_is_between_the_marks_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    runs, text = tmp_path / "runs.json", tmp_path / "text.md"
    runs.write_text(json.dumps({"runs": [run("ours", 2.0), run("theirs", 8.0, reached=False)]}))
    text.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        done = call(str(runs), "--into", str(text))
        assert (done.returncode, done.stderr) == (0, "")
        said = text.read_text()
        assert said.startswith(f"before\n{BEGIN}\n\n| **digits** | home |\n| --- | ---: |\n| `ours` | **2.0 s**<br>")
        assert "| `theirs` | > 8.0 s<br>> 8.0 MB |" in said
        assert said.endswith(f"\n{END}\nafter\n")
        assert "old" not in said


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_a_text_without_its_marks_is_left_alone(text: str) -> None:
    with pytest.raises(ValueError, match="expected one"):
        with_table(text, "table")


def test_the_readme_has_its_marks() -> None:
    assert "table" in with_table(README.read_text(), "table").splitlines()


@pytest.mark.parametrize("text", [None, "", "[]", '{"runs": 5}', '{"runs": [{}]}', '{"runs": []}'])
def test_what_cannot_be_read_is_said_in_one_line_and_nothing_is_written(tmp_path: Path, text: str | None) -> None:
    table = tmp_path / "text.md"
    table.write_text(f"{BEGIN}\nold\n{END}\n")
    if text is not None:
        (tmp_path / "runs.json").write_text(text)
    done = call(str(tmp_path / "runs.json"), "--into", str(table))
    assert done.returncode == 1
    assert done.stderr.startswith(f"write_table: {tmp_path / 'runs.json'}: ")
    assert done.stderr.count("\n") == 1
    assert table.read_text() == f"{BEGIN}\nold\n{END}\n"
