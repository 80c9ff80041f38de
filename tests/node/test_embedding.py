"""A node inside somebody's own application."""

import threading
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import anyio
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from brokers.memory import InProcessBroker, MemoryBroker
from crowd.config.node_file import NodeConfig
from crowd.errors import BadConfig
from crowd.node import Node
from crowd.ports import Device
from crowd.progress import Progress
from crowd.protocol.identity import ephemeral_signers
from crowd.units import device_id
from devices.sensors import FixedSensor
from devices.store import MemoryStore
from devices.torch_compute import TorchCompute
from tests.node.cluster import CLUSTER, Cluster, blobs, round_of
from tests.support.virtual import virtual_time


def two() -> Cluster:
    cluster = Cluster("ada", "ben")
    for name in ("ada", "ben"):
        cluster.add(name, blobs())
    return cluster


@virtual_time
async def test_a_node_leaves_promptly_with_its_application_and_leaves_nothing_running() -> None:
    cluster = two()
    before = {task.id for task in anyio.get_running_tasks()}
    async with anyio.create_task_group() as application:
        application.start_soon(cluster.train)
        await round_of(cluster.nodes["ada"], 2)
        cancelled_s = anyio.current_time()
        application.cancel_scope.cancel()
    assert anyio.current_time() - cancelled_s <= 1.0
    assert {task.id for task in anyio.get_running_tasks()} == before


@virtual_time
async def test_a_node_that_leaves_says_goodbye_so_that_the_others_need_not_wait_for_it() -> None:
    cluster = two()
    left_s = 0.0

    async def leave() -> None:
        nonlocal left_s
        async with cluster.nodes["ben"]:
            await round_of(cluster.nodes["ben"], 2)
        left_s = anyio.current_time()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        tasks.start_soon(cluster.train, "ada")
        alone = await when(cluster.nodes["ada"], lambda news: news.round > 0 and len(members(news)) == 1)
        assert anyio.current_time() - left_s < 1.0
    assert members(alone) == ["ada"]
    assert cluster.nodes["ada"].digest is not None


async def when(node: Node, wanted: Callable[[Progress], bool]) -> Progress:
    async with aclosing(node.progress()) as news:
        async for progress in news:
            if wanted(progress):
                return progress
    raise AssertionError("the run ended before")


def members(progress: Progress) -> list[str]:
    return [] if progress.plan is None else [member.device for member in progress.plan.members]


@virtual_time
async def test_an_error_of_the_application_passes_through_the_node() -> None:
    cluster = two()
    with pytest.raises(ZeroDivisionError):
        async with cluster.nodes["ada"]:
            _ = 1 / 0


@virtual_time
async def test_progress_tells_of_every_round_in_order_and_of_the_end() -> None:
    cluster = two()
    told: list[Progress] = []

    async def listen() -> None:
        told.extend([progress async for progress in cluster.nodes["ada"].progress()])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await cluster.train()
    rounds = [progress.round for progress in told if progress.round]
    assert rounds == list(range(1, rounds[-1] + 1))
    assert [progress.finished for progress in told] == [False] * (len(told) - 1) + [True]
    assert told[-1].value is not None
    assert told[-1].value >= 0.87
    assert told[-1].bytes_up > told[0].bytes_up
    assert [progress.elapsed_s for progress in told] == sorted(progress.elapsed_s for progress in told)


@virtual_time
async def test_a_slow_listener_holds_nothing_up_and_learns_of_the_end() -> None:
    cluster = two()
    told: list[Progress] = []

    async def listen() -> None:
        async for progress in cluster.nodes["ada"].progress():
            told.append(progress)
            await anyio.sleep(30)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await cluster.train()
        assert anyio.current_time() < 30  # the listener is at its first news
        assert len(told) == 1
    assert told[-1].finished


@virtual_time
async def test_the_model_is_there_from_the_first_round_on_and_says_whether_it_is_the_one_that_stays() -> None:
    cluster = two()
    ada = cluster.nodes["ada"]
    with pytest.raises(RuntimeError, match="no round is complete yet"):
        _ = ada.model
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cluster.train)
        await when(ada, lambda news: news.plan is not None)
        with pytest.raises(RuntimeError, match="no round is complete yet"):
            _ = ada.model
        news = await round_of(ada, 2)
        early, before = ada.model, ada.trained
        assert (before.is_final, before.round, before.digest) == (False, 2, news.digest)
    assert not early.training
    assert (ada.trained.is_final, ada.trained.digest) == (True, ada.digest)
    assert not torch.equal(early[0].weight, ada.model[0].weight)  # type: ignore[index]  # a sequence of layers
    assert not ada.model.training
    assert ada.model is not ada.model  # the caller's own, to do with as he likes


@virtual_time
async def test_who_listens_or_waits_after_the_end_is_not_kept_waiting() -> None:
    cluster = two()
    await cluster.train()
    await cluster.nodes["ada"].wait()
    assert [progress async for progress in cluster.nodes["ada"].progress()] == []


def test_a_node_without_its_accelerator_says_so_before_it_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    cluster = Cluster("ada")
    node = cluster.add("ada", blobs(), compute=TorchCompute("cuda"))

    async def main() -> None:
        async with node:
            pass

    with pytest.raises(BadConfig, match=r"^device = 'cuda': this PyTorch has no accelerator here"):
        anyio.run(main)
    assert cluster.hub.published == []


class Recorder(TorchDispatchMode):
    """The names of the operations that torch carries out in the thread that entered this mode."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated by torch
        self.operations: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert threading.current_thread() is threading.main_thread()
        self.operations.append(str(func))
        return func(*args, **(kwargs or {}))


def test_no_operation_of_torch_runs_on_the_event_loop() -> None:
    hub = InProcessBroker()
    names = [device_id("ada"), device_id("ben")]
    signers = ephemeral_signers(names)
    nodes = [
        Node(
            NodeConfig(name=name, cluster=CLUSTER, broker="memory://test"),
            task=blobs(),
            device=Device(compute=TorchCompute(), sensor=FixedSensor(memory_free_bytes=1 << 30)),
            broker=MemoryBroker(hub, name, cluster=CLUSTER),
            signer=signers[name],
            store=MemoryStore(),
        )
        for name in names
    ]

    async def play(node: Node) -> None:
        async with node:
            await node.wait()

    async def main() -> None:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for node in nodes:
                    tasks.start_soon(play, node)

    with Recorder() as recorder:
        torch.ones(1)
        assert len(recorder.operations) == 1  # it does see
        recorder.operations.clear()
        anyio.run(main)
    assert nodes[0].digest is not None
    assert nodes[0].digest == nodes[1].digest
    assert recorder.operations == []
