"""What trains is named in `[train]`."""

from pathlib import Path
from typing import Any

import pytest
import torch

from crowd.cli.main import main
from crowd.cli.node import limit_torch
from crowd.config.node_file import NodeConfig
from crowd.protocol.identity import generate_key, public_line, write_key
from devices.torch_compute import cpu, cuda


def settings(folder: Path, *, device: str) -> Path:
    """The node.toml of a device whose broker does not answer."""
    key = generate_key()
    write_key(folder / "anna.key", key)
    (folder / "members.toml").write_text(public_line("anna", key) + "\n")
    (folder / "anna.toml").write_text(
        '[node]\nname = "anna"\ncluster = "home"\nbroker = "mqtt://127.0.0.1:1"\nkey_file = "anna.key"\n'
        f'members_file = "members.toml"\n[train]\nmembers_min = 1\ndevice = "{device}"\n'
    )
    return folder / "anna.toml"


def test_a_device_that_is_not_installed_is_named_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["node", "--config", str(settings(tmp_path, device="cpus"))]) == 2
    assert "unknown device 'cpus'; did you mean 'cpu'?" in capsys.readouterr().err


def test_an_accelerator_that_is_not_there_is_named_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert main(["node", "--config", str(settings(tmp_path, device="cuda"))]) == 2
    said = capsys.readouterr().err
    assert "device = 'cuda': this PyTorch has no accelerator here" in said
    assert "broker" not in said  # that nobody answers there


def config(**changes: Any) -> NodeConfig:
    return NodeConfig(name="anna", cluster="home", broker="mqtt://127.0.0.1:1", **changes)


def test_torch_has_its_share_of_the_processors_and_of_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: dict[str, float] = {}
    monkeypatch.setattr(torch, "set_num_threads", lambda count: limits.update(threads=count))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share: limits.update(memory=share))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    limit_torch(cpu(), config(cpu_share_max=0.01))
    assert limits == {"threads": 1}
    limit_torch(cuda(), config(cpu_share_max=0.01, accelerator_share_max=0.3))
    assert limits == {"threads": 1, "memory": 0.3}
