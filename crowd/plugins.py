"""Brokers, devices, policies, tasks and backends by name: entry points of what is installed, and tasks in the user's
own files.

Layout: `names` and `load` (any group), `task_function` and `make_task` (work), `broker_from_url` (the way to a broker).
"""

import functools
import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from crowd.config.data import DataConfig
from crowd.config.hints import did_you_mean
from crowd.errors import BadConfig, CrowdError
from crowd.ports import Broker
from crowd.units import DeviceId

if TYPE_CHECKING:
    from crowd.learning.task import Task

Group = Literal["crowd.brokers", "crowd.devices", "crowd.policies", "crowd.tasks", "crowd.backends"]
TaskFunction = Callable[..., "Task"]
"""A function from a device's name to its task; a built-in one takes its `crowd.tasks.partition.Partition` as well."""

GROUPS: tuple[Group, ...] = get_args(Group)

_NOUNS: dict[Group, str] = {
    "crowd.brokers": "kind of broker",
    "crowd.devices": "device",
    "crowd.policies": "policy",
    "crowd.tasks": "task",
    "crowd.backends": "backend",
}


def names(group: Group) -> tuple[str, ...]:
    """The names of all that is installed in `group`, sorted."""
    return tuple(sorted(_entries(group)))


def module_of(group: Group, name: str) -> str:
    """The module of what is installed as `name` in `group`, which is not imported. Raises `BadConfig` if there is
    none."""
    return _entry(group, name).module


def load(group: Group, name: str) -> Any:
    """The object that is installed as `name` in `group`. Raises `BadConfig` if there is none, or if its module cannot
    be imported."""
    entry = _entry(group, name)
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise BadConfig(f"the {_NOUNS[group]} {name!r} ({entry.value}) cannot be loaded: {error}") from error


def _entry(group: Group, name: str) -> EntryPoint:
    entries = _entries(group)
    if name not in entries:
        raise BadConfig(f"unknown {_NOUNS[group]} {name!r}; {did_you_mean(name, entries)}")
    return entries[name]


@functools.cache  # reads the file system, and nothing is installed meanwhile
def _entries(group: Group) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


def broker_from_url(
    url: str,
    *,
    cluster: str,
    device: DeviceId,
    username: str | None = None,
    password: str | None = None,
    ca_file: Path | None = None,
) -> Broker:
    """The access of `device` to the broker at `url`, whose scheme names the kind. Connects only when a session is
    opened. Raises `BadConfig` if the URL or what goes with it is of no use."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise BadConfig(f"broker {url!r}: expected a URL as 'mqtt://host:1883'")
    broker: Broker = load("crowd.brokers", scheme)(
        url,
        cluster=cluster,
        device=device,
        username=username,
        password=password,
        ca_file=None if ca_file is None else str(ca_file),
    )
    return broker


# --- tasks ------------------------------------------------------------------------------------------------------------


def make_task(spec: str, device: str, data: DataConfig | None = None) -> "Task":
    """The task called `spec` for `device`: a built-in one with the part of its data set that `data` names (`None`: all
    of it), a `module:function` with the data that it brings. Raises `BadConfig` if that does not work."""
    function = task_function(spec)
    if ":" in spec:
        if data is not None:
            raise BadConfig(f"[data] is for built-in tasks; {spec!r} brings its own data: leave [data] out")
        return function(device)
    from crowd.tasks.partition import Partition

    if data is None:
        return function(device, Partition())
    return function(device, Partition(kind=data.partition.value, alpha=data.alpha, part=data.part, parts=data.parts))


def task_function(spec: str) -> TaskFunction:
    """The function behind `spec`: a task's name or `module:function`, the module found from the working directory too.

    Raises `BadConfig` if there is none; one of the user's modules that raises is a `BadConfig` with its file and line,
    now and whenever the function is called.
    """
    module_name, separator, function_name = spec.partition(":")
    if not separator:
        builtin: TaskFunction = load("crowd.tasks", spec)
        return builtin
    module = _import_from_here(module_name, spec)
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise BadConfig(
            f"task {spec!r}: no function {function_name!r} in {module_name}; {did_you_mean(function_name, known)}"
        )
    return _guarded(function, spec)


def _import_from_here(name: str, spec: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise BadConfig(f"task {spec!r}: there is no module {error.name!r}, neither here nor installed") from None
        raise BadConfig(f"task {spec!r}: {_place_and_cause(error)}") from error
    except Exception as error:  # whatever the user's module raises, it is the user who can mend it
        raise BadConfig(f"task {spec!r}: {_place_and_cause(error)}") from error


def _guarded(function: TaskFunction, spec: str) -> TaskFunction:
    def guarded(*arguments: Any) -> "Task":
        from crowd.learning.task import Task

        try:
            task = function(*arguments)
        except CrowdError:
            raise
        except Exception as error:  # as above
            raise BadConfig(f"task {spec!r}: {_place_and_cause(error)}") from error
        if not isinstance(task, Task):
            raise BadConfig(f"task {spec!r}: expected it to return a crowd.Task, found {type(task).__name__}")
        return task

    return guarded


def _place_and_cause(error: Exception) -> str:
    """The line of the user's own files at which `error` arose, and what it was, in one line."""
    what = traceback.format_exception_only(error)[-1].strip().replace("\n", " ")
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
