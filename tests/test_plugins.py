import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, distribution
from pathlib import Path
from typing import Any

import pytest

from crowd import plugins
from crowd.config.data import DataConfig
from crowd.errors import BadConfig
from crowd.experiment.experiment import backends
from crowd.learning.task import Task
from crowd.units import device_id

TASK = """
import torch
import crowd

def task(device):
    return crowd.Task(
        model=lambda: torch.nn.Linear(2, 2),
        data=torch.utils.data.TensorDataset(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05),
        name=device,
    )
"""

CLUSTER = """
[cluster]
name = "two"
[[device]]
name = "ada"
kind = "raspberry-pi-4"
[[device]]
name = "ben"
kind = "raspberry-pi-4"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory from which modules can be imported, and forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_what_is_installed_is_found_by_name() -> None:
    assert {"digits", "fashion", "watch", "wide"} <= set(plugins.tasks.names())
    assert plugins.catalogs.load("built-in")()["raspberry-pi-4"].speed_kflops == 6_000_000


@pytest.mark.parametrize(
    ("group", "name"),
    [
        pytest.param(group, name, id=f"{group.entry_points}-{name}")
        for group in (*plugins.GROUPS, backends)
        for name in group.names()
    ],
)
def test_every_installed_plug_in_is_there_and_of_its_kind(group: plugins.PluginGroup[Any], name: str) -> None:
    group.load(name)


def test_no_group_of_entry_points_is_forgotten() -> None:
    installed = {entry.group for entry in distribution("crowdlearning").entry_points}
    assert installed - {"console_scripts"} == {group.entry_points for group in (*plugins.GROUPS, backends)}


def test_a_plug_in_of_another_kind_is_one_line_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = EntryPoint(name="wrong", value="crowd.units:device_id", group="crowd.policies")
    monkeypatch.setattr(plugins, "_entries", lambda group: {"wrong": wrong})
    with pytest.raises(BadConfig, match=r"^the policy 'wrong' \(crowd.units:device_id\) is no subclass of Policy$"):
        plugins.policies.load("wrong")


def test_a_plug_in_whose_module_has_no_such_object_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = EntryPoint(name="gone", value="crowd.units:Gone", group="crowd.links")
    monkeypatch.setattr(plugins, "_entries", lambda group: {"gone": gone})
    with pytest.raises(BadConfig, match=r"^the kind of link 'gone' \(crowd.units:Gone\) cannot be loaded: "):
        plugins.links.load("gone")


def test_an_unknown_name_is_answered_with_the_likeliest_one() -> None:
    with pytest.raises(BadConfig, match="unknown task 'digit'; did you mean 'digits'"):
        plugins.task_function("digit")


def test_a_name_like_no_other_is_answered_with_all_of_them() -> None:
    with pytest.raises(BadConfig, match="unknown kind of broker 'carrier-pigeon'; known are 'memory', 'mqtt', 'mqtts'"):
        plugins.broker_from_url("carrier-pigeon://loft", cluster="home", device=device_id("a"))


def test_the_scheme_of_the_url_chooses_the_broker() -> None:
    from brokers.memory import MemoryBroker

    broker = plugins.broker_from_url("memory://plugins", cluster="home", device=device_id("a"))
    assert isinstance(broker, MemoryBroker)


def test_a_broker_without_a_scheme_is_refused() -> None:
    with pytest.raises(BadConfig, match="broker 'localhost:1883': expected a URL"):
        plugins.broker_from_url("localhost:1883", cluster="home", device=device_id("a"))


def test_a_task_of_ones_own_is_found_in_the_working_directory(here: Path) -> None:
    (here / "my_work.py").write_text(TASK)
    task = plugins.make_task("my_work:task", "gateway")
    assert isinstance(task, Task)
    assert task.name == "gateway"


def test_a_task_of_ones_own_takes_no_part_of_a_built_in_data_set(here: Path) -> None:
    (here / "my_work.py").write_text(TASK)
    with pytest.raises(BadConfig, match="brings its own data: leave \\[data\\] out"):
        plugins.make_task("my_work:task", "gateway", DataConfig(part=0, parts=2))


@pytest.mark.parametrize(
    ("source", "spec", "expected"),
    [
        ("", "nowhere:task", "there is no module 'nowhere', neither here nor installed"),
        (TASK, "my_work:tsk", "no function 'tsk' in my_work; did you mean 'task'?"),
        ("import nothing_like_it\n", "my_work:task", "my_work.py, line 1: ModuleNotFoundError: No module named"),
        ("x = 1\ny = z\n", "my_work:task", "my_work.py, line 2: NameError: name 'z' is not defined"),
        ("def task(:\n", "my_work:task", "my_work.py, line 1: SyntaxError: invalid syntax"),
        ("import json\n\ndef task(d):\n    return json.loads(d)\n", "my_work:task", "my_work.py, line 4: json.decoder"),
        (
            "def task(d):\n    return helper()\n\ndef helper():\n    return 1 / 0\n",
            "my_work:task",
            "my_work.py, line 5: Zero",
        ),
        ("def task(device):\n    return 3\n", "my_work:task", "expected it to return a crowd.Task, found int"),
        (
            "def task():\n    return 3\n",
            "my_work:task",
            "TypeError: task() takes 0 positional arguments but 1 was given",
        ),
    ],
)
def test_a_mistake_in_the_users_module_is_one_line_with_its_place(
    here: Path, source: str, spec: str, expected: str
) -> None:
    (here / "my_work.py").write_text(source)
    with pytest.raises(BadConfig) as caught:
        plugins.make_task(spec, "gateway")
    assert str(caught.value).startswith(f"task {spec!r}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (3, "task: expected a function from a device's name to its Task, found a int"),
        (lambda device: None, "task: expected it to return a crowd.Task, found NoneType"),
    ],
)
def test_an_application_s_task_that_is_none_is_one_line(function: Any, expected: str) -> None:
    with pytest.raises(BadConfig, match=expected):
        plugins.task_of(function, "gateway")


RUN = "import sys; from crowd.cli.main import main; sys.exit(main())"


@pytest.mark.parametrize("name", ["brokers.py", "devices.py", "policies/__init__.py"])
def test_a_file_of_ones_own_with_the_name_of_a_package_does_not_take_its_place(here: Path, name: str) -> None:
    (here / name).parent.mkdir(exist_ok=True)
    (here / name).write_text("LAMPS = ['hall', 'stairs']\n")
    source = TASK.replace("name=device", "epochs_max=1")
    (here / "my_work.py").write_text(source)
    (here / "cluster.toml").write_text(CLUSTER)
    sim = [sys.executable, "-P", "-c", RUN, "sim", "cluster.toml", "--task", "my_work:task", "--rounds-max", "1"]
    done = subprocess.run(sim, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    package = name.removesuffix(".py").removesuffix("/__init__")
    (here / "my_work.py").write_text(f"{source}\nimport {package}\nprint({package}.LAMPS)\n")
    done = subprocess.run(sim, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"has no attribute 'LAMPS'; '{package}' is a package of crowd too, which is found first: rename yours" in (
        done.stderr
    )


def test_a_file_that_python_finds_before_a_package_because_it_was_told_to_is_named(here: Path) -> None:
    (here / "brokers.py").write_text("")
    load = [sys.executable, "-c", "from crowd import plugins; plugins.brokers.load('memory')"]
    done = subprocess.run(load, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        "; your own 'brokers' here is found first: rename it, or start elsewhere"
    )


def test_a_built_in_task_is_given_its_part_of_the_data_set() -> None:
    def inputs(data: DataConfig | None) -> list[bytes]:
        samples = plugins.make_task("digits", "gateway", data).data
        return sorted(samples[index][0].numpy().tobytes() for index in range(len(samples)))  # type: ignore[arg-type]  # map-style

    parts = [inputs(DataConfig(part=part, parts=3)) for part in range(3)]
    assert [len(part) for part in parts] == [479] * 3
    assert sorted([*parts[0], *parts[1], *parts[2]]) == inputs(None)
