"""What every adapter of the `Broker` port promises, each run against a real broker of its kind."""

import anyio
import pytest

from brokers.accounting import crossing
from brokers.topics import Topics
from crowd.errors import BrokerLost
from crowd.ports import Will
from crowd.units import Channel
from tests.brokers.conftest import Carrier
from tests.brokers.talk import ANNA, BEN, CARL, PATIENCE_S, chunk, in_background, letter, of, payloads, take

pytestmark = pytest.mark.anyio


async def test_a_message_reaches_every_session_that_is_subscribed(carrier: Carrier) -> None:
    anna, ben, carl = [await carrier.broker(device) for device in (ANNA, BEN, CARL)]
    async with anna.session() as a, ben.session() as b, carl.session() as c:
        await b.subscribe(of(Channel.ALL))
        await c.subscribe(of(Channel.ALL))
        await a.publish(of(Channel.ALL, ANNA), b"hello")
        for session in (b, c):
            delivery = await take(session)
            assert (delivery.address, delivery.payload, delivery.retained) == (of(Channel.ALL, ANNA), b"hello", False)


async def test_the_order_of_one_address_is_kept(carrier: Carrier) -> None:
    anna, ben = [await carrier.broker(device) for device in (ANNA, BEN)]
    sent = [str(n).encode() for n in range(200)]
    async with anna.session() as a, ben.session() as b:
        await b.subscribe(letter(None, BEN))
        for payload in sent:
            await a.publish(letter(ANNA, BEN), payload)
        assert await payloads(b, len(sent)) == sent


async def test_a_retained_message_comes_at_once_to_a_late_subscriber(carrier: Carrier) -> None:
    anna, ben = [await carrier.broker(device) for device in (ANNA, BEN)]
    async with anna.session() as a, ben.session() as b:
        await a.publish(of(Channel.PROFILE, ANNA), b"old", retain=True)
        await a.publish(of(Channel.PROFILE, ANNA), b"new", retain=True)
        await b.subscribe(of(Channel.PROFILE))
        delivery = await take(b)
        assert (delivery.address, delivery.payload, delivery.retained) == (of(Channel.PROFILE, ANNA), b"new", True)


async def test_an_empty_retained_message_clears_its_address(carrier: Carrier) -> None:
    anna, ben = [await carrier.broker(device) for device in (ANNA, BEN)]
    async with anna.session() as a, ben.session() as b:
        await a.publish(of(Channel.ACK, ANNA), b"promise", retain=True)
        await a.publish(of(Channel.ACK, ANNA), b"", retain=True)
        await a.publish(of(Channel.PROFILE, ANNA), b"marker", retain=True)
        await b.subscribe(of(Channel.ACK), of(Channel.PROFILE))
        assert (await take(b)).payload == b"marker"


async def test_the_will_is_published_and_retained_when_the_connection_is_cut(carrier: Carrier) -> None:
    anna, ben, carl = [await carrier.broker(device) for device in (ANNA, BEN, CARL)]
    will = Will(address=of(Channel.STATUS, ANNA), payload=b"offline")
    async with ben.session() as b, carl.session() as c, anna.session(will=will) as a:
        await b.subscribe(of(Channel.STATUS))
        carrier.cut(ANNA)
        delivery = await take(b)
        assert (delivery.address, delivery.payload, delivery.retained) == (of(Channel.STATUS, ANNA), b"offline", False)
        await c.subscribe(of(Channel.STATUS))
        assert (await take(c)).retained
        with pytest.raises(BrokerLost):
            await take(a)


async def test_the_will_is_not_published_on_a_clean_close(carrier: Carrier) -> None:
    anna, ben, carl = [await carrier.broker(device) for device in (ANNA, BEN, CARL)]
    async with ben.session() as b, carl.session() as c:
        await b.subscribe(of(Channel.STATUS), of(Channel.ALL))
        async with anna.session(will=Will(address=of(Channel.STATUS, ANNA), payload=b"offline")):
            pass
        for marker in (b"first", b"second"):  # once the broker has taken the first, it has seen the close
            await c.publish(of(Channel.ALL, CARL), marker)
        assert await payloads(b, 2) == [b"first", b"second"]


async def test_the_will_is_not_published_when_the_session_is_cancelled(carrier: Carrier) -> None:
    anna, ben, carl = [await carrier.broker(device) for device in (ANNA, BEN, CARL)]
    connected = anyio.Event()

    async def live() -> None:
        async with anna.session(will=Will(address=of(Channel.STATUS, ANNA), payload=b"offline")) as a:
            connected.set()
            await a.receive()

    async with ben.session() as b, carl.session() as c:
        await b.subscribe(of(Channel.STATUS), of(Channel.ALL))
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(live)
                await connected.wait()
                tasks.cancel_scope.cancel()
        for marker in (b"first", b"second"):
            await c.publish(of(Channel.ALL, CARL), marker)
        assert await payloads(b, 2) == [b"first", b"second"]


async def test_an_error_inside_the_session_comes_out_as_it_is(carrier: Carrier) -> None:
    anna = await carrier.broker(ANNA)
    with pytest.raises(KeyError):
        async with anna.session():
            raise KeyError("a bug of the caller")


async def test_what_was_unsubscribed_no_longer_comes(carrier: Carrier) -> None:
    anna, ben = [await carrier.broker(device) for device in (ANNA, BEN)]
    async with anna.session() as a, ben.session() as b:
        await b.subscribe(of(Channel.ALL), letter(None, BEN))
        await b.unsubscribe(of(Channel.ALL))
        await a.publish(of(Channel.ALL, ANNA), b"unwanted")
        await a.publish(letter(ANNA, BEN), b"marker")
        assert (await take(b)).payload == b"marker"


async def test_a_pattern_that_stays_subscribed_still_selects(carrier: Carrier) -> None:
    anna, ben = [await carrier.broker(device) for device in (ANNA, BEN)]
    async with anna.session() as a, ben.session() as b:
        await b.subscribe(chunk(None, BEN, "t-1", None), chunk(None, BEN, "t-2", None))
        await b.unsubscribe(chunk(None, BEN, "t-1", None))
        await a.publish(chunk(ANNA, BEN, "t-1", 0), b"unwanted")
        await a.publish(chunk(ANNA, BEN, "t-2", 0), b"wanted")
        assert (await take(b)).payload == b"wanted"


async def test_a_session_does_not_receive_what_it_publishes_itself(carrier: Carrier) -> None:
    anna, ben = [await carrier.broker(device) for device in (ANNA, BEN)]
    async with anna.session() as a, ben.session() as b:
        await a.subscribe(of(Channel.ALL), of(Channel.PROFILE))
        await a.publish(of(Channel.ALL, ANNA), b"own")
        await a.publish(of(Channel.PROFILE, ANNA), b"own", retain=True)
        await b.publish(of(Channel.ALL, BEN), b"marker")
        assert (await take(a)).payload == b"marker"


async def test_a_session_does_not_receive_what_it_retained_itself_before_it_subscribed(carrier: Carrier) -> None:
    anna, ben = [await carrier.broker(device) for device in (ANNA, BEN)]
    async with anna.session() as a, ben.session() as b:
        await a.publish(of(Channel.PROFILE, ANNA), b"own", retain=True)
        await a.subscribe(of(Channel.PROFILE))
        await b.publish(of(Channel.PROFILE, BEN), b"marker", retain=True)
        assert (await take(a)).payload == b"marker"


async def test_a_device_receives_what_it_retained_in_an_earlier_session(carrier: Carrier) -> None:
    anna = await carrier.broker(ANNA)
    async with anna.session() as a:
        await a.publish(of(Channel.PROFILE, ANNA), b"from an earlier life", retain=True)
    async with anna.session() as a:
        await a.subscribe(of(Channel.PROFILE))
        assert (await take(a)).payload == b"from an earlier life"


async def test_a_device_hears_its_own_heartbeat(carrier: Carrier) -> None:
    anna = await carrier.broker(ANNA)
    async with anna.session() as a:
        await a.subscribe(of(Channel.BEAT, ANNA))
        await a.publish(of(Channel.BEAT, ANNA), b"alive")
        assert (await take(a)).payload == b"alive"


async def test_patterns_select_by_each_field(carrier: Carrier) -> None:
    anna, ben, carl = [await carrier.broker(device) for device in (ANNA, BEN, CARL)]
    async with anna.session() as a, ben.session() as b, carl.session() as c:
        await b.subscribe(of(Channel.PROFILE, CARL), chunk(None, None, None, None), chunk(None, BEN, "t-1", None))
        await a.publish(of(Channel.PROFILE, ANNA), b"not this one")
        await a.publish(chunk(ANNA, CARL, "t-1", 0), b"nor this one")
        await a.publish(chunk(ANNA, BEN, "t-2", 0), b"nor this one")
        await a.publish(chunk(ANNA, BEN, "t-1", 7), b"to ben")
        await a.publish(chunk(ANNA, None, "t-2", 0), b"to all")
        await c.publish(of(Channel.PROFILE, CARL), b"carl's")
        received = {(await take(b)) for _ in range(3)}
    assert {(delivery.address, delivery.payload) for delivery in received} == {
        (chunk(ANNA, BEN, "t-1", 7), b"to ben"),
        (chunk(ANNA, None, "t-2", 0), b"to all"),
        (of(Channel.PROFILE, CARL), b"carl's"),
    }


async def test_a_slow_receiver_gets_everything_in_order_once_it_reads(carrier: Carrier) -> None:
    anna, ben = [await carrier.broker(device) for device in (ANNA, BEN)]
    sent = [str(n).encode() for n in range(600)]
    ahead = anyio.Event()
    async with anna.session() as a, ben.session() as b:
        await b.subscribe(letter(None, BEN))

        async def write() -> None:
            for n, payload in enumerate(sent):
                await a.publish(letter(ANNA, BEN), payload)
                if n == 200:
                    ahead.set()

        async with in_background(write):
            await ahead.wait()
            assert await payloads(b, len(sent)) == sent


async def test_two_devices_that_write_much_to_each_other_and_read_do_not_wait_for_ever(carrier: Carrier) -> None:
    anna, ben = [await carrier.broker(device) for device in (ANNA, BEN)]
    async with anna.session() as a, ben.session() as b:
        await a.subscribe(letter(None, ANNA))
        await b.subscribe(letter(None, BEN))

        async def write_to_ben() -> None:
            for _ in range(500):
                await a.publish(letter(ANNA, BEN), b"x")

        async def write_to_anna() -> None:
            for _ in range(500):
                await b.publish(letter(BEN, ANNA), b"y")

        async def read_as_ben() -> None:
            assert await payloads(b, 500) == [b"x"] * 500

        async with in_background(write_to_ben, write_to_anna, read_as_ben):
            assert await payloads(a, 500) == [b"y"] * 500


async def test_every_method_fails_once_the_connection_has_gone(carrier: Carrier) -> None:
    anna = await carrier.broker(ANNA)
    async with anna.session() as a:
        carrier.cut(ANNA)
        for _ in range(2):
            with pytest.raises(BrokerLost):
                await take(a)
        with pytest.raises(BrokerLost):
            await a.publish(of(Channel.ALL, ANNA), b"too late")
        with pytest.raises(BrokerLost):
            await a.subscribe(of(Channel.ALL))
        with pytest.raises(BrokerLost):
            await a.unsubscribe(of(Channel.ALL))


async def test_every_method_fails_after_the_session_was_left(carrier: Carrier) -> None:
    anna = await carrier.broker(ANNA)
    async with anna.session() as a:
        pass
    with pytest.raises(BrokerLost):
        await take(a)
    with pytest.raises(BrokerLost):
        await a.publish(of(Channel.ALL, ANNA), b"too late")


async def test_after_a_crash_of_the_broker_a_new_session_works_and_nothing_is_retained(carrier: Carrier) -> None:
    anna, ben = [await carrier.broker(device) for device in (ANNA, BEN)]
    will = Will(address=of(Channel.STATUS, ANNA), payload=b"offline")
    async with anna.session(will=will) as a:
        await a.publish(of(Channel.PROFILE, ANNA), b"profile", retain=True)
        carrier.crash()
        with pytest.raises(BrokerLost):
            await take(a)
    async with anna.session() as a, ben.session() as b:
        await b.subscribe(of(Channel.PROFILE), of(Channel.STATUS), of(Channel.ALL))
        await a.publish(of(Channel.ALL, ANNA), b"marker")
        assert (await take(b)).payload == b"marker"


async def test_a_payload_of_one_mebibyte_arrives_whole(carrier: Carrier) -> None:
    anna, ben = [await carrier.broker(device) for device in (ANNA, BEN)]
    payload = bytes(range(256)) * 4096
    async with anna.session() as a, ben.session() as b:
        await b.subscribe(letter(None, BEN))
        async with in_background(lambda: a.publish(letter(ANNA, BEN), payload)):
            assert (await take(b)).payload == payload


@pytest.mark.parametrize("expiry_s", [None, 3600])
@pytest.mark.parametrize("size_bytes", [0, 100, 5000])
async def test_traffic_grows_by_the_stated_formula(carrier: Carrier, size_bytes: int, expiry_s: int | None) -> None:
    anna, ben = [await carrier.broker(device) for device in (ANNA, BEN)]
    address = letter(ANNA, BEN)
    cost = crossing(
        topic_bytes=len(Topics("home").topic(address)),
        payload_bytes=size_bytes,
        qos=1,
        expiry=expiry_s is not None,
    )
    async with anna.session() as a, ben.session() as b:
        await b.subscribe(letter(None, BEN))
        await a.publish(address, b"x" * size_bytes, expiry_s=expiry_s)
        await take(b)
        assert (anna.traffic.up_bytes, anna.traffic.down_bytes) == (cost.forward_bytes, cost.backward_bytes)
        assert (ben.traffic.up_bytes, ben.traffic.down_bytes) == (cost.backward_bytes, cost.forward_bytes)


async def test_a_pattern_cannot_be_published_to(carrier: Carrier) -> None:
    anna = await carrier.broker(ANNA)
    async with anna.session() as a:
        with pytest.raises(ValueError, match="pattern"):
            await a.publish(letter(ANNA, None), b"to whom?")
