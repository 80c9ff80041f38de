"""Devices that stay when a run is over: `Living`; what their runs began with (`Starts`), by which clock (`Clock`)."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import torch

from crowd.actors.probe import Probe
from crowd.agreement.state import Active
from crowd.errors import BrokerLost
from crowd.node import Node, TaskFunction
from devices.sensors import FixedSensor
from devices.store import MemoryStore
from tests.node.cluster import LIMIT_S, Cluster, blobs

NAMES = ("ada", "ben", "cy")
FEW: Mapping[str, Any] = {"target": None, "epochs_max": 3}
"""A run of a few rounds, that keeps its best state."""


NOON = datetime(2026, 11, 30, 12).astimezone()


class Clock(FixedSensor):
    """The local time of a device where it is noon when the virtual clock begins."""

    def local_time(self) -> datetime:
        return NOON + timedelta(seconds=anyio.current_time())


class Starts(Probe):
    """Remembers from what each run began: the number of the run, and of that whose model it goes on with."""

    def __init__(self) -> None:
        self.bases: list[tuple[int, int]] = []
        self.failures = 0
        """How often yet an actor fails when a plan begins."""

    def activated(self, active: Active) -> None:
        if self.failures:
            self.failures -= 1
            raise BrokerLost("as if it were")
        if not active.start.finished and (active.start.run, active.start.base) not in self.bases:
            self.bases.append((active.start.run, active.start.base))


class Living:
    """Devices that stay when a run is over."""

    def __init__(
        self,
        *names: str,
        policy: str = "crowd_learning",
        train: Mapping[str, Any] | None = None,
        tasks: Mapping[str, TaskFunction] | None = None,
        **task: Any,
    ) -> None:
        """`train` are keys of each `node.toml`; `tasks` of some devices take the place of `blobs(**task)`."""
        self.cluster = Cluster(*NAMES)
        self.starts = Starts()
        self.disks = {name: MemoryStore() for name in NAMES}
        self._names, self._task, self._tasks_of = names or NAMES, dict(task or FEW), dict(tasks or {})
        self._train: dict[str, Any] = {"members_min": 2, "policy": policy} | dict(train or {})
        self._leave = anyio.Event()

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        for name in self._names:
            self.switch_on(name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._leave.set()
        return await self._tasks.__aexit__(kind, error, traceback)

    def switch_on(self, name: str, *, start: Path | None = None) -> Node:
        node = self.cluster.add(
            name,
            self._tasks_of.get(name) or blobs(**self._task),
            store=self.disks[name],
            probe=self.starts,
            start=start,
            sensor=Clock(memory_free_bytes=1 << 30),
            **self._train,
        )
        self._tasks.start_soon(self._stay, name)
        return node

    async def _stay(self, name: str) -> None:
        with anyio.CancelScope() as self.cluster.scopes[name]:
            async with self.cluster.nodes[name]:
                await self._leave.wait()

    def switch_off(self, name: str) -> None:
        self.cluster.unplug(name)
        del self.cluster.nodes[name]

    async def over(self, run: int) -> tuple[str, float | None]:
        """Wait until that run is over on all devices; the digest and the value of the one model that they have then."""
        nodes = self.cluster.nodes.values()
        with anyio.fail_after(LIMIT_S):
            for node in nodes:
                await node.wait()
                while node.run < run:
                    await node.begun()
                    await node.wait()
        (result,) = {(node.digest, node.results[node.name].value) for node in nodes}
        assert {node.results[node.name].progress.run for node in nodes} == {run}
        assert result[0] is not None
        return result[0], result[1]


def weights(node: Node) -> torch.Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in node.model.parameters()])
