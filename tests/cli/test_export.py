from pathlib import Path

import pytest

from crowd.cli.main import main
from devices.store import FileStore


def test_the_model_that_a_node_stored_is_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FileStore(tmp_path / "state").write("model.safetensors", b"x" * 1234)
    target = tmp_path / "model.safetensors"
    assert main(["export", "--state-dir", str(tmp_path / "state"), "--to", str(target)]) == 0
    assert target.read_bytes() == b"x" * 1234
    assert capsys.readouterr().out.startswith(f"{target}: 1,234 bytes, of the run that ended on 20")


def test_without_a_model_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FileStore(tmp_path / "state")
    assert main(["export", "--state-dir", str(tmp_path / "state"), "--to", str(tmp_path / "model")]) == 2
    assert "there is no trained model yet" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_state_directory_that_does_not_exist_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--state-dir", str(tmp_path / "stat"), "--to", str(tmp_path / "model")]) == 2
    assert "no such directory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_written_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FileStore(tmp_path / "state").write("model.safetensors", b"x")
    assert main(["export", "--state-dir", str(tmp_path / "state"), "--to", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"crowd: {tmp_path}: cannot be written: Is a directory\n"
