"""What a user's own code raises, in one line: `place_and_cause` and `blamed_on`."""

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crowd.errors import BadConfig, CrowdError


@contextmanager
def blamed_on(what: str) -> Iterator[None]:
    """Run a user's code: whatever it raises becomes a `BadConfig`, in one line, that says `what` failed, where in the
    user's own files, and why."""
    try:
        yield
    except CrowdError:
        raise
    except Exception as error:  # whatever it is, it is the user who can mend it
        raise BadConfig(f"{what}: {place_and_cause(error)}") from error


def place_and_cause(error: Exception, *, briefly: bool = False) -> str:
    """The line of the user's own files at which `error` arose, and what it was, in one line; `briefly`, only the first
    line of that."""
    said = traceback.format_exception_only(error)[-1]
    what = " ".join((said.strip().splitlines()[0] if briefly else said).split())
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{error.filename}, line {error.lineno}: {what}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_users(frame.filename):
            return f"{frame.filename}, line {frame.lineno}: {what}"
    return what


def _is_users(filename: str) -> bool:
    """Whether a file is neither this project's, nor Python's, nor an installed library's."""
    path = Path(filename)
    foreign = (Path(__file__).parent, Path(sysconfig.get_path("stdlib")))
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return path.is_file() and not installed and not any(path.is_relative_to(folder) for folder in foreign)
