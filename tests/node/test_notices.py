"""What every device tells people of others, once a minute at most: who has gone from its view, and who speaks in a
former life."""

from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from crowd.actors.planner.notices import Notices
from crowd.agreement.ack import Ack, StateProgress
from crowd.protocol.messages import AckMessage, ProbeRequest
from crowd.units import Life, device_id
from tests.node.cluster import Cluster, blobs, round_of
from tests.support.virtual import virtual_time

NAMES = ("ada", "ben", "cy", "dan", "eve", "fay")
"""Three watch each of them, and two do not."""
ANNA, BEN = device_id("anna"), device_id("ben")


async def part_with_dan(*, in_peace: bool) -> list[Any]:
    """What the devices log of dan, who is unplugged in a run, or leaves."""
    cluster = Cluster(*NAMES)
    for name in NAMES:
        cluster.add(name, blobs(50, target=1.0, epochs_max=12), members_min=len(NAMES))

    async def part() -> None:
        await round_of(cluster.nodes["ada"], 3)
        if in_peace:
            cluster.scopes["dan"].cancel()
        else:
            cluster.unplug("dan")

    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(part)
            await cluster.train()
    return [log for log in logs if log.get("departed") == "dan"]


@virtual_time
async def test_all_others_say_that_a_device_has_gone_and_who_has_found_that() -> None:
    said = await part_with_dan(in_peace=False)
    assert [log["event"] for log in said] == ["device_evicted"] * 5
    found = [log for log in said if "reason" in log]
    told = [log["told_by"] for log in said if "told_by" in log]
    assert 1 <= len(found) <= 3
    assert len(found) + len(told) == 5
    assert set(told) < set(NAMES) - {"dan"}


@virtual_time
async def test_who_leaves_in_peace_is_said_to_have_left() -> None:
    said = await part_with_dan(in_peace=True)
    assert [(log["event"], log["log_level"]) for log in said] == [("device_left", "info")] * 5


@virtual_time
async def test_a_device_that_goes_again_and_again_is_told_of_once_a_minute() -> None:
    notices = Notices()
    with capture_logs() as logs:
        for second in range(121):
            notices.gone(ANNA, told_by=BEN)
            if second == 30:
                notices.gone(BEN, reason="it did not answer")
            await anyio.sleep(1)
    assert [log["departed"] for log in logs] == ["anna", "ben", "anna", "anna"]


@pytest.mark.parametrize("how", [{"reason": "it did not answer"}, {"told_by": "ben"}])
@virtual_time
async def test_how_it_is_known_is_in_the_log(how: dict[str, str]) -> None:
    with capture_logs() as logs:
        Notices().gone(ANNA, **how)
    assert logs == [{"event": "device_evicted", "log_level": "warning", "departed": "anna", **how}]


@virtual_time
async def test_what_a_former_life_said_to_one_is_told_of_once_a_minute_and_what_the_broker_keeps_is_not() -> None:
    notices = Notices()
    ack = Ack(
        device=ANNA,
        life=Life(incarnation=1, boot=bytes(16)),
        generation=1,
        view_digest=bytes(16),
        plan_digest=bytes(16),
        progress=StateProgress(),
    )
    with capture_logs() as logs:
        for nonce in range(61):
            notices.former_life(BEN, AckMessage(ack=ack))
            notices.former_life(ANNA, ProbeRequest(nonce=nonce))
            await anyio.sleep(1)
    assert [(log["event"], log["of"]) for log in logs] == [("former_life_heard", "anna")] * 2
