"""A model that cannot be saved when the run ends."""

from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from crowd.config.node_file import MODEL_FILE
from crowd.errors import BadConfig
from devices.store import FileStore
from tests.node.cluster import Cluster, blobs, round_of
from tests.support.virtual import virtual_time


def pair(store: FileStore) -> Cluster:
    cluster = Cluster("ada", "ben")
    cluster.add("ada", blobs(epochs_max=4), store=store)
    cluster.add("ben", blobs(epochs_max=4))
    return cluster


@virtual_time
async def test_a_store_that_fails_at_the_end_costs_nobody_the_run_and_the_model_waits_for_another_try(
    tmp_path: Path,
) -> None:
    state_dir, away = tmp_path / "state", tmp_path / "away"
    cluster = pair(FileStore(state_dir))

    async def take_the_disk_away() -> None:
        await round_of(cluster.nodes["ada"], 1)
        state_dir.rename(away)

    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take_the_disk_away)
            await cluster.train()
    ada, ben = cluster.nodes.values()
    assert [log["event"] for log in logs if log["event"] == "model_not_saved"] == ["model_not_saved"]
    assert ada.digest == ben.digest is not None
    assert (ada.trained.is_saved, ben.trained.is_saved) == (False, True)
    with pytest.raises(FileNotFoundError):
        ada.trained.save()
    away.rename(state_dir)
    ada.trained.save()
    assert ada.trained.is_saved
    assert (state_dir / MODEL_FILE).read_bytes() == ben.trained.to_bytes()


@virtual_time
async def test_a_store_without_room_for_the_model_is_found_before_the_run(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "state")
    cluster = pair(store)
    (tmp_path / "state").rmdir()
    with pytest.raises(BadConfig, match=r"state directory .* cannot be written there"):
        async with cluster.nodes["ada"]:
            raise AssertionError("it has begun")
