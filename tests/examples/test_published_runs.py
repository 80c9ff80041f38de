"""The runs that are published beside the comparison's table."""

import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest

from crowd.bench.cells import Cell, Entry, provenance_of, read_entry, write_entry
from crowd.cli.bench.command import CLUSTERS
from crowd.cli.experiments import read_experiment
from crowd.cli.processes.bench_cell import CellOrder, work
from crowd.errors import BadConfig
from examples.maintenance.published_runs import ROOT, Move, draw, pack, rekey, unpack
from tests.bench.runs import entry, run

POLICIES = ("fedavg", "ship_once", "local_only")


def cell(cache: Path, policy: str) -> Cell:
    file = ROOT / CLUSTERS[0]
    experiment = read_experiment(file, task="digits", policy=policy, seed=0, target=None, rounds_max=None)
    return Cell.of(file, experiment, cache=cache, spare=cache)


def path(cache: Path, policy: str) -> Path:
    """Of such a run, by its key in the present code."""
    return cell(cache, policy).path


def known(policy: str, seconds: float = 2.0) -> dict[str, Any]:
    return run(policy, seconds, cluster=CLUSTERS[0].stem)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """With a run of each policy."""
    for policy in POLICIES:
        write_entry(path(tmp_path / "cache", policy), entry(known(policy)))
    return tmp_path / "cache"


def test_published_runs_come_back_as_they_were_and_take_no_place_of_others(cache: Path, tmp_path: Path) -> None:
    archive, elsewhere = tmp_path / "runs.tar.xz", tmp_path / "elsewhere"
    (cache / "broken.json").write_text("{")
    pack(archive, cache, [known("fedavg"), known("ship_once")])
    write_entry(path(elsewhere, "ship_once"), entry(known("ship_once", 9.0)))
    assert unpack(archive, elsewhere) == 1
    assert read_entry(path(elsewhere, "fedavg")) == entry(known("fedavg"))
    assert read_entry(path(elsewhere, "ship_once")) == entry(known("ship_once", 9.0))
    assert set(elsewhere.iterdir()) == {path(elsewhere, policy) for policy in ("fedavg", "ship_once")}


def test_the_same_runs_make_the_same_archive(cache: Path, tmp_path: Path) -> None:
    archives = [tmp_path / "one.tar.xz", tmp_path / "two.tar.xz"]
    for archive in archives:
        pack(archive, cache, [known(policy) for policy in POLICIES])
    assert archives[0].read_bytes() == archives[1].read_bytes()


@pytest.mark.parametrize("missing", [known("fedavg", 3.0), known("diloco")])
def test_an_archive_is_left_alone_if_a_run_is_missing(cache: Path, tmp_path: Path, missing: dict[str, Any]) -> None:
    archive = tmp_path / "runs.tar.xz"
    pack(archive, cache, [known("fedavg")])
    before = archive.read_bytes()
    with pytest.raises(BadConfig, match="only 1 of the 2 runs"):
        pack(archive, cache, [known("ship_once"), missing])
    assert archive.read_bytes() == before


def test_runs_with_the_same_figures_but_of_other_code_are_not_published(cache: Path, tmp_path: Path) -> None:
    archive, elsewhere = tmp_path / "runs.tar.xz", tmp_path / "elsewhere"
    for name in ("0_before", "f_after"):
        write_entry(cache / f"{name}.json", entry(known("fedavg")))
    pack(archive, cache, [known("fedavg")])
    assert unpack(archive, elsewhere) == 1
    assert list(elsewhere.iterdir()) == [path(elsewhere, "fedavg")]
    path(cache, "fedavg").unlink()
    with pytest.raises(BadConfig, match="only 0 of the 1 runs for this code"):
        pack(archive, cache, [known("fedavg")])


# --- rekey ------------------------------------------------------------------------------------------------------------

LIMIT_S = 0.5
TRAINED = ("fedavg", "ship_once")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a run of each of two policies, which took no longer than the limit."""
    cache = tmp_path_factory.mktemp("trained")
    for policy in TRAINED:
        work(CellOrder.of(cell(cache, policy), LIMIT_S), lambda point: None)
    return cache


@pytest.fixture
def moved(trained: Path, tmp_path: Path) -> Path:
    """The same runs, of code whose modules have other names."""
    for policy in TRAINED:
        keep(tmp_path / "moved", read(path(trained, policy)))
    return tmp_path / "moved"


def keep(cache: Path, entry: Entry, *, source: str = "before", **provenance: Any) -> Path:
    made = attrs.evolve(entry, provenance=attrs.evolve(entry.provenance, source=source, **provenance))
    write_entry(cache / f"{made.provenance.key}.json", made)
    return cache / f"{made.provenance.key}.json"


def read(path: Path) -> Entry:
    entry = read_entry(path)
    assert entry is not None
    return entry


def contents(cache: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in cache.iterdir()}


def test_runs_of_code_that_has_moved_are_found_again_after_some_were_done_again(trained: Path, moved: Path) -> None:
    said: list[str] = []
    assert rekey(moved, seed=0, say=said.append) == 0
    assert contents(moved) == contents(trained)
    assert sorted(line[:8] for line in said if line.endswith(": the same")) == ["1 of 2: ", "2 of 2: "]
    assert said[-1] == "2 kept runs have the names that this code asks for"


def test_if_one_run_comes_out_differently_all_keep_their_names(trained: Path, moved: Path) -> None:
    wrong = read(path(trained, "fedavg"))
    keep(moved, attrs.evolve(wrong, run=wrong.run | {"bytes_total": 1}))
    before = contents(moved)
    said: list[str] = []
    with pytest.raises(BadConfig, match="1 of 2 runs differ") as error:
        rekey(moved, seed=0, say=said.append)
    assert "smart-home, digits, fedavg, seed 0: differs in bytes_total (1, now " in str(error.value)
    assert contents(moved) == before
    assert [line for line in said if line.endswith("ship_once, seed 0: the same")]


def test_runs_of_another_kind_of_processor_or_other_versions_are_left_alone(trained: Path, tmp_path: Path) -> None:
    entry = read(path(trained, "fedavg"))
    keep(tmp_path, entry, processor=("Z80",))
    keep(tmp_path, entry, versions={"torch": "0"})
    before = contents(tmp_path)
    said: list[str] = []
    assert rekey(tmp_path, seed=0, say=said.append) == 0
    assert contents(tmp_path) == before
    assert said[0] == "2 kept runs are of another kind of processor or other versions, and are left alone"


def test_kept_runs_that_contradict_each_other_are_left_alone(trained: Path, tmp_path: Path) -> None:
    entry = read(path(trained, "fedavg"))
    keep(tmp_path, entry, source="before")
    keep(tmp_path, attrs.evolve(entry, run=entry.run | {"bytes_total": 1}), source="long before")
    before = contents(tmp_path)
    said: list[str] = []
    assert rekey(tmp_path, seed=0, say=said.append) == 0
    assert contents(tmp_path) == before
    assert said[0] == "smart-home, digits, fedavg, seed 0: its kept runs contradict each other and are left alone"


def test_a_run_of_the_present_code_is_kept_and_not_done_again(trained: Path, moved: Path) -> None:
    for policy in TRAINED:
        shutil.copy(path(trained, policy), moved)
    before = contents(moved)
    said: list[str] = []
    assert rekey(moved, seed=0, say=said.append) == 0
    assert contents(moved) == before
    assert said[-1] == "0 kept runs have the names that this code asks for"


def test_a_tenth_is_drawn_from_a_seed_and_one_at_least_of_every_policy(tmp_path: Path) -> None:
    def move(policy: str) -> Move:
        of = cell(tmp_path, policy)
        provenance = provenance_of(of.experiment)
        before = attrs.evolve(provenance, source="before")
        kept = attrs.evolve(entry(known(policy)), provenance=before)
        return Move(cell=of, path=tmp_path, entry=kept, provenance=provenance)

    moves = [move(policy) for policy in ["fedavg"] * 38 + ["ship_once", "local_only"]]
    drawn = draw(moves, 1)
    assert len(drawn) == len(set(drawn)) == 4
    assert {move.cell.experiment.policy for move in drawn} == {"fedavg", "ship_once", "local_only"}
    assert draw(moves, 1) == drawn != draw(moves, 2)
    assert len(draw(moves[-2:], 1)) == 2
