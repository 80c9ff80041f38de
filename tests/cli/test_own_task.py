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


@pytest.mark.parametrize("command", ["plan", "sim"])
def test_accuracy_where_there_is_none_is_refused_in_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "flat.toml").write_text(CLUSTER)
    (tmp_path / "one_logit.py").write_text(ONE_LOGIT)
    assert main([command, "flat.toml", "--task", "one_logit:task"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "only classification can be trained" in line
