"""What people are told of a plan."""

from structlog.testing import capture_logs

from tests.node.cluster import Cluster, blobs
from tests.support.virtual import virtual_time


@virtual_time
async def test_settings_that_do_not_count_are_named_on_every_device() -> None:
    cluster = Cluster("ada", "ben", "cy")
    cluster.add("ada", blobs(epochs_max=2), members_min=3)
    cluster.add("ben", blobs(epochs_max=2), members_min=3, policy="fedavg", prefer="bytes", seed=7)
    cluster.add("cy", blobs(epochs_max=2), members_min=3)
    with capture_logs() as logs:
        await cluster.train()
    told = [entry for entry in logs if entry["event"] == "settings_without_effect"]
    assert told[0] == {
        "event": "settings_without_effect",
        "log_level": "warning",
        "of": "ben",
        "those_count_of": "ada",
        "policy": "fedavg, not crowd_learning",
        "prefer": "bytes, not time",
        "seed": "7, not 0",
    }
    assert len(told) >= 3
    assert all(entry == told[0] for entry in told)
