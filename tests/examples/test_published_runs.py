"""The runs that are published beside the comparison's table."""

from pathlib import Path
from typing import Any

import pytest

from crowd.bench.cells import Cell, read_entry, write_entry
from crowd.cli.bench.command import CLUSTERS
from crowd.cli.experiments import read_experiment
from crowd.errors import BadConfig
from examples.maintenance.published_runs import ROOT, pack, unpack
from tests.bench.runs import entry, run

POLICIES = ("fedavg", "ship_once", "local_only")


def path(cache: Path, policy: str) -> Path:
    """Of such a run, by its key in the present code."""
    experiment = read_experiment(
        ROOT / CLUSTERS[0], task="digits", policy=policy, seed=0, target_accuracy=None, rounds_max=None
    )
    return Cell.of(CLUSTERS[0], experiment, cache=cache, spare=cache).path


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
