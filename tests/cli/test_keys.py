from pathlib import Path

import pytest

from crowd.cli.main import main
from crowd.protocol.identity import read_members


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_key_is_its_owners_alone_and_its_line_fits_the_members_file(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "new", "gateway"]) == 0
    (here / "members.toml").write_text(capsys.readouterr().out)
    assert list(read_members(here / "members.toml")) == ["gateway"]
    assert (here / "gateway.key").stat().st_mode & 0o777 == 0o600


def test_a_key_is_shown_as_it_was_when_it_was_made(capsys: pytest.CaptureFixture[str]) -> None:
    main(["keys", "new", "gateway"])
    made = capsys.readouterr().out
    assert main(["keys", "show", "gateway.key"]) == 0
    assert capsys.readouterr().out == made


def test_a_key_is_never_overwritten(here: Path) -> None:
    main(["keys", "new", "gateway"])
    before = (here / "gateway.key").read_bytes()
    assert main(["keys", "new", "gateway"]) == 2
    assert (here / "gateway.key").read_bytes() == before


def test_a_name_that_no_device_may_have_makes_no_key(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "../Gateway"]) == 2
    assert list(here.iterdir()) == []
    assert "a-z, 0-9" in capsys.readouterr().err


def test_a_file_that_is_no_key_is_one_clear_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "gateway.key").write_text("secret")
    assert main(["keys", "show", "gateway.key"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
