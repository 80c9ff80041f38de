"""What holds for MQTT alone, against a real Mosquitto."""

import asyncio
import contextlib
import signal
import ssl
from pathlib import Path

import aiomqtt
import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from structlog.testing import capture_logs

from brokers import mqtt, mqtt_link
from brokers.accounting import PUBACK_BYTES, publish_packet_bytes
from brokers.session_state import KEEPALIVE_S
from brokers.topics import Topics
from crowd.errors import BadConfig, BrokerLost, BrokerRefused, PublishDenied
from crowd.ports import Broker, Will
from crowd.units import Channel, DeviceId
from tests.brokers.conftest import mqtt_carrier
from tests.brokers.talk import ANNA, BEN, CARL, PATIENCE_S, in_background, letter, of, payloads, take
from tests.support.certificates import Certificates, make_certificates
from tests.support.mosquitto import Mosquitto
from tests.support.wire import wire_to

pytestmark = pytest.mark.anyio

ACL = """
pattern write crowd/1/+/to/+/%u
pattern read crowd/1/+/to/%u/+
"""


def broker_of(
    mosquitto: Mosquitto, device: DeviceId, *, password: str | None = None, ca_file: str | None = None
) -> Broker:
    username = None if password is None else device
    return mqtt.from_url(
        mosquitto.url, cluster="home", device=device, username=username, password=password, ca_file=ca_file
    )


async def publish_as_outsider(mosquitto: Mosquitto, messages: list[tuple[str, bytes, int]]) -> None:
    """Publish payloads to topics with a QoS, as any other program can."""
    async with aiomqtt.Client(mosquitto.host, mosquitto.port) as client:
        for topic, payload, qos in messages:
            await client.publish(topic, payload, qos)


async def test_a_wrong_password_is_refused_with_one_line_that_says_what_to_mend() -> None:
    with Mosquitto(users={ANNA: "right"}) as mosquitto:
        with pytest.raises(BrokerRefused) as caught:
            async with broker_of(mosquitto, ANNA, password="wrong").session():
                pass
        message = str(caught.value)
        assert mosquitto.url in message
        assert "'anna'" in message
        assert "password_file" in message
        assert "wrong" not in message
        assert "\n" not in message
        async with broker_of(mosquitto, ANNA, password="right").session():
            pass


async def test_a_client_without_a_username_is_refused_where_one_is_asked_for() -> None:
    with Mosquitto(users={ANNA: "right"}) as mosquitto, pytest.raises(BrokerRefused, match="without a username"):
        async with broker_of(mosquitto, ANNA).session():
            pass


async def test_the_username_is_what_an_access_list_can_hold_a_device_to() -> None:
    with Mosquitto(users={ANNA: "a", BEN: "b"}, acl=ACL) as mosquitto:
        anna, ben = broker_of(mosquitto, ANNA, password="a"), broker_of(mosquitto, BEN, password="b")
        async with anna.session() as a, ben.session() as b:
            await b.subscribe(letter(None, BEN))
            with pytest.raises(PublishDenied, match=r"'anna' publishing to crowd/1/home/to/ben/carl: .*access list"):
                await a.publish(letter(CARL, BEN), b"in another's name")
            await a.publish(letter(ANNA, BEN), b"in her own name")
            assert (await take(b)).payload == b"in her own name"


async def test_tls_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    certificates = make_certificates()
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(certificates.authority)
    with Mosquitto(certificates=certificates) as mosquitto:
        anna, ben = [broker_of(mosquitto, device, ca_file=str(ca_file)) for device in (ANNA, BEN)]
        payload = bytes(1 << 20)
        async with anna.session() as a, ben.session() as b:
            await b.subscribe(letter(None, BEN))
            async with in_background(lambda: a.publish(letter(ANNA, BEN), payload)):
                assert (await take(b)).payload == payload


async def test_a_certificate_of_an_unknown_authority_is_refused() -> None:
    with Mosquitto(certificates=make_certificates()) as mosquitto:
        with pytest.raises(BrokerRefused, match=r"not trusted.*ca_file") as caught:
            async with broker_of(mosquitto, ANNA).session():
                pass
        assert caught.value.__cause__ is not None
        assert isinstance(caught.value.__cause__.__context__, ssl.SSLCertVerificationError)


@pytest.mark.parametrize(
    ("certificates", "settings", "what"),
    [
        (make_certificates("127.0.0.2"), (), "a certificate for another name .*: write the name in its certificate"),
        (make_certificates(from_days=-9), (), "a certificate that has expired: renew it, or set this device's clock"),
        (make_certificates(from_days=3), (), "a certificate that is not yet valid: set this device's clock"),
        (make_certificates(), ("require_certificate true", "cafile CA"), "wants a certificate of its clients"),
    ],
    ids=["another name", "expired", "not yet valid", "client's certificate"],
)
async def test_what_is_wrong_with_a_certificate_is_said(
    tmp_path: Path, certificates: Certificates, settings: tuple[str, ...], what: str
) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(certificates.authority)
    lines = [line.replace("CA", str(ca_file)) for line in settings]
    with Mosquitto(certificates=certificates, settings=lines) as mosquitto, pytest.raises(BrokerRefused, match=what):
        async with broker_of(mosquitto, ANNA, ca_file=str(ca_file)).session():
            pass


async def test_a_broker_that_takes_no_more_clients_hangs_up_and_that_is_said() -> None:
    with Mosquitto(settings=["max_connections 1"]) as mosquitto:
        anna, ben = (broker_of(mosquitto, device) for device in (ANNA, BEN))
        with pytest.raises(BrokerLost, match=r"hung up without an answer; .*max_connections"):
            async with ben.session(), anna.session():
                pass


async def test_tls_to_a_port_without_tls_says_so(mosquitto: Mosquitto) -> None:
    broker = mqtt.from_url(mosquitto.url.replace("mqtt:", "mqtts:"), cluster="home", device=ANNA)
    with pytest.raises((BrokerLost, BrokerRefused), match=r"TLS with .* failed|hung up.*scheme"):
        async with broker.session():
            pass


async def test_a_port_that_answers_tls_with_something_else_is_refused_for_good() -> None:
    async def answer(client: SocketStream) -> None:
        async with client:
            await client.receive()
            await client.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await client.receive()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        port = listener.extra(SocketAttribute.local_port)
        with pytest.raises(BrokerRefused, match=f"TLS with broker mqtts://127.0.0.1:{port} failed .*port for mqtts"):
            async with mqtt.from_url(f"mqtts://127.0.0.1:{port}", cluster="home", device=ANNA).session():
                pass
        tasks.cancel_scope.cancel()


async def test_a_port_where_nobody_listens_is_out_of_reach(mosquitto: Mosquitto) -> None:
    mosquitto.kill()
    with pytest.raises(BrokerLost, match=f"^cannot reach {mosquitto.url}: connection refused; is the broker running"):
        async with broker_of(mosquitto, ANNA).session():
            pass


async def test_a_host_that_does_not_exist_is_out_of_reach() -> None:
    with pytest.raises(BrokerLost, match=r"^cannot reach mqtt://nowhere\.invalid:1883: host name not found"):
        async with mqtt.from_url("mqtt://nowhere.invalid", cluster="home", device=ANNA).session():
            pass


async def test_a_server_that_accepts_and_says_nothing_is_out_of_reach(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_link, "CONNECT_TIMEOUT_S", 0.3)
    mosquitto.signal(signal.SIGSTOP)
    try:
        with pytest.raises(BrokerLost, match="no answer"):
            async with broker_of(mosquitto, ANNA).session():
                pass
    finally:
        mosquitto.signal(signal.SIGCONT)


async def test_a_pending_publish_fails_when_the_broker_is_killed(mosquitto: Mosquitto) -> None:
    async with broker_of(mosquitto, ANNA).session() as a:
        mosquitto.signal(signal.SIGSTOP)  # it will not answer any more

        async def write() -> None:
            with pytest.raises(BrokerLost, match=f"connection to {mosquitto.url} lost"):
                await a.publish(letter(ANNA, BEN), bytes(1 << 20))

        async with in_background(write):
            await anyio.wait_all_tasks_blocked()
            mosquitto.kill()


async def test_a_broker_that_ends_in_the_very_turn_of_a_publish_is_lost_and_the_event_loop_has_no_complaint(
    mosquitto: Mosquitto,
) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def publish() -> None:
        with pytest.raises(BrokerLost):
            await a.publish(letter(ANNA, BEN), b"letter")

    async with broker_of(mosquitto, ANNA).session() as a, anyio.create_task_group() as tasks:
        tasks.start_soon(publish)
        mosquitto.kill()  # the end of the stream is here as the turn begins
    assert complaints == []


async def test_leaving_a_session_whose_broker_hangs_does_not_hang(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_link, "CLOSE_TIMEOUT_S", 0.1)
    try:
        with anyio.fail_after(PATIENCE_S):
            async with broker_of(mosquitto, ANNA).session() as a, anyio.create_task_group() as tasks:
                mosquitto.signal(signal.SIGSTOP)
                for _ in range(20):  # more than fits into the socket: the farewell is stuck behind it
                    tasks.start_soon(a.publish, letter(ANNA, BEN), bytes(1 << 20))
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
    finally:
        mosquitto.signal(signal.SIGCONT)


async def test_no_more_crosses_the_link_of_a_receiver_that_does_not_read_than_its_window(mosquitto: Mosquitto) -> None:
    async with wire_to(mosquitto.port) as wire, broker_of(mosquitto, ANNA).session() as a:
        ben = mqtt.from_url(f"mqtt://127.0.0.1:{wire.port}", cluster="home", device=BEN)
        async with ben.session() as b:
            await b.subscribe(letter(None, BEN))
            payload = bytes(16384)
            count = 10 * mqtt_link.RECEIVE_MESSAGES_MAX
            for _ in range(count):
                await a.publish(letter(ANNA, BEN), payload)
            await b.unsubscribe(of(Channel.ALL))  # its answer comes after all that was sent before
            window_bytes = mqtt_link.RECEIVE_MESSAGES_MAX * len(payload)
            assert window_bytes <= wire.down_bytes < 1.1 * window_bytes
            assert await payloads(b, count) == [payload] * count


async def test_heartbeats_that_nobody_reads_are_dropped_counted_and_hold_up_nothing_else(mosquitto: Mosquitto) -> None:
    anna, ben = [broker_of(mosquitto, device) for device in (ANNA, BEN)]
    async with anna.session() as a, ben.session() as b:
        await b.subscribe(of(Channel.BEAT, ANNA), letter(None, BEN))
        with capture_logs() as logs:
            for _ in range(3 * mqtt.BEATS_MAX):
                await a.publish(of(Channel.BEAT, ANNA), b"beat")
            await a.publish(letter(ANNA, BEN), b"letter")
            await b.unsubscribe(of(Channel.ALL))  # its answer comes after all that was sent before
        assert b"letter" in await payloads(b, 2)
        assert await payloads(b, mqtt.BEATS_MAX - 1) == [b"beat"] * (mqtt.BEATS_MAX - 1)
        with anyio.move_on_after(0):
            raise AssertionError(f"{await b.receive()} is more than may wait")
    assert [entry["dropped"] for entry in logs] == [1]


async def test_what_no_device_sends_at_qos_0_is_dropped(mosquitto: Mosquitto) -> None:
    ben = broker_of(mosquitto, BEN)
    async with ben.session() as b:
        await b.subscribe(letter(None, BEN), of(Channel.BEAT, ANNA), of(Channel.ALL))
        topics = Topics("home")
        messages = [
            (topics.topic(letter(ANNA, BEN)), b"junk", 0),
            (topics.topic(of(Channel.BEAT, ANNA)), bytes(mqtt.BEAT_BYTES_MAX + 1), 0),
            (topics.topic(letter(ANNA, BEN)), b"letter", 1),
        ]
        await publish_as_outsider(mosquitto, messages)
        assert (await take(b)).payload == b"letter"


async def test_a_message_that_is_too_long_never_crosses_the_link(mosquitto: Mosquitto) -> None:
    async with wire_to(mosquitto.port) as wire:
        ben = mqtt.from_url(f"mqtt://127.0.0.1:{wire.port}", cluster="home", device=BEN)
        async with ben.session() as b:
            await b.subscribe(letter(None, BEN))
            topic = Topics("home").topic(letter(ANNA, BEN))
            largest = bytes(b.message_bytes_max)
            messages = [(topic, bytes(8 << 20), 1), (topic, largest, 1), (topic, bytes(8 << 20), 1), (topic, b"", 1)]
            await publish_as_outsider(mosquitto, messages)
            assert await payloads(b, 2) == [largest, b""]
            assert wire.down_bytes < 2 * len(largest)


async def test_the_packets_on_the_wire_are_as_long_as_the_formula_says() -> None:
    async with mqtt_carrier() as carrier:
        anna, ben = [await carrier.broker(device) for device in (ANNA, BEN)]
        async with anna.session() as a, ben.session() as b:
            await b.subscribe(letter(None, BEN))
            wire = carrier.wires[ANNA]
            up_bytes, down_bytes = wire.up_bytes, wire.down_bytes
            await a.publish(letter(ANNA, BEN), bytes(5000), expiry_s=60)
            await take(b)
            topic_bytes = len(Topics("home").topic(letter(ANNA, BEN)))
            packet = publish_packet_bytes(topic_bytes=topic_bytes, payload_bytes=5000, qos=1, expiry=True)
            assert (wire.up_bytes - up_bytes, wire.down_bytes - down_bytes) == (packet, PUBACK_BYTES)


async def test_a_broker_is_told_of_times_as_they_are_on_its_own_clock(mosquitto: Mosquitto) -> None:
    """The client's goes ten times slower."""
    async with wire_to(mosquitto.port) as wire:
        url = f"mqtt://127.0.0.1:{wire.port}"
        async with mqtt.from_url(url, cluster="home", device=ANNA, slower=10.0).session() as a:
            await a.publish(letter(ANNA, BEN), b"", expiry_s=60)
        connect = wire.up_data.index(b"MQTT\x05")
        assert int.from_bytes(wire.up_data[connect + 6 : connect + 8]) == 10 * KEEPALIVE_S
        topic = Topics("home").topic(letter(ANNA, BEN)).encode()
        properties = wire.up_data.index(topic) + len(topic) + 2
        # length of the properties, the identifier of the expiry, the expiry
        assert wire.up_data[properties : properties + 6] == b"\x05\x02" + (600).to_bytes(4)


async def test_what_was_not_read_has_crossed_the_link_all_the_same(mosquitto: Mosquitto) -> None:
    anna, ben = [broker_of(mosquitto, device) for device in (ANNA, BEN)]
    async with anna.session() as a:
        async with ben.session() as b:
            await b.subscribe(letter(None, BEN))
            await a.publish(letter(ANNA, BEN), bytes(1000))
            await b.unsubscribe(of(Channel.ALL))
            assert ben.traffic.down_bytes == 0
        assert ben.traffic.down_bytes == anna.traffic.up_bytes


async def test_a_late_will_of_an_earlier_session_reaches_the_device_itself() -> None:
    async with mqtt_carrier() as carrier:
        anna = await carrier.broker(ANNA)
        will = Will(address=of(Channel.STATUS, ANNA), payload=b"offline")
        async with anna.session(will=will) as first:
            carrier.cut(ANNA)
            with pytest.raises(BrokerLost):
                await take(first)
        async with anna.session(will=will) as second:
            await second.subscribe(of(Channel.STATUS, ANNA))
            assert (await take(second)).payload == b"offline"


async def test_a_bad_url_is_bad_configuration() -> None:
    with pytest.raises(BadConfig, match="mqtt://HOST:PORT"):
        mqtt.from_url("http://broker.local", cluster="home", device=ANNA)
