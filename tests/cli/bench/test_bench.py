"""`crowd bench`, as its user meets it: real cells, each a process of its own."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import psutil
import pytest
import torch

import crowd.cli.bench.command
from crowd.cli.bench.command import CLUSTERS, cluster_files
from crowd.cli.main import main
from crowd.learning.task import Task
from crowd.tasks import digits
from crowd.tasks.partition import Partition
from tests.cli.test_sim import COMMAND
from tests.support.processes import NAMES, PATIENCE_S
from tests.test_run_record import KEYS

HOME = """# Three devices of one household.

[cluster]
name = "home"
[data]
partition = "iid"
""" + "".join(
    f'[[device]]\nname = "{name}"\ntrain_gflops = {gflops}\nmemory_mib = 512\n'
    "uplink_mbps = 20.0\ndownlink_mbps = 20.0\n"
    for name, gflops in zip(NAMES, (0.4, 0.2, 0.1), strict=True)
)
ENDLESS = "tests.support.endless_digits:task"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "crowd" / "bench"


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "home.toml"
    path.write_text(HOME)
    return path


def fails(device: str, part: object = None) -> Task:
    raise ValueError(f"{device} has no data")


def speaks(device: str) -> Task:
    """All the digits, and words where the news of its process go."""
    print("reading")
    os.write(1, b"reading too\n")
    return digits.task(device, Partition())


def breaks(device: str) -> Task:
    """Every device has all the digits, and a loss that works for a while."""
    calls = itertools.count()

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if next(calls) > 50:
            raise ArithmeticError("no such loss")
        return torch.nn.functional.cross_entropy(outputs, labels)

    return attrs.evolve(digits.task(device, Partition()), loss=loss)


def diverges(device: str) -> Task:
    """Every device has all the digits, and a loss that is a number for a while."""
    calls = itertools.count()

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs, labels) * (math.nan if next(calls) > 200 else 0.01)

    return attrs.evolve(digits.task(device, Partition()), loss=loss)


def arguments(cluster: Path, *more: str, task: str = "digits", policies: tuple[str, ...] = ("ship_once",)) -> list[str]:
    return ["bench", "--clusters", str(cluster), "--tasks", task, "--policies", *policies, "--seeds", "1", *more]


def test_a_comparison_is_told_written_and_not_computed_twice(
    cluster: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / name for name in ("one.json", "two.json")]
    page = tmp_path / "page.html"
    policies = ("crowd_learning", "ship_once")
    assert main(arguments(cluster, "--json", str(files[0]), "--html", str(page), policies=policies)) == 0
    output = capsys.readouterr().out
    runs = json.loads(files[0].read_text())["runs"]
    assert [(run["policy"], run["cluster"], run["task"], run["seed"], run["reached"]) for run in runs] == [
        (policy, "home", "digits", 0, True) for policy in policies
    ]
    assert all(run.keys() > KEYS for run in runs)
    for words in ("home, digits, ship_once, seed 0: reached the target of 95.0%", "2 of 2 runs, in", "regret"):
        assert words in output
    assert "Three devices of one household." in page.read_text()
    assert page.read_text().count("<svg") == 4

    entries = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(entries) == 2
    assert main(arguments(cluster, "--json", str(files[1]), policies=policies)) == 0
    assert "2 of 2 runs, 2 of them known before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == entries
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.fixture
def under_way(cluster: Path, cache: Path) -> Iterator["subprocess.Popen[str]"]:
    """The command, when it has computed one cell and is at another that never ends."""
    words = arguments(cluster)
    words[words.index("digits")] = ENDLESS
    words.insert(words.index(ENDLESS), "digits")
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("home, digits, ship_once, seed 0: reached")
    yield process
    process.kill()
    process.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_however_it_is_stopped_nothing_goes_on_and_what_was_done_is_not_lost(
    under_way: "subprocess.Popen[str]", cluster: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = psutil.Process(under_way.pid).children()
    assert len(cells) == 1, "the other has ended"
    under_way.send_signal(number)
    output, error = under_way.communicate(timeout=PATIENCE_S)
    assert ("digits: time and bytes" in output) is (number == signal.SIGINT)
    assert under_way.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert error == ""
    _, alive = psutil.wait_procs(cells, timeout=PATIENCE_S)
    assert alive == []
    assert main(arguments(cluster)) == 0
    assert "1 of 1 runs, 1 of them known before" in capsys.readouterr().out


def test_cells_that_fail_are_named_with_their_cause_and_the_rest_goes_on(
    cluster: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(cluster, "--json", str(tmp_path / "runs.json"))
    words[words.index("digits") : words.index("digits") + 1] = [f"{__name__}:fails", "digits", f"{__name__}:breaks"]
    assert main(words) == 3
    output = capsys.readouterr().out.splitlines()
    (fails_line,) = [line for line in output if line.startswith(f"failed: home, {__name__}:fails, ship_once, seed 0:")]
    (breaks_line,) = [line for line in output if line.startswith(f"failed: home, {__name__}:breaks, ship_once")]
    assert fails_line.endswith("ValueError: attic has no data")
    assert breaks_line.endswith("ArithmeticError: no such loss")
    (run,) = json.loads((tmp_path / "runs.json").read_text())["runs"]
    assert (run["task"], run["reached"]) == ("digits", True)
    assert len(list(cache.iterdir())) == 1, "what failed is tried again the next time"


def test_a_training_that_diverges_is_one_that_never_met_its_target(
    cluster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs.json"
    assert main(arguments(cluster, "--json", str(file), task=f"{__name__}:diverges", policies=("fedavg",))) == 0
    (run,) = json.loads(file.read_text())["runs"]
    assert (run["reached"], run["diverged"], run["stopped_after_s"]) == (False, True, None)
    assert run["rounds"] >= 1
    assert run["seconds_total"] >= run["curve"][-1][0] > 0.0
    assert "seed 0: diverged before the target of 95.0%" in capsys.readouterr().out


def test_a_task_may_print_what_it_likes(cluster: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(cluster, task=f"{__name__}:speaks")) == 0
    output, error = capfd.readouterr()
    assert "1 of 1 runs" in output
    assert "reading" not in output + error


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--tasks"], "--tasks: expected at least one"),
        (["--clusters"], "--clusters: expected at least one"),
        (["--tasks", "digit"], "unknown task 'digit'; did you mean 'digits'?"),
        (["--policies", "fedavgg"], "unknown policy 'fedavgg'; did you mean 'fedavg'?"),
        (["--policies", "fedavg", "fedavg"], "the policy 'fedavg' is named twice"),
        (["--seeds", "0"], "--seeds: expected at least 1, found 0"),
        (["--clusters", "nowhere.toml"], "nowhere.toml: no such file"),
        (["--clusters", "."], ".: there is no cluster file (*.toml) in it"),
        (["--json", "nowhere/runs.json"], "nowhere/runs.json: there is no directory nowhere"),
        (["--html", "nowhere/page.html"], "nowhere/page.html: there is no directory nowhere"),
        (["--json", "/proc/runs.json"], "/proc/runs.json: cannot be written: "),
        (["--json", "same", "--html", "./same"], "--json and --html name the same file, same: name two"),
    ],
)
def test_what_cannot_work_is_bad_input_in_one_line(
    cluster: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    words = {"--clusters": [str(cluster)], "--tasks": ["digits"], "--policies": ["fedavg"]} | {more[0]: more[1:]}
    assert main(["bench", *(word for option, values in words.items() for word in (option, *values))]) == 2
    assert list(Path().iterdir()) == []
    output, error = capsys.readouterr()
    assert output == ""
    assert expected in error
    assert error.count("\n") == 1


def test_two_clusters_of_one_name_are_bad_input(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cluster.parent / "same.toml").write_text(HOME)
    assert main(["bench", "--clusters", str(cluster.parent), "--tasks", "digits"]) == 2
    same = f"{cluster} and {cluster.parent / 'same.toml'} are both named 'home': give each a name of its own"
    assert same in capsys.readouterr().err


def test_without_clusters_beside_it_it_says_how_to_name_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench"]) == 2
    assert "there is no examples/clusters here: name cluster files with --clusters" in capsys.readouterr().err


def test_where_runs_cannot_be_kept_none_is_computed(
    cluster: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    assert main(arguments(cluster)) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error == f"crowd: {cache}: runs cannot be kept there: File exists; XDG_CACHE_HOME names another place\n"


def test_without_the_libraries_for_the_page_it_says_what_to_install(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crowd.cli.bench.command, "find_spec", lambda name: None)
    assert main(arguments(cluster, "--html", str(tmp_path / "page.html"))) == 2
    assert "--html needs jinja2: install it with pip install 'crowdlearning[bench]'" in capsys.readouterr().err


def test_a_changed_cluster_file_makes_a_process_give_up_instead_of_leaving_a_false_entry(
    cluster: Path, cache: Path, tmp_path: Path
) -> None:
    from crowd.bench.cells import Cell
    from crowd.cli.experiments import read_experiment
    from crowd.cli.processes.bench_cell import command

    asked = read_experiment(cluster, task="digits", policy="fedavg", seed=0, target=None, rounds_max=None)
    cell = Cell.of(cluster, asked, cache=cache, spare=tmp_path)
    cluster.write_text(HOME.replace("train_gflops = 0.4", "train_gflops = 0.8"))
    done = subprocess.run(command(cell, 3.0), capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("the source or the cluster file has changed")
    assert not cell.path.exists()


def test_the_clusters_of_the_comparison_are_those_that_any_policy_can_train_as_a_whole() -> None:
    folder = Path(__file__).parents[3]
    every = cluster_files([folder / "examples" / "clusters"])
    assert {path.stem for path in every} - {path.stem for path in CLUSTERS} == {"tiny-memory", "private-cameras"}
    assert all((folder / path).is_file() for path in CLUSTERS)
