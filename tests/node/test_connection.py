"""The connection to the broker: what it waits for, what ends it, and how it goes on."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest
from structlog.testing import capture_logs

from brokers import mqtt
from brokers.memory import InProcessBroker, MemoryBroker
from crowd.actors.data_mover.connection import RECONNECT_PAUSE_S_MAX, STEADY_S, Connection, OutboxItem
from crowd.errors import BrokerRefused, innermost
from crowd.ports import Broker, Will
from crowd.units import Address, Channel, device_id
from tests.support.mosquitto import Mosquitto
from tests.support.virtual import virtual_time

ANNA, BEN = device_id("anna"), device_id("ben")
STATUS = Address(channel=Channel.STATUS, source=ANNA)
TO_BEN = Address(channel=Channel.TO, source=ANNA, destination=BEN)
CHUNK = Address(channel=Channel.BLOB, source=ANNA, name="t-0", chunk=0)
PATIENCE_S = 60.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@attrs.define
class Link:
    """A connection, and what it tells."""

    connection: Connection
    news: anyio.abc.ObjectReceiveStream[bool]

    def put(self, address: Address, payload: bytes = b"word", *, bulk: bool = False) -> None:
        self.connection.outbox.put(OutboxItem(address=address, payload=payload), bulk=bulk)


def make_link(broker: Broker, *, message_bytes_min: int = 0) -> Link:
    put, news = anyio.create_memory_object_stream[bool](100)

    async def ignore(*_: Any) -> None: ...

    connection = Connection(
        broker,
        will=Will(address=STATUS, payload=b"offline"),
        subscriptions=lambda: (Address(channel=Channel.ALL),),
        changed=put.send,
        arrived=ignore,
        timed=ignore,
        farewell=lambda: None,
        message_bytes_min=message_bytes_min,
        seed=0,
    )
    return Link(connection, news)


@asynccontextmanager
async def running(link: Link) -> AsyncIterator[None]:
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.connection.run)
            yield
            tasks.cancel_scope.cancel()


async def error_of(link: Link) -> BaseException:
    """The error with which its connection ends."""
    with anyio.fail_after(PATIENCE_S), pytest.raises((BrokerRefused, BaseExceptionGroup)) as caught:
        await link.connection.run()
    error = innermost(caught.value)
    assert isinstance(error, BrokerRefused)
    return error


async def until(logs: list[Any], event: str, holds: Callable[[Any], bool] = lambda entry: True) -> Any:
    """The first entry of that event that `holds`."""
    while True:
        for entry in list(logs):
            if entry["event"] == event and holds(entry):
                return entry
        await anyio.sleep(0.01)


def over(mosquitto: Mosquitto, password: str | None = None) -> Broker:
    username = None if password is None else ANNA
    return mqtt.from_url(mosquitto.url, cluster="home", device=ANNA, username=username, password=password)


@virtual_time
async def test_a_connection_that_goes_again_and_again_is_opened_ever_more_rarely() -> None:
    hub = InProcessBroker()
    link = make_link(MemoryBroker(hub, ANNA))
    opened_s: list[float] = []

    async def open_and_drop(times: int, after_s: float) -> None:
        for _ in range(times):
            assert await link.news.receive()
            opened_s.append(anyio.current_time())
            await anyio.sleep(after_s)
            hub.drop(ANNA)
            assert not await link.news.receive()

    with capture_logs() as logs:
        async with running(link):
            await open_and_drop(12, after_s=0)
            await open_and_drop(2, after_s=STEADY_S)
    pauses_s = [later - earlier for earlier, later in itertools.pairwise(opened_s)]
    assert pauses_s[0] < 0.6
    assert all(pause_s >= RECONNECT_PAUSE_S_MAX / 2 for pause_s in pauses_s[5:12])
    assert pauses_s[12] < STEADY_S + 0.6
    assert [entry["event"] for entry in logs].count("broker_lost") == 1  # all within a minute


@pytest.mark.anyio
async def test_a_broker_that_is_not_there_yet_is_waited_for_with_a_line() -> None:
    with Mosquitto() as mosquitto, capture_logs() as logs:
        mosquitto.kill()
        link = make_link(over(mosquitto))
        async with running(link):
            said = await until(logs, "waiting_for_broker")
            assert said["waited_s"] == 0
            assert "connection refused; is the broker running?" in said["error"]
            mosquitto.start()
            assert await link.news.receive()


@pytest.mark.anyio
async def test_a_refusal_ends_it_only_before_it_was_ever_let_in() -> None:
    with Mosquitto(users={ANNA: "right"}) as mosquitto, capture_logs() as logs:
        assert "password_file" in str(await error_of(make_link(over(mosquitto, "wrong"))))
        broker = over(mosquitto, "right")
        link = make_link(broker)
        async with running(link):
            assert await link.news.receive()
            mosquitto.kill()
            mosquitto.users = {ANNA: "another"}
            mosquitto.start()
            assert not await link.news.receive()
            await until(logs, "waiting_for_broker", lambda entry: "refused username 'anna'" in entry["error"])
            mosquitto.kill()
            mosquitto.users = {ANNA: "right"}
            mosquitto.start()
            assert await link.news.receive()


@pytest.mark.anyio
@pytest.mark.parametrize(("address", "topic"), [(TO_BEN, "to/ben/anna"), (CHUNK, "blob/all/anna/t-0/0")])
async def test_a_denial_from_the_start_ends_it_with_the_topic(address: Address, topic: str) -> None:
    acl = "topic readwrite crowd/1/home/node/#\ntopic read crowd/1/home/#\n"
    with Mosquitto(acl=acl) as mosquitto:
        link = make_link(over(mosquitto))
        link.put(STATUS)
        link.put(address, bulk=True)
        error = str(await error_of(link))
        assert f"denies a client without a username publishing to crowd/1/home/{topic}: allow writing it" in error


@pytest.mark.anyio
async def test_a_denial_of_what_was_allowed_before_is_told_and_endured() -> None:
    with Mosquitto() as mosquitto, capture_logs() as logs:
        link = make_link(over(mosquitto))
        async with running(link):
            assert await link.news.receive()
            async with mqtt.from_url(mosquitto.url, cluster="home", device=BEN).session() as ben:
                await ben.subscribe(TO_BEN)
                link.put(TO_BEN)
                assert (await ben.receive()).payload == b"word"
            mosquitto.stop()
            mosquitto.acl = "topic read crowd/1/home/#\n"
            mosquitto.start()
            assert not await link.news.receive()
            assert await link.news.receive()
            for _ in range(3):
                link.put(TO_BEN)
            said = await until(logs, "publishing_denied")
            assert "crowd/1/home/to/ben/anna" in said["error"]
    assert [entry["event"] for entry in logs].count("publishing_denied") == 1


@pytest.mark.anyio
async def test_a_broker_that_takes_too_little_ends_it_with_both_figures() -> None:
    with Mosquitto(settings=["max_packet_size 16384"]) as mosquitto:
        link = make_link(over(mosquitto), message_bytes_min=20_000)
        error = str(await error_of(link))
        assert "at most 15,872 bytes" in error
        assert "20,000: raise max_packet_size" in error


@pytest.mark.anyio
async def test_a_limit_of_which_the_broker_says_nothing_ends_it_with_what_was_too_long() -> None:
    with Mosquitto(settings=["message_size_limit 16384"]) as mosquitto:
        link = make_link(over(mosquitto))
        link.put(CHUNK, bytes(20_000), bulk=True)
        error = str(await error_of(link))
        assert "takes no message of 20,000 bytes" in error
        assert "message_size_limit" in error


@pytest.mark.anyio
async def test_chunks_that_were_cut_for_a_broker_with_a_higher_limit_are_left_out() -> None:
    with Mosquitto(settings=["max_packet_size 16384"]) as mosquitto, capture_logs() as logs:
        link = make_link(over(mosquitto))
        link.put(CHUNK, bytes(20_000), bulk=True)
        async with running(link):
            said = await until(logs, "chunks_left_out")
            assert "20,000 bytes is too long for the broker, which takes 15,872 at most" in said["reason"]


@pytest.mark.anyio
@pytest.mark.parametrize("setting", ["max_qos 0", "retain_available false"])
async def test_a_broker_that_lacks_what_is_needed_is_refused(setting: str) -> None:
    with Mosquitto(settings=[setting]) as mosquitto:
        assert "allow retained messages and QoS 1" in str(await error_of(make_link(over(mosquitto))))
