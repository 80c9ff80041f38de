"""One scenario, from its beginning to its end or to the first thing that is wrong: `play`, and the `Report` of it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from unittest import mock

import anyio
import attrs
import structlog
import torch

import crowd.actors.planner.decisions
import crowd.learning.rereading
import crowd.learning.work
from crowd.learning.own_data import DataSet, OwnData
from crowd.learning.rereading import check
from crowd.learning.task import Task
from crowd.learning.work import Work, prepare
from crowd.planning.plan import Plan
from crowd.planning.policy import Policy, decide
from crowd.planning.profile import Profile
from crowd.protocol.transfer import manifest, transfers
from crowd.units import DeviceId
from devices.simulation.virtual_time import PROCESS, Deadlock, Livelock, VirtualTimeLoop
from tests.simulation.bounds import Logs
from tests.simulation.checks import Lessons
from tests.simulation.cluster import Cluster
from tests.simulation.observer import Observer
from tests.simulation.scenario import Scenario
from tests.simulation.work import Told

torch.set_num_threads(1)


@attrs.frozen(kw_only=True)
class Report:
    """What a scenario came to."""

    findings: tuple[str, ...]
    simulated_s: float
    device_s: float
    """Summed over all devices, while they were switched on."""
    rounds: int
    """Completed by the device that completed the most."""
    generations: int
    messages: int
    shown: int
    """Samples in training steps."""
    faults: dict[str, int]
    dropped: dict[str, int]
    events: dict[str, int]


def play(scenario: Scenario) -> Report:
    """The same scenario takes the same course each time, bit for bit."""
    observer = Observer(scenario)
    cluster: Cluster

    simulated_s = 0.0

    async def main() -> None:
        nonlocal cluster, simulated_s
        cluster = Cluster(scenario, observer)
        try:
            await cluster.run()
        finally:
            simulated_s = anyio.current_time()

    with (
        _logs_to(observer.logs),
        _cut_into(scenario.chunk_bytes),
        mock.patch.object(crowd.learning.work, "prepare", partial(_prepare, observer.lessons)),
        mock.patch.object(crowd.learning.rereading, "check", _check),
        mock.patch.object(crowd.actors.planner.decisions, "decide", _Decisions()),
    ):
        try:
            anyio.run(main, backend="asyncio", backend_options={"loop_factory": VirtualTimeLoop})
        except (Deadlock, Livelock) as stuck:
            observer.findings.add(str(stuck))
    return Report(
        findings=tuple(observer.findings.texts),
        simulated_s=simulated_s,
        device_s=sum(process.on_s for process in cluster.processes),
        rounds=max(observer.agreement.rounds.values(), default=0),
        generations=len(observer.agreement.generations),
        messages=sum(observer.wire.messages.values()),
        shown=observer.lessons.shown,
        faults=dict(cluster.injected),
        dropped=dict(cluster.network.dropped),
        events=dict(observer.logs.events),
    )


@contextmanager
def _logs_to(logs: Logs) -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(processors=[logs], wrapper_class=structlog.make_filtering_bound_logger(0))
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def _cut_into(chunk_bytes: int | None) -> Iterator[None]:
    with ExitStack() as stack:
        if chunk_bytes is not None:
            for module, name in ((manifest, "INLINE_BYTES_MAX"), (manifest, "CHUNK_BYTES"), (transfers, "CHUNK_BYTES")):
                stack.enter_context(mock.patch.object(module, name, chunk_bytes))
        yield


# --- what would be worked out again and again -------------------------------------------------------------------------

_works: dict[tuple[object, ...], Work] = {}


class _ToldData(OwnData):
    """Tells `lessons` which data the device has."""

    def __init__(self, first: DataSet, lessons: Lessons) -> None:
        super().__init__(first)
        self._lessons, self._device = lessons, DeviceId(PROCESS.get())

    def put(self, latest: DataSet) -> None:
        super().put(latest)
        self._lessons.data_put(self._device)


def _prepare(lessons: Lessons, task: Task, *, memory_bytes: int) -> Work:
    """As production does, but only once for the same data set: most of a short simulation would be spent on it."""
    key = (task.data, task.name, task.epochs_max, task.target, task.patience)
    if key not in _works:
        _works[key] = prepare(task, memory_bytes=memory_bytes)
    work = _works[key]
    return attrs.evolve(work, own=_ToldData(work.own.present, lessons))  # the data may become others, here alone


def _check(task: Task, work: Work, found: DataSet) -> None:
    """As production does, but nobody listens to the network that is only tried."""
    with mock.patch.object(Told, "deaf", new=True):
        check(task, work, found)


class _Decisions:
    """Policies are pure, so what one device has worked out holds for all that ask the very same."""

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[Profile, ...], frozenset[DeviceId]], Plan] = {}

    def __call__(
        self, living: tuple[Profile, ...], policies: Mapping[str, Policy], suspended: frozenset[DeviceId]
    ) -> Plan:
        if (living, suspended) not in self._known:
            self._known[living, suspended] = decide(living, policies, suspended)
        return self._known[living, suspended]
