"""Files: in a directory (`FileStore`), or in memory only (`MemoryStore`)."""

import os
import re
import tempfile
import threading
from pathlib import Path

from crowd.errors import BadConfig
from crowd.ports import Store
from crowd.whole_files import move_whole, write_whole

_PLAIN = r"[a-z0-9][a-z0-9._-]{0,99}"
_NAME = re.compile(f"({_PLAIN}/)?{_PLAIN}")


class FileStore(Store):
    """A store that keeps each name as a file in `directory`, made if it is missing (`BadConfig` if that fails).

    Only one store at a time writes to a directory; its threads may share it. A write survives a power cut once it has
    returned. A full or broken disk is an `OSError`; a name that is no plain file name of a-z, 0-9, dot, hyphen,
    underscore, perhaps in one folder of such a name, a `ValueError`.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)
        self._lock = threading.Lock()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadConfig(f"state directory {self._directory}: cannot be made: {error.strerror}") from error

    def check(self, size_bytes: int) -> None:
        try:
            with tempfile.TemporaryFile(dir=self._directory) as trial:
                os.posix_fallocate(trial.fileno(), 0, max(1, size_bytes))
        except OSError as error:
            raise BadConfig(
                f"state directory {self._directory}: {size_bytes:,} bytes cannot be written there: {error.strerror}; "
                "make room, or choose another state_dir"
            ) from error

    def write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        # No name starts with a dot, so this is nobody's; left behind by a crash, the next write replaces it.
        draft = path.with_name(f".{path.name}.new")
        with self._lock:
            if path.parent != self._directory:
                path.parent.mkdir(exist_ok=True)
            write_whole(path, data, draft=draft)

    def read(self, name: str) -> bytes | None:
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None

    def move(self, name: str, new_name: str) -> None:
        with self._lock:
            move_whole(self._path(name), self._path(new_name))

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a stored file")
        return self._directory / name


class MemoryStore(Store):
    """A store whose files are gone with the process, which is all that a demonstration or a simulation needs."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def check(self, size_bytes: int) -> None:
        """Return: there is always room in memory."""

    def write(self, name: str, data: bytes) -> None:
        self._files[name] = data

    def read(self, name: str) -> bytes | None:
        return self._files.get(name)

    def move(self, name: str, new_name: str) -> None:
        self._files[new_name] = self._files.pop(name)
