import anyio
import pytest

from brokers.accounting import crossing
from brokers.memory import InProcessBroker, MemoryBroker
from brokers.throttled import ThrottledBroker
from brokers.topics import Topics
from tests.brokers.talk import ANNA, BEN, letter, take
from tests.support.virtual import virtual_time

FAST_BYTES_S = 10**12
SIZE_BYTES = 100_000
COST = crossing(topic_bytes=len(Topics("memory").topic(letter(ANNA, BEN))), payload_bytes=SIZE_BYTES, qos=1)


@virtual_time
async def test_a_message_reaches_the_broker_when_it_has_crossed_the_uplink() -> None:
    hub = InProcessBroker()
    slow = ThrottledBroker(MemoryBroker(hub, ANNA), uplink_bytes_s=50_000, downlink_bytes_s=FAST_BYTES_S)
    async with slow.session() as a, MemoryBroker(hub, BEN).session() as b, anyio.create_task_group() as tasks:
        await b.subscribe(letter(None, BEN))
        tasks.start_soon(a.publish, letter(ANNA, BEN), b"x" * SIZE_BYTES)
        await take(b)
        assert anyio.current_time() == pytest.approx(SIZE_BYTES / 50_000)


@virtual_time
async def test_a_message_reaches_the_receiver_when_it_has_crossed_the_downlink() -> None:
    hub = InProcessBroker()
    slow = ThrottledBroker(MemoryBroker(hub, BEN), uplink_bytes_s=FAST_BYTES_S, downlink_bytes_s=50_000)
    async with MemoryBroker(hub, ANNA).session() as a, slow.session() as b:
        await b.subscribe(letter(None, BEN))
        await a.publish(letter(ANNA, BEN), b"x" * SIZE_BYTES)
        assert anyio.current_time() == 0.0
        await take(b)
        assert anyio.current_time() == pytest.approx(SIZE_BYTES / 50_000)


@pytest.mark.parametrize("writers", [1, 5])
@virtual_time
async def test_in_the_long_run_every_byte_of_the_formula_takes_its_time(writers: int) -> None:
    hub = InProcessBroker()
    slow = ThrottledBroker(MemoryBroker(hub, ANNA), uplink_bytes_s=200_000, downlink_bytes_s=FAST_BYTES_S)
    async with slow.session() as a:

        async def write() -> None:
            for _ in range(100 // writers):
                await a.publish(letter(ANNA, BEN), b"x" * SIZE_BYTES)

        async with anyio.create_task_group() as tasks:
            for _ in range(writers):
                tasks.start_soon(write)
    assert slow.traffic.up_bytes == 100 * COST.forward_bytes
    # All but the headers of the last messages has been waited for.
    assert anyio.current_time() == pytest.approx(100 * COST.forward_bytes / 200_000, rel=0.002)


@virtual_time
async def test_both_directions_run_at_the_same_time() -> None:
    hub = InProcessBroker()
    slow = ThrottledBroker(MemoryBroker(hub, ANNA), uplink_bytes_s=50_000, downlink_bytes_s=50_000)
    async with slow.session() as a, MemoryBroker(hub, BEN).session() as b, anyio.create_task_group() as tasks:
        await a.subscribe(letter(None, ANNA))
        await b.publish(letter(BEN, ANNA), b"x" * SIZE_BYTES)
        tasks.start_soon(a.publish, letter(ANNA, BEN), b"x" * SIZE_BYTES)
        await take(a)
        assert anyio.current_time() == pytest.approx(SIZE_BYTES / 50_000)


@virtual_time
async def test_concurrent_publishers_keep_the_order_of_an_address() -> None:
    hub = InProcessBroker()
    slow = ThrottledBroker(MemoryBroker(hub, ANNA), uplink_bytes_s=50_000, downlink_bytes_s=FAST_BYTES_S)
    sent = [b"x" * size for size in (500, 0, 0, 300, 0)]
    async with slow.session() as a, MemoryBroker(hub, BEN).session() as b, anyio.create_task_group() as tasks:
        await b.subscribe(letter(None, BEN))
        for payload in sent:
            tasks.start_soon(a.publish, letter(ANNA, BEN), payload)
        assert [(await take(b)).payload for _ in sent] == sent


@virtual_time
async def test_a_receive_that_is_cancelled_half_way_loses_nothing() -> None:
    hub = InProcessBroker()
    slow = ThrottledBroker(MemoryBroker(hub, BEN), uplink_bytes_s=FAST_BYTES_S, downlink_bytes_s=50_000)
    async with MemoryBroker(hub, ANNA).session() as a, slow.session() as b:
        await b.subscribe(letter(None, BEN))
        await a.publish(letter(ANNA, BEN), b"x" * SIZE_BYTES)
        with anyio.move_on_after(0.5):
            await b.receive()
        assert len((await take(b)).payload) == SIZE_BYTES
        assert anyio.current_time() == pytest.approx(SIZE_BYTES / 50_000)
