"""A node that looks by itself whether its data have changed."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from crowd.cli.new_data import LOOK_S, READING_PARTS, NewData
from crowd.node import Node
from tests.node.growing import AFTER, BEFORE, Growing, counts, first
from tests.node.living import Living
from tests.support.virtual import virtual_time


@virtual_time
async def test_a_node_looks_once_a_minute_and_says_once_what_it_cannot_train() -> None:
    ada = Growing(first(BEFORE))
    async with Living(tasks={"ada": ada}) as living:
        node = living.cluster.nodes["ada"]
        await living.over(1)
        with capture_logs() as logs:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(NewData(node).watch)
                for data in (first(AFTER), 7, 7, first(BEFORE), 7):
                    ada.data, reads = data, ada.reads
                    await anyio.sleep(LOOK_S + 1)
                    assert ada.reads == reads + 1
                tasks.cancel_scope.cancel()
        told = [line["event"] for line in logs if line["event"] in ("data_changed", "new_data_refused")]
        assert told == ["data_changed", "new_data_refused", "data_changed", "new_data_refused"]
        assert counts(node) == BEFORE


class SlowDisk:
    """Makes a node's data take so long to read."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.began_s: list[float] = []
        """When each reading began."""
        compute = node._device.compute
        run_aside, self._seconds = compute.run_aside, seconds

        async def slowly(work: Callable[[], Any], *, queue: str = "disk") -> Any:
            if queue == "data":
                self.began_s.append(anyio.current_time())
                await anyio.sleep(self._seconds)
            return await run_aside(work, queue=queue)

        monkeypatch.setattr(compute, "run_aside", slowly)


@virtual_time
async def test_where_reading_is_slow_a_node_looks_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Living() as living:
        node = living.cluster.nodes["ada"]
        await living.over(1)
        disk = SlowDisk(node, monkeypatch, 5)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(NewData(node).watch)
            await anyio.sleep(2000)
            tasks.cancel_scope.cancel()
        assert min(later - earlier for earlier, later in pairwise(disk.began_s)) >= 5 * READING_PARTS


@virtual_time
async def test_what_was_read_when_a_run_began_waits_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ada = Growing(first(BEFORE))
    async with Living(tasks={"ada": ada}) as living:
        node = living.cluster.nodes["ada"]
        await living.over(1)
        disk = SlowDisk(node, monkeypatch, 1)
        ada.data = first(AFTER)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(NewData(node).watch)
            await anyio.sleep(LOOK_S + 0.5)
            await living.cluster.nodes["ben"].train()
            await living.over(2)
            assert counts(node) == BEFORE
            await anyio.sleep(5)
            assert len(disk.began_s) == 2, "once more, when the run was over"
            await node.train()
            await living.over(3)
            assert counts(node) == AFTER
            tasks.cancel_scope.cancel()


@virtual_time
async def test_who_asks_for_a_run_waits_for_a_look_that_began_since_but_not_for_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Living() as living:
        node = living.cluster.nodes["ada"]
        await living.over(1)
        disk, new_data = SlowDisk(node, monkeypatch, 1), NewData(node)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(new_data.watch)
            await anyio.sleep(LOOK_S + 0.5)
            asked_s = anyio.current_time()
            await new_data.look_now()
            assert asked_s < disk.began_s[-1] == anyio.current_time() - 1
            disk.began_s.clear()
            async with anyio.create_task_group() as asking:
                asking.start_soon(new_data.look_now)
                await anyio.sleep(0.5)
                await living.cluster.nodes["ben"].train()
                await node.begun()
            assert len(disk.began_s) == 1
            assert not node.is_over
            tasks.cancel_scope.cancel()
