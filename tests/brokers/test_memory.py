import anyio
import pytest
from structlog.testing import capture_logs

from brokers.memory import InProcessBroker, MemoryBroker, from_url
from crowd.errors import BadConfig, BrokerLost
from crowd.runtime.seldom import TOLD_EVERY_S
from crowd.units import Channel
from tests.brokers.talk import ANNA, BEN, CARL, in_background, letter, of, payloads, take
from tests.support.virtual import virtual_time


@virtual_time
async def test_publish_waits_while_a_subscriber_has_no_room() -> None:
    hub = InProcessBroker(queue_messages_max=2)
    published: list[int] = []
    async with MemoryBroker(hub, ANNA).session() as a, MemoryBroker(hub, BEN).session() as b:
        await b.subscribe(letter(None, BEN))

        async def write() -> None:
            for n in range(4):
                await a.publish(letter(ANNA, BEN), str(n).encode())
                published.append(n)

        async with in_background(write):
            await anyio.wait_all_tasks_blocked()
            assert published == [0, 1]
            assert await payloads(b, 1) == [b"0"]
            await anyio.wait_all_tasks_blocked()
            assert published == [0, 1, 2]
            assert await payloads(b, 3) == [b"1", b"2", b"3"]


@virtual_time
async def test_a_waiting_publisher_goes_on_when_the_full_subscriber_leaves() -> None:
    hub = InProcessBroker(queue_messages_max=1)
    async with MemoryBroker(hub, ANNA).session() as a, MemoryBroker(hub, BEN).session() as b:
        await b.subscribe(letter(None, BEN))
        await a.publish(letter(ANNA, BEN), b"fills the queue")
        async with in_background(lambda: a.publish(letter(ANNA, BEN), b"waits")):
            await anyio.wait_all_tasks_blocked()
            hub.drop(BEN)


@virtual_time
async def test_a_publisher_does_not_wait_for_a_full_subscriber_that_left_before_its_turn() -> None:
    hub = InProcessBroker(queue_messages_max=1)
    anna, ben, carl = [MemoryBroker(hub, device) for device in (ANNA, BEN, CARL)]
    async with anna.session() as a, ben.session() as b, carl.session() as c:
        await b.subscribe(of(Channel.ALL))
        await c.subscribe(of(Channel.ALL))
        await a.publish(of(Channel.ALL, ANNA), b"fills both queues")
        async with in_background(lambda: a.publish(of(Channel.ALL, ANNA), b"waits for ben, then for carl")):
            await anyio.wait_all_tasks_blocked()
            hub.drop(CARL)
            await payloads(b, 2)


@virtual_time
async def test_a_waiting_publisher_fails_when_its_own_connection_goes() -> None:
    hub = InProcessBroker(queue_messages_max=1)
    async with MemoryBroker(hub, ANNA).session() as a, MemoryBroker(hub, BEN).session() as b:
        await b.subscribe(letter(None, BEN))
        await a.publish(letter(ANNA, BEN), b"fills the queue")

        async def write() -> None:
            with pytest.raises(BrokerLost):
                await a.publish(letter(ANNA, BEN), b"waits")

        async with in_background(write):
            await anyio.wait_all_tasks_blocked()
            hub.drop(ANNA)


@virtual_time
async def test_a_publisher_that_is_cancelled_while_it_waits_leaves_nothing_behind() -> None:
    hub = InProcessBroker(queue_messages_max=1)
    async with MemoryBroker(hub, ANNA).session() as a, MemoryBroker(hub, BEN).session() as b:
        await b.subscribe(letter(None, BEN))
        await a.publish(letter(ANNA, BEN), b"1")
        with anyio.move_on_after(1):
            await a.publish(letter(ANNA, BEN), b"cancelled")
        async with in_background(lambda: a.publish(letter(ANNA, BEN), b"2")):
            assert await payloads(b, 2) == [b"1", b"2"]


@virtual_time
async def test_two_waiting_receivers_get_one_message_each() -> None:
    hub = InProcessBroker()
    received: list[bytes] = []
    async with MemoryBroker(hub, ANNA).session() as a, MemoryBroker(hub, BEN).session() as b:
        await b.subscribe(letter(None, BEN))

        async def read() -> None:
            received.append((await take(b)).payload)

        async with in_background(read, read):
            await anyio.wait_all_tasks_blocked()
            await a.publish(letter(ANNA, BEN), b"1")
            await a.publish(letter(ANNA, BEN), b"2")
    assert sorted(received) == [b"1", b"2"]


@virtual_time
async def test_heartbeats_without_room_are_dropped_counted_and_told_once_a_minute() -> None:
    hub = InProcessBroker(queue_messages_max=1)
    async with MemoryBroker(hub, ANNA).session() as a, MemoryBroker(hub, BEN).session() as b:
        await b.subscribe(of(Channel.BEAT))
        with capture_logs() as logs:
            for n in range(6):
                await a.publish(of(Channel.BEAT, ANNA), str(n).encode())
            await anyio.sleep(TOLD_EVERY_S)
            await a.publish(of(Channel.BEAT, ANNA), b"6")
        assert await payloads(b, 1) == [b"0"]
    assert [entry["dropped"] for entry in logs if entry["event"] == "inbound_messages_dropped"] == [1, 6]


@virtual_time
async def test_an_expired_message_is_not_delivered() -> None:
    hub = InProcessBroker()
    async with MemoryBroker(hub, ANNA).session() as a, MemoryBroker(hub, BEN).session() as b:
        await b.subscribe(letter(None, BEN))
        await a.publish(letter(ANNA, BEN), b"short-lived", expiry_s=5)
        await a.publish(letter(ANNA, BEN), b"long-lived", expiry_s=60)
        await a.publish(of(Channel.PROFILE, ANNA), b"short-lived", retain=True, expiry_s=5)
        await anyio.sleep(10)
        await b.subscribe(of(Channel.PROFILE))
        await a.publish(letter(ANNA, BEN), b"marker")
        assert await payloads(b, 2) == [b"long-lived", b"marker"]


@virtual_time
async def test_one_name_is_one_hub_and_clusters_on_it_are_apart() -> None:
    anna, ben = [from_url("memory://names", cluster="home", device=device) for device in (ANNA, BEN)]
    carl = from_url("memory://names", cluster="garden", device=CARL)
    async with anna.session() as a, ben.session() as b, carl.session() as c:
        await a.subscribe(of(Channel.ALL))
        await c.publish(of(Channel.ALL, CARL), b"from another cluster")
        await b.publish(of(Channel.ALL, BEN), b"marker")
        assert (await take(a)).payload == b"marker"


@pytest.mark.parametrize("url", ["memory://", "memory://a/b", "mqtt://a", "memory:a"])
def test_a_url_without_a_name_is_bad_configuration(url: str) -> None:
    with pytest.raises(BadConfig, match="memory://NAME"):
        from_url(url, cluster="home", device=ANNA)
