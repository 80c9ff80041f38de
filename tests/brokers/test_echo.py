"""A device that may say something and hear nothing, against a real Mosquitto."""

import pytest
from structlog.testing import capture_logs

from brokers import echo, mqtt
from crowd.units import Channel
from tests.brokers.talk import ANNA, letter, of, take
from tests.support.mosquitto import Mosquitto

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("access", "is_told"), [("write", True), ("readwrite", False)])
async def test_an_access_list_that_lets_a_device_read_nothing_is_told_once_with_the_topic(
    access: str, is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(echo, "ECHO_AFTER_S", 0.0)
    beat, own = of(Channel.BEAT, ANNA), f"topic {access} crowd/1/home/node/+/beat\ntopic readwrite crowd/1/home/to/#\n"
    with Mosquitto(users={ANNA: "a"}, acl=f"user anna\n{own}") as mosquitto:
        async with mqtt.from_url(
            mosquitto.url, cluster="home", device=ANNA, username=ANNA, password="a", ca_file=None
        ).session() as anna:
            await anna.subscribe(beat, letter(None, ANNA))
            with capture_logs() as logs:
                await anna.publish(beat, b"1")
                if not is_told:
                    await take(anna)
                await anna.publish(beat, b"2")
                await anna.publish(beat, b"3")
    told = [entry["topic"] for entry in logs if entry["event"] == "nothing_comes_back"]
    assert told == ["crowd/1/home/node/anna/beat"] * is_told
