"""Rules of the house that no linter knows."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HELP = "from crowd.cli.main import main; assert main({arguments}) == 0"
FILE_LINES_MAX, CLASS_LINES_MAX, FUNCTION_LINES_MAX = 350, 300, 50
ACTOR_CLASS_LINES_MAX = 250
TOO_LONG_PRODUCT: dict[str, int] = {
    "crowd/cli/bench/command.py:bench": 55,
    "crowd/cli/lab.py:lab": 56,
    "policies/baselines/own_data.py:plan_at_home": 53,
    "policies/crowd_learning/offload.py:offload": 52,
}
"""How many lines have those files, classes and functions that are too long. Both lists may only shrink."""
TOO_LONG_BESIDE: dict[str, int] = {
    "tests/agreement/cluster_model.py": 680,
    "tests/agreement/cluster_model.py:Device": 325,
    "tests/agreement/cluster_model.py:Device.carry_out": 68,
    "tests/agreement/test_agreement.py": 657,
    "tests/agreement/test_agreement_machine.py": 525,
    "tests/agreement/test_agreement_machine.py:Agreement": 407,
    "tests/agreement/test_agreement_machine.py:Agreement._carry_out": 61,
    "tests/brokers/simulated/test_network.py": 727,
    "tests/devices/simulation/test_simulation.py": 353,
    "tests/devices/simulation/test_virtual_time.py": 377,
    "tests/devices/test_compute.py": 410,
    "tests/learning/test_merge_machine.py": 544,
    "tests/learning/test_merge_machine.py:Cluster": 445,
    "tests/node/test_run.py": 397,
    "tests/protocol/test_codec.py": 529,
    "tests/protocol/transfer/test_transfer.py": 514,
    "tests/protocol/transfer/test_transfer_machine.py": 414,
    "tests/protocol/transfer/test_transfer_machine.py:Network": 325,
    "tests/runtime/test_actor.py": 434,
    "tests/runtime/test_supervisor.py": 355,
}
"""The same of tests and examples."""


@pytest.mark.parametrize(
    "code",
    [
        "import crowd",
        "import crowd; crowd.NodeConfig",
        "import crowd.plugins",
        "import crowd.actors.trainer.rounds",
        HELP.format(arguments=["--help"]),
        HELP.format(arguments=["plan", "--help"]),
        HELP.format(arguments=["sim", "--help"]),
        HELP.format(arguments=["keys", "--help"]),
        HELP.format(arguments=["bench", "--help"]),
    ],
)
def test_torch_is_not_loaded_before_there_is_work_for_it_nor_what_draws(code: str) -> None:
    check = "import sys; assert not {'torch', 'matplotlib', 'jinja2'} & sys.modules.keys(), 'too much was loaded'"
    done = subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_node_loads_nothing_of_experiments() -> None:
    """Not even where an import stands in a function, or is found by the name of a plug-in."""
    code = """
import sys
import brokers.mqtt, crowd.cli.node, crowd.node
from crowd import plugins
plugins.devices.load("cpu"), plugins.stores.load("file")
for group in (plugins.policies, plugins.tasks):
    assert [group.load(name) for name in group.names()]
print(*sorted(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert {"torch", "devices.torch_compute", "policies.crowd_learning.policy", "crowd.tasks.digits"} <= set(loaded)
    others = (
        "crowd.experiment",
        "crowd.bench",
        "brokers.simulated",
        "devices.cluster",
        "devices.simulation",
        "devices.lab",
    )
    assert [name for name in loaded if f"{name}.".startswith(tuple(f"{other}." for other in others))] == []


def test_a_node_before_its_trainer_starts_is_small_and_has_no_torch() -> None:
    """52 MiB on x86-64 with Python 3.11."""
    code = """
import sys
import brokers.mqtt, crowd.cli.node, crowd.cli.waiting, crowd.node
from crowd import plugins
plugins.devices.load("cpu"), plugins.stores.load("file")
assert [plugins.policies.load(name) for name in plugins.policies.names()]
assert not {"torch", "numpy"} & sys.modules.keys(), "too much was loaded"
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 90 * 1024


@pytest.mark.parametrize(
    ("folders", "listed"),
    [
        pytest.param(("crowd", "brokers", "devices", "policies"), TOO_LONG_PRODUCT, id="product"),
        pytest.param(("tests", "examples"), TOO_LONG_BESIDE, id="tests and examples"),
    ],
)
def test_what_is_too_long_is_listed_and_does_not_grow(folders: tuple[str, ...], listed: dict[str, int]) -> None:
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert files
    found = dict(name_and_size for path in files for name_and_size in too_long(path))
    grown = {name: size for name, size in found.items() if size > listed.get(name, 0)}
    assert not grown, "too long: look for the seam"
    shrunk = {name: found.get(name) for name, size in listed.items() if found.get(name, 0) < size}
    assert not shrunk, "shorter than listed, or gone: list what they are now, and none that is short enough"


def test_no_class_of_an_actor_grows_beyond_what_one_can_keep_in_mind() -> None:
    for path in sorted((ROOT / "crowd" / "actors").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                assert (node.end_lineno or node.lineno) - node.lineno < ACTOR_CLASS_LINES_MAX, f"{path}: {node.name}"


def too_long(path: Path) -> Iterator[tuple[str, int]]:
    """The file, and the classes and functions in it, without their decorators."""
    text = path.read_text(encoding="utf-8")
    file = path.relative_to(ROOT).as_posix()
    if (lines := len(text.splitlines())) > FILE_LINES_MAX:
        yield file, lines
    yield from _too_long_in(ast.parse(text), f"{file}:")


def _too_long_in(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        inside = prefix
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            lines_max = CLASS_LINES_MAX if isinstance(child, ast.ClassDef) else FUNCTION_LINES_MAX
            lines = (child.end_lineno or child.lineno) - child.lineno + 1
            if lines > lines_max:
                yield prefix + child.name, lines
            inside = f"{prefix}{child.name}."
        yield from _too_long_in(child, inside)
