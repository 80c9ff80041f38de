"""The command, with models that nodes have trained."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from structlog.testing import capture_logs

from crowd import plugins
from crowd.cli.main import main
from crowd.config.node_file import MODEL_FILE
from crowd.model_card import CARD_FILE, ModelCard
from crowd.protocol.identity import generate_key, public_line, write_key
from devices.store import FileStore
from tests.node.cluster import Cluster
from tests.support.virtual import run_virtually

TASK = """
import torch
import crowd

def samples(count, width=4):
    inputs = torch.randn(count, width, generator=torch.Generator().manual_seed(0))
    return torch.utils.data.TensorDataset(inputs, (inputs[:, 0] > 0).long())

class Network(torch.nn.Module):
    # with random features that training leaves as they are, and statistics
    def __init__(self, features=16):
        super().__init__()
        self.register_buffer("drawn", torch.randn(4, features), persistent=False)
        self.normal = torch.nn.BatchNorm1d(features)
        self.head = torch.nn.Linear(features, 2)

    def forward(self, inputs):
        return self.head(self.normal(torch.relu(inputs @ self.drawn)))

class OneByOne(Network):
    def forward(self, inputs):
        whole = super().forward
        return whole(inputs) if self.training else torch.cat([whole(row[None]) for row in inputs])

class Branches(Network):
    def forward(self, inputs):
        return super().forward(inputs if inputs.sum() > 0 else -inputs)

def make(model):
    return crowd.Task(
        model=model,
        data=samples(64),
        evaluation=samples(64),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        epochs_max=2,
        name="random features",
    )

def task(device):
    return make(Network)

def other(device):
    return make(lambda: Network(8))

def one_by_one(device):
    return make(OneByOne)

def branches(device):
    return make(Branches)

def failing(device):
    return make(lambda: 1 / 0)
"""
ALONE = """
import sys

for name in ("crowd", "brokers", "devices", "policies", "mytask"):
    sys.modules[name] = None  # whoever imports it fails
import torch

program = torch.export.load(sys.argv[1]).module()
inputs = torch.load(sys.argv[2])
torch.save(program(inputs), sys.argv[3])
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user's task is, and one finds it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mytask", raising=False)
    Path("mytask.py").write_text(TASK)
    key = generate_key()
    write_key(Path("ada.key"), key)
    Path("members.toml").write_text(public_line("ada", key) + "\n")
    return tmp_path


def config(function: str) -> str:
    """A node.toml of a device with this task."""
    Path("node.toml").write_text(
        f"""
        [node]
        name = "ada"
        cluster = "home"
        broker = "mqtt://localhost:1883"
        key_file = "ada.key"
        members_file = "members.toml"
        state_dir = "state"
        [train]
        task = "mytask:{function}"
        """
    )
    return "node.toml"


def trained(function: str = "task") -> torch.nn.Module:
    """The network that a node has trained, whose state directory is `state` now."""
    cluster = Cluster("ada")
    task = plugins.task_function(f"mytask:{function}")
    node = cluster.add("ada", task, store=FileStore("state"), members_min=1)
    with capture_logs():
        run_virtually(cluster.train)
    return node.model


def complaint_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the command ends with."""
    before = sorted(Path().iterdir())
    capsys.readouterr()
    assert main(["export", *arguments]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    (line,) = error.splitlines()
    assert sorted(Path().iterdir()) == before, "nothing is written"
    return line.removeprefix("crowd: ")


# --- parameters -------------------------------------------------------------------------------------------------------


def test_the_model_and_its_card_are_copied(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = trained()
    assert main(["export", "--state-dir", "state", "--to", "tulips.safetensors"]) == 0
    card = ModelCard.from_bytes(Path("tulips.json").read_bytes(), Path("tulips.json"))
    model = Path("tulips.safetensors").read_bytes()
    assert Path("tulips.json").read_bytes() == Path("state", CARD_FILE).read_bytes()
    assert card == card.of_file(model)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in safetensors.torch.load(model).items())
    about, known = capsys.readouterr().out.splitlines()
    assert about == f"tulips.safetensors: {len(model):,} bytes, of the run that ended on {card.when[:16]}".replace(
        "T", " "
    )
    assert card.value is not None
    assert known == (
        f"tulips.json: task random features, run 1 of home, {card.value:.1%} accuracy, digest {card.digest}"
    )


def test_with_the_node_s_file_the_same_is_copied(home: Path) -> None:
    trained()
    assert main(["export", "--state-dir", "state", "--to", "one.safetensors"]) == 0
    assert main(["export", "--config", config("task"), "--to", "two.safetensors"]) == 0
    for suffix in ("safetensors", "json"):
        assert Path(f"one.{suffix}").read_bytes() == Path(f"two.{suffix}").read_bytes()


def lose() -> None:
    Path("state", CARD_FILE).unlink()


def damage() -> None:
    Path("state", CARD_FILE).write_text("{")


def leave_the_last_one_s() -> None:
    """As when the power fails between the two files."""
    path = Path("state", CARD_FILE)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": "00" * 32}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lose, "state has no card"),
        (damage, "state/model.json: no valid JSON: Expecting"),
        (
            leave_the_last_one_s,
            "state/model.json is of another file than model.safetensors, or one of the two is damaged",
        ),
    ],
)
def test_a_model_whose_card_is_not_there_is_copied_without_it(
    change: Callable[[], None], why: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained()
    change()
    assert main(["export", "--state-dir", "state", "--to", "tulips.safetensors"]) == 0
    assert Path("tulips.safetensors").read_bytes() == Path("state", MODEL_FILE).read_bytes()
    assert not Path("tulips.json").exists()
    about, card = capsys.readouterr().out.splitlines()
    assert ", of the run that ended on 20" in about
    assert card.startswith(f"tulips.json: not written, for {why}")


# --- programs ---------------------------------------------------------------------------------------------------------


def run_alone(program: str, inputs: torch.Tensor, folder: Path) -> torch.Tensor:
    """What a process makes of the inputs that has neither crowd nor the task's file."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    torch.save(inputs, elsewhere / "inputs.pt")
    command = [sys.executable, "-c", ALONE, str(folder / program), "inputs.pt", "outputs.pt"]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    outputs: torch.Tensor = torch.load(elsewhere / "outputs.pt")
    return outputs


def test_a_program_runs_where_neither_crowd_nor_the_task_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = trained()
    assert main(["export", "--config", config("task"), "--to", "tulips.pt2"]) == 0
    output, error = capsys.readouterr()
    about, takes, known = output.splitlines()
    assert about.startswith(f"tulips.pt2: {Path('tulips.pt2').stat().st_size:,} bytes, of the run that ended on 20")
    assert takes == "tulips.pt2: takes float32 (samples, 4), any number of samples at once"
    assert known.startswith("tulips.json: task random features, ")
    assert "warn" not in error.lower()
    inputs = torch.randn(5, 4)
    torch.testing.assert_close(run_alone("tulips.pt2", inputs, home), network(inputs))
    assert Path("tulips.json").read_bytes() == Path("state", CARD_FILE).read_bytes()


def test_a_program_for_one_sample_at_a_time_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = trained("one_by_one")
    assert main(["export", "--config", config("one_by_one"), "--to", "tulips.pt2"]) == 0
    takes = capsys.readouterr().out.splitlines()[1]
    assert takes.startswith("tulips.pt2: takes float32 (1, 4), one sample at a time: forward fixes their number")
    inputs = torch.randn(1, 4)
    torch.testing.assert_close(run_alone("tulips.pt2", inputs, home), network(inputs))


def test_a_model_of_another_task_is_one_clear_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained()
    assert complaint_of(capsys, "--config", config("other"), "--to", "tulips.pt2") == (
        "state/model.safetensors, which is of task 'random features', does not fit the network of task 'mytask:other': "
        "head.weight is of shape (2, 16) in the model and (2, 8) in the network; export it with the task that it was "
        "trained with"
    )


def test_a_network_that_torch_cannot_export_is_one_clear_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained("branches")
    line = complaint_of(capsys, "--config", config("branches"), "--to", "tulips.pt2")
    assert line.startswith(f"torch.export cannot make a program of the network: {home}/mytask.py, line ")
    assert line.endswith("or export the parameters alone, as .safetensors")


def test_a_task_that_fails_and_a_damaged_model_are_one_clear_line(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained()
    line = complaint_of(capsys, "--config", config("failing"), "--to", "tulips.pt2")
    assert line.startswith(f"the task's model() failed: {home}/mytask.py, line ")
    Path("state", MODEL_FILE).write_bytes(b"x")
    line = complaint_of(capsys, "--config", config("task"), "--to", "tulips.pt2")
    assert line.startswith("state/model.safetensors: it is damaged: ")


# --- what cannot be -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--state-dir", "state", "--to", "model"), "model: expected a name that ends in .safetensors (parameters) or"),
        (("--state-dir", "state", "--to", "model.onnx"), "model.onnx: expected a name that ends in .safetensors"),
        (("--to", "model.safetensors"), "give one of --state-dir, a device's state_dir, and --config, its node.toml"),
        (("--state-dir", "a", "--config", "b", "--to", "c.pt2"), "give one of --state-dir"),
        (("--state-dir", "state", "--to", "model.pt2"), "model.pt2: a program is made of the task's network: give"),
        (("--state-dir", "stat", "--to", "model.safetensors"), "stat: no such directory; give the state_dir of"),
        (("--config", "other.toml", "--to", "model.pt2"), "other.toml: no such file"),
        (("--config", "node.toml", "--to", "model.pt2"), "state: there is no trained model yet; it is written when a"),
        (("--state-dir", "state", "--to", "model.safetensors"), "state: there is no trained model yet"),
    ],
)
def test_arguments_that_lead_nowhere_are_one_clear_line(
    arguments: tuple[str, ...], complaint: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("state").mkdir()
    config("task")
    assert complaint_of(capsys, *arguments).startswith(complaint)


@pytest.mark.parametrize("folder", ["model.safetensors", "model.json"])
def test_a_file_that_cannot_be_written_is_one_clear_line(
    folder: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained()
    Path(folder).mkdir()
    complaint = f"{folder}: it is a directory; name a file"
    assert complaint_of(capsys, "--state-dir", "state", "--to", "model.safetensors") == complaint
    complaint = "nowhere/model.safetensors: there is no directory nowhere"
    assert complaint_of(capsys, "--state-dir", "state", "--to", "nowhere/model.safetensors") == complaint
