import os
import resource
from pathlib import Path

import pytest

from crowd.errors import BadConfig
from devices.store import FileStore, MemoryStore


def test_what_was_written_is_read_by_another_store_on_the_same_directory(tmp_path: Path) -> None:
    FileStore(tmp_path / "deep" / "state").write("model.safetensors", b"abc")
    assert FileStore(tmp_path / "deep" / "state").read("model.safetensors") == b"abc"


def test_a_name_that_was_never_written_has_no_content(tmp_path: Path) -> None:
    assert FileStore(tmp_path).read("model.safetensors") is None


def test_a_later_write_replaces_all_of_an_earlier_one(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.write("state", b"long content")
    store.write("state", b"short")
    assert store.read("state") == b"short"


def test_a_write_that_is_cut_short_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(tmp_path)
    store.write("state", b"old")

    def power_cut(*_: object) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", power_cut)
        with pytest.raises(OSError, match="power cut"):
            store.write("state", b"new")
    assert FileStore(tmp_path).read("state") == b"old"


def test_what_a_cut_short_write_left_behind_is_gone_after_the_next(tmp_path: Path) -> None:
    (tmp_path / ".state.new").write_bytes(b"rest of a long write")
    FileStore(tmp_path).write("state", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_only_the_owner_may_read_a_stored_file(tmp_path: Path) -> None:
    FileStore(tmp_path).write("state", b"")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../state", "a/b/c", "a/", "/a", "a/../b", ".hidden", "a\0b", "State", "a" * 101]
)
def test_a_name_cannot_leave_the_directory(tmp_path: Path, name: str) -> None:
    store = FileStore(tmp_path)
    with pytest.raises(ValueError, match="name of a stored file"):
        store.write(name, b"")
    with pytest.raises(ValueError, match="name of a stored file"):
        store.read(name)


def test_a_directory_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadConfig, match=r"state directory .*: cannot be made: Not a directory"):
        FileStore(tmp_path / "file" / "state")


def test_a_store_in_memory_keeps_the_latest_content_of_each_name_to_itself() -> None:
    store = MemoryStore()
    store.write("state", b"old")
    store.write("state", b"new")
    assert (store.read("state"), store.read("other"), MemoryStore().read("state")) == (b"new", None, None)


def test_what_has_no_room_is_known_before_and_nothing_is_left_of_the_trial(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        store.check(8192)
        with pytest.raises(
            BadConfig, match=r"state directory .*: 8,193 bytes cannot be written there: File too large; "
        ):
            store.check(8193)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_which_nothing_can_be_written_is_one_clear_line() -> None:
    with pytest.raises(
        BadConfig, match=r"^state directory /proc: 0 bytes cannot be written there: .*another state_dir$"
    ):
        FileStore("/proc").check(0)
