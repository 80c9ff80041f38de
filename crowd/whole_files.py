"""Files that are replaced as a whole: `write_whole`, `move_whole`."""

import os
from pathlib import Path


def write_whole(path: Path, data: bytes, *, draft: Path) -> None:
    """Write `data` to `path`: whoever reads it, now or after a power cut, finds what was there before or all of this,
    and this once the call has returned. Only its owner may read it.

    It is written to `draft` first, in the same folder: a name that nobody else writes to meanwhile. What a power cut
    left there is replaced. Raises `OSError`, and leaves no draft then.
    """
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def move_whole(path: Path, new_path: Path) -> None:
    """Move a file within its folder, in place of what is there; it has moved for good once the call has returned.
    Raises `OSError`."""
    os.replace(path, new_path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Without this the rename itself may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
