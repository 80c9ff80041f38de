"""The runs that are published beside the comparison's table."""

import os
import tarfile
from pathlib import Path

import pytest

from crowd.bench.cells import read_entry, write_entry
from crowd.errors import BadConfig
from examples.published_runs import pack, unpack
from tests.bench.runs import entry, run


def test_published_runs_come_back_as_they_were_and_take_no_place_of_others(tmp_path: Path) -> None:
    cache, archive, elsewhere = tmp_path / "cache", tmp_path / "runs.tar.xz", tmp_path / "elsewhere"
    known = {name: entry(run(name, 2.0)) for name in ("ours", "theirs", "forgotten")}
    for name, of in known.items():
        write_entry(cache / f"{name}.json", of)
    (cache / "broken.json").write_text("{")
    pack(archive, cache, [known["ours"].run, known["theirs"].run])
    write_entry(elsewhere / "theirs.json", entry(run("theirs", 9.0)))
    assert unpack(archive, elsewhere) == 1
    assert read_entry(elsewhere / "ours.json") == known["ours"]
    assert read_entry(elsewhere / "theirs.json") == entry(run("theirs", 9.0))
    assert sorted(path.name for path in elsewhere.iterdir()) == ["ours.json", "theirs.json"]


def test_the_same_runs_make_the_same_archive(tmp_path: Path) -> None:
    archives = []
    for copy in ("one", "two"):
        write_entry(tmp_path / copy / "run.json", entry(run("ours", 2.0)))
        pack(tmp_path / f"{copy}.tar.xz", tmp_path / copy, [run("ours", 2.0)])
        archives.append((tmp_path / f"{copy}.tar.xz").read_bytes())
    assert archives[0] == archives[1]


def test_an_archive_is_left_alone_if_a_run_is_missing(tmp_path: Path) -> None:
    write_entry(tmp_path / "run.json", entry(run("ours", 2.0)))
    pack(tmp_path / "runs.tar.xz", tmp_path, [run("ours", 2.0)])
    before = (tmp_path / "runs.tar.xz").read_bytes()
    with pytest.raises(BadConfig, match="only 1 of the 2 runs"):
        pack(tmp_path / "runs.tar.xz", tmp_path, [run("ours", 2.0), run("ours", 3.0)])
    assert (tmp_path / "runs.tar.xz").read_bytes() == before


def test_of_runs_with_the_same_figures_only_the_newest_is_published(tmp_path: Path) -> None:
    cache, archive, elsewhere = tmp_path / "cache", tmp_path / "runs.tar.xz", tmp_path / "elsewhere"
    for name, second in {"a_older": 1, "b_newest": 3, "c_old": 2}.items():
        write_entry(cache / f"{name}.json", entry(run("ours", 2.0)))
        os.utime(cache / f"{name}.json", (second, second))
    pack(archive, cache, [run("ours", 2.0)])
    write_entry(elsewhere / "a_computed_here.json", entry(run("ours", 2.0)))
    assert unpack(archive, elsewhere) == 1
    assert {path.name for path in elsewhere.iterdir()} == {"a_computed_here.json", "b_newest.json"}
    pack(archive, elsewhere, [run("ours", 2.0)])
    with tarfile.open(archive) as runs:
        assert runs.getnames() == ["a_computed_here.json"], "what was published before is older"
