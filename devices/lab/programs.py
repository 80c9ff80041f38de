"""Programs of the system that the lab calls: `find_program`."""

import shutil

from crowd.errors import BadConfig

SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def find_program(name: str, *, package: str) -> str:
    """The path of a program, also where the user's own path has no system directories. Raises `BadConfig` if it is not
    installed."""
    path = shutil.which(name) or shutil.which(name, path=SYSTEM_PATH)
    if path is None:
        raise BadConfig(f"the lab needs {name!r}, which is not there: install the package {package}")
    return path
