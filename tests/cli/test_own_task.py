"""A task of one's own that cannot be trained is one line, before anything is measured or planned."""

from pathlib import Path

import pytest

from crowd.cli.main import main

CLUSTER = """
[cluster]
name = "flat"
[[device]]
name = "laptop"
kind = "laptop"
[[device]]
name = "pi"
kind = "raspberry-pi-3"
memory_mib = 1
"""
ONE_LOGIT = """
import torch, crowd
def loss(outputs, labels):
    return torch.nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], labels.float())
def task(device):
    data = torch.utils.data.TensorDataset(torch.randn(60, 4), torch.arange(60) % 2)
    return crowd.Task(model=lambda: torch.nn.Linear(4, 1), data=data, evaluation=data, loss=loss,
                      optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
"""


LARGE = """
import torch, crowd
def task(device):
    count = 600 if device == "pi" else 60
    data = torch.utils.data.TensorDataset(torch.ones(1).expand(count, 1000), torch.arange(count) % 2)
    small = torch.utils.data.TensorDataset(torch.ones(1).expand(10, 1000), torch.arange(10) % 2)
    return crowd.Task(model=lambda: torch.nn.Linear(1000, 2), data=data, evaluation=small,
                      optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
"""


@pytest.mark.parametrize("command", ["plan", "sim"])
@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("one_logit", ONE_LOGIT, "the metric accuracy cannot take data: "),
        ("large", LARGE, "data does not fit into memory: its 600 samples need 2.4 MB, and 1.0 MB are free"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(
    name: str,
    source: str,
    complaint: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "flat.toml").write_text(CLUSTER)
    (tmp_path / f"{name}.py").write_text(source)
    assert main([command, "flat.toml", "--task", f"{name}:task"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
