"""A device that comes when the others have finished."""

from functools import partial

import anyio
from anyio.abc import TaskGroup, TaskStatus

from tests.node.cluster import Cluster, blobs
from tests.support.virtual import virtual_time


async def switch_on(cluster: Cluster, *names: str, tasks: TaskGroup) -> None:
    """Let these devices take part and then idle, as nodes without `--once`; returns when the run is over on all."""
    async with anyio.create_task_group() as starting:
        for name in names:
            cluster.add(name, blobs(epochs_max=2))
            starting.start_soon(partial(tasks.start, _stay, cluster, name))


async def _stay(cluster: Cluster, name: str, *, task_status: TaskStatus[None]) -> None:
    with anyio.CancelScope() as cluster.scopes[name]:
        async with cluster.nodes[name] as node:
            await node.wait()
            assert node.digest is not None, "the end is told before the model is here"
            task_status.started()
            await anyio.sleep_forever()


@virtual_time
async def test_who_comes_when_the_others_idle_gets_their_model_even_if_it_had_finished_in_a_former_life() -> None:
    cluster = Cluster("ada", "ben", "cy")
    async with anyio.create_task_group() as tasks:
        await switch_on(cluster, "ada", "ben", tasks=tasks)
        cluster.unplug("ben")
        before = cluster.digests["ada"]
        for late in ("ben", "cy"):
            await switch_on(cluster, late, tasks=tasks)
            own = cluster.nodes[late].results[cluster.nodes[late].name]
            assert (own.samples_trained, own.curve) == (0, ())
        assert set(cluster.digests.values()) == {before}
        tasks.cancel_scope.cancel()
