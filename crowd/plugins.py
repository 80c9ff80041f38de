"""Brokers, devices, policies, tasks and the like by name: entry points of what is installed, and tasks in the user's
own files.

Layout: `PluginGroup` (the plug-ins of one kind) and one for each kind, `broker_from_url` (the way to a broker),
`task_function` and `make_task` (work).
"""

import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

import attrs

from crowd.config.cluster_file import DeviceKind
from crowd.config.data import DataConfig
from crowd.config.hints import did_you_mean
from crowd.errors import BadConfig
from crowd.planning.policy import Policy
from crowd.ports import Broker, Device, Store
from crowd.units import DeviceId
from crowd.user_code import blamed_on, place_and_cause

if TYPE_CHECKING:
    from crowd.learning.task import Task

T = TypeVar("T")


@attrs.frozen(eq=False)
class PluginGroup(Generic[T]):
    """All installed plug-ins of one kind; each is found by the name of its entry point."""

    entry_points: str
    """The name of the entry-point group."""
    noun: str
    """The words for a plug-in of this kind in errors."""
    kind: str
    """The kind of object that a plug-in must be, for errors."""
    fits: Callable[[Any], bool]
    """Whether an object may be such a plug-in."""

    def names(self) -> tuple[str, ...]:
        """The names of the installed plug-ins, sorted."""
        return tuple(sorted(_entries(self.entry_points)))

    def module_of(self, name: str) -> str:
        """The module of the plug-in called `name`, which is not imported. Raises `BadConfig` if there is none."""
        return self._entry(name).module

    def load(self, name: str) -> T:
        """The plug-in called `name`. Raises `BadConfig` if there is none, if its module cannot be imported, or if it is
        of another kind."""
        entry = self._entry(name)
        try:
            plugin = entry.load()
        except (ImportError, AttributeError) as error:
            hint = _hidden_by_a_file_here(getattr(error, "name", None) or entry.module)
            raise BadConfig(f"the {self.noun} {name!r} ({entry.value}) cannot be loaded: {error}{hint}") from error
        if not self.fits(plugin):
            raise BadConfig(f"the {self.noun} {name!r} ({entry.value}) is no {self.kind}")
        return cast(T, plugin)

    def _entry(self, name: str) -> EntryPoint:
        entries = _entries(self.entry_points)
        if name not in entries:
            raise BadConfig(f"unknown {self.noun} {name!r}; {did_you_mean(name, entries)}")
        return entries[name]


@functools.cache  # reads the file system, and nothing is installed meanwhile
def _entries(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


def subclass_of(base: type) -> Callable[[Any], bool]:
    """Whether an object is a class derived from `base`: for `PluginGroup.fits`."""
    return lambda plugin: isinstance(plugin, type) and issubclass(plugin, base)


class BrokerFactory(Protocol):
    """Makes the access of a device to the broker at a URL of one scheme. Connects to nothing yet; raises `BadConfig` if
    the URL or what goes with it is of no use."""

    def __call__(
        self,
        url: str,
        *,
        cluster: str,
        device: DeviceId,
        username: str | None = None,
        password: str | None = None,
        ca_file: str | None = None,
        slower: float = 1.0,
    ) -> Broker: ...


class LinkFactory(Protocol):
    """Puts the broker `inner` behind a link of these rates, both above 0."""

    def __call__(self, inner: Broker, *, uplink_bytes_s: int, downlink_bytes_s: int) -> Broker: ...


TaskFunction = Callable[..., "Task"]
"""A function from a device's name to its task; a built-in one takes its `crowd.tasks.partition.Partition` as well."""

brokers: PluginGroup[BrokerFactory] = PluginGroup("crowd.brokers", "kind of broker", "function", callable)
"""Brokers, by the scheme of their URLs."""
links: PluginGroup[LinkFactory] = PluginGroup("crowd.links", "kind of link", "subclass of Broker", subclass_of(Broker))
"""Brokers as slow as an emulated device's link."""
devices: PluginGroup[Callable[[], Device]] = PluginGroup("crowd.devices", "device", "function", callable)
"""Devices that a node may be, by the key `device` of its `node.toml`; each is made by a function that takes nothing."""
emulators: PluginGroup[Callable[[int, int], Device]] = PluginGroup(
    "crowd.emulators", "emulated device", "function", callable
)
"""Emulated devices, each made from a speed in kFLOP/s and its free memory in bytes."""
stores: PluginGroup[Callable[..., Store]] = PluginGroup(
    "crowd.stores", "kind of store", "subclass of Store", subclass_of(Store)
)
"""Stores: `file` takes a directory; `memory` takes nothing."""
catalogs: PluginGroup[Callable[[], Mapping[str, DeviceKind]]] = PluginGroup(
    "crowd.catalogs", "catalog", "function", callable
)
"""Catalogs of kinds of devices, by name."""
policies: PluginGroup[type[Policy]] = PluginGroup("crowd.policies", "policy", "subclass of Policy", subclass_of(Policy))
"""Policies, by name."""
tasks: PluginGroup[TaskFunction] = PluginGroup("crowd.tasks", "task", "function", callable)
"""Built-in tasks, by name."""

GROUPS: tuple[PluginGroup[Any], ...] = (brokers, links, devices, emulators, stores, catalogs, policies, tasks)
"""All kinds but the backends, which experiments alone need (`crowd.experiment.experiment.backends`)."""


def broker_from_url(
    url: str,
    *,
    cluster: str,
    device: DeviceId,
    username: str | None = None,
    password: str | None = None,
    ca_file: Path | None = None,
    slower: float = 1.0,
) -> Broker:
    """The access of `device` to the broker at `url`, whose scheme names the kind; `slower` is how many times slower
    than the broker's the clock of this event loop goes. Connects only when a session is opened. Raises `BadConfig` if
    the URL or what goes with it is of no use."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise BadConfig(f"broker {url!r}: expected a URL as 'mqtt://host:1883'")
    return brokers.load(scheme)(
        url,
        cluster=cluster,
        device=device,
        username=username,
        password=password,
        ca_file=None if ca_file is None else str(ca_file),
        slower=slower,
    )


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
        return tasks.load(spec)
    module = _import_from_here(module_name, spec)
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise BadConfig(
            f"task {spec!r}: no function {function_name!r} in {module_name}; {did_you_mean(function_name, known)}"
            f"{_files_hidden_here()}"
        )
    return _guarded(function, spec)


def _import_from_here(name: str, spec: str) -> Any:
    for package in _names_taken_here():
        importlib.import_module(package)  # or what is here would be found in its place from now on
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


def task_of(function: TaskFunction, device: str) -> "Task":
    """The task that an application's own `function` makes for `device`; what it raises passes through. Raises
    `BadConfig` if it is no function, or makes no task."""
    if not callable(function):
        raise BadConfig(
            f"task: expected a function from a device's name to its Task, found a {type(function).__name__}"
        )
    return _checked(function(device), "task")


def _guarded(function: TaskFunction, spec: str) -> TaskFunction:
    def guarded(*arguments: Any) -> "Task":
        try:
            with blamed_on(f"task {spec!r}"):
                task = function(*arguments)
        except BadConfig as error:
            raise BadConfig(f"{error}{_hint(error.__cause__)}") from error
        return _checked(task, f"task {spec!r}")

    return guarded


def _checked(task: Any, what: str) -> "Task":
    from crowd.learning.task import Task

    if not isinstance(task, Task):
        raise BadConfig(f"{what}: expected it to return a crowd.Task, found {type(task).__name__}")
    return task


def _place_and_cause(error: Exception) -> str:
    return place_and_cause(error) + _hint(error)


def _hint(cause: BaseException | None) -> str:
    """What may explain `cause` beyond itself; empty if nothing is known."""
    return _files_hidden_here() if isinstance(cause, ImportError | AttributeError) else ""


def _names_taken_here() -> list[str]:
    """The packages of plug-ins for whose names there is a file or folder in the working directory too."""
    packages = {entry.module.partition(".")[0] for group in GROUPS for entry in _entries(group.entry_points).values()}
    return sorted(name for name in packages if Path(f"{name}.py").is_file() or Path(name).is_dir())


def _is_from_here(package: str) -> bool:
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return Path(file) in (Path.cwd() / f"{package}.py", Path.cwd() / package / "__init__.py")


def _files_hidden_here() -> str:
    """A hint for whoever imports a file of his own and gets a package of the same name; empty if there is none."""
    hidden = [name for name in _names_taken_here() if not _is_from_here(name)]
    return f"; {hidden[0]!r} is a package of crowd too, which is found first: rename yours" if hidden else ""


def _hidden_by_a_file_here(module: str) -> str:
    """A hint for whoever has a file of the name of a package that `module` is in; empty if it is not hidden."""
    package = module.partition(".")[0]
    return (
        f"; your own {package!r} here is found first: rename it, or start elsewhere" if _is_from_here(package) else ""
    )
