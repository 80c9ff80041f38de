"""The commands and programs in the README and in the guides, run as they stand there."""

import importlib
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from crowd import plugins
from crowd.learning.lent_samples import LentSamples
from crowd.learning.pool import EpochSampler, TrainingPool
from crowd.learning.work import LocalTrainer, prepare
from crowd.model_card import ModelCard
from crowd.planning.plan import Range
from tests.examples.test_examples import free_port
from tests.learning.nets import train

ROOT = Path(__file__).parents[2]
README, GUIDE, TASKS = ROOT / "README.md", ROOT / "docs" / "first-cluster.md", ROOT / "docs" / "tasks.md"

INDENTED = re.compile(r"(?:^    .*\n(?:\n(?=    ))?)+", re.MULTILINE)
PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STEP = re.compile(r"^\*\*(\d)\. ", re.MULTILINE)
PORT = "1885"
TIMEOUT_S = 300.0


def commands() -> dict[int, list[str]]:
    """The blocks of commands in the guide, by its steps."""
    _, *parts = STEP.split(GUIDE.read_text("utf-8").partition("\n## ")[0])
    return {
        int(number): [textwrap.dedent(block[0]) for block in INDENTED.finditer(text)]
        for number, text in zip(parts[::2], parts[1::2], strict=True)
    }


@contextmanager
def started(command: str, home: Path, environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        ["sh", "-ec", f"exec env {command}"],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.alone
def test_the_guide_leads_from_nothing_to_a_model_on_three_devices(tmp_path: Path) -> None:
    steps = commands()
    assert sorted(steps) == [1, 2, 3, 4, 5, 6], "expected the steps to be numbered `**1. …`"
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    port = str(free_port())
    prepared, broker = steps[4]
    script = "\n".join([*steps[2], *steps[3], prepared, *steps[5]]).replace(PORT, port)
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, env=environment, timeout=TIMEOUT_S, check=True)
    with started(broker.strip(), tmp_path, environment) as mosquitto:
        assert mosquitto.stdout is not None
        assert any(line.rstrip().endswith(" running") for line in mosquitto.stdout), "the broker does not start"
        nodes, *_ = steps[6]
        lines = nodes.splitlines()
        together = "\n".join([*(f"{line} >{number}.out &" for number, line in enumerate(lines)), "wait"])
        subprocess.run(["sh", "-ec", together], cwd=tmp_path, env=environment, timeout=TIMEOUT_S, check=True)
    ends = [(tmp_path / f"{number}.out").read_text().splitlines()[-1] for number in range(len(lines))]
    assert all(end.startswith("reached the target of 91.0%: ") for end in ends), ends
    assert len({end.split(", model ")[1] for end in ends}) == 1

    using = GUIDE.read_text("utf-8").partition("\n## Using the model\n")[2]
    exports, programs = [block[0] for block in INDENTED.finditer(using)], PROGRAM.findall(using)
    said = []
    for export, program in zip(exports, programs, strict=True):
        subprocess.run(["sh", "-ec", export], cwd=tmp_path, env=environment, timeout=TIMEOUT_S, check=True)
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        said.append(done.stdout)
    assert said[0] == said[1], "parameters and program are of one model"
    assert re.fullmatch(r"tensor\(\[[0-6]\]\)\n", said[0])
    card = ModelCard.from_bytes((tmp_path / "model.json").read_bytes(), tmp_path / "model.json")
    assert (card.task, card.run, card.reached) == ("watch", 1, True)
    assert f"model {card.digest}" in ends[0]


def test_the_guide_s_access_list_is_that_of_the_example() -> None:
    acl = (ROOT / "examples" / "smart_home" / "acl").read_text().splitlines()
    prepared, _ = commands()[4]
    assert [line for line in prepared.splitlines() if line.startswith("pattern")] == [
        line for line in acl if line.startswith("pattern")
    ]


INPUTS = np.arange(80, dtype=np.float32).reshape(20, 4)


def test_the_readme_s_task_of_one_s_own_can_be_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = next(block for block in PROGRAM.findall(README.read_text("utf-8")) if "# mytask.py" in block)
    (tmp_path / "mytask.py").write_text(program)
    (tmp_path / "kitchen").mkdir()
    np.savez(tmp_path / "kitchen" / "samples.npz", inputs=INPUTS, labels=np.arange(20) % 3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mytask", raising=False)
    work = prepare(plugins.make_task("mytask:task", "kitchen"))
    kept = work.own.latest.store.samples.inputs, work.own.latest.evaluation.inputs
    assert all(len(inputs) for inputs in kept)
    assert sorted(torch.cat(kept).tolist()) == INPUTS.tolist()


def test_the_recipes_for_tasks_can_be_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = PROGRAM.search(TASKS.read_text("utf-8"))
    assert program is not None
    (tmp_path / "recipes.py").write_text(program[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "recipes", raising=False)
    network = plugins.make_task("recipes:weighted", "kitchen").model()
    torch.save(network.state_dict(), "start.pt")
    for name in ("fine_tuned", "clipped", "weighted", "augmented"):
        task = plugins.make_task(f"recipes:{name}", "kitchen")
        work = prepare(task)
        local = LocalTrainer(task, task.model(), work.layout)
        ranges = tuple(
            Range(label=label, start=0, stop=count) for label, count in enumerate(work.own.latest.store.label_counts)
        )
        pool = TrainingPool(work.own.latest.store, LentSamples(work.own.latest.store), ranges, {})
        assert train(local, pool, EpochSampler(len(pool), seed=0, generation=1), len(pool)).samples == len(pool)
        assert local.delta().any()


def test_the_metric_of_ones_own_can_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes, program = PROGRAM.findall(TASKS.read_text("utf-8"))
    assert "Metric" not in recipes
    (tmp_path / "tolerance.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    metric = importlib.import_module("tolerance").WithinTenPercent()
    sums = metric.sums(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.05, 3.0, 3.1, 4.0]))
    assert metric.value(sums) == 0.75


def test_the_readme_is_short() -> None:
    assert len(README.read_bytes()) <= 12_000
