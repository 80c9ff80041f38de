"""Who has a password for the broker and is no member: `pour_junk`, `recording` and `say_again`."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.support.mosquitto import Mosquitto

NEIGHBOUR = "neighbour"
"""The user who may do what the access list allows to everybody with a password."""
RECORDER = "recorder"
"""The user who may read and write everything."""
RECORDER_MAY = f"user {RECORDER}\ntopic readwrite #\n"
"""The lines of the access list that say so."""
JUNK_PER_S = 1600
JUNK_BYTES = 100
BURST_S = 0.05
TAKEN_S = 60.0
"""Seconds within which the broker takes all of a record."""


@attrs.frozen(kw_only=True)
class Recorded:
    """A message as it was published."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@contextmanager
def connected(broker: Mosquitto, user: str) -> Iterator[Client]:
    """A client of that user, whose network runs in a thread."""
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.username_pw_set(user, broker.users[user])
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


@contextmanager
def recording(broker: Mosquitto, topics: str) -> Iterator[list[Recorded]]:
    """The list to which all that is published to `topics` is added, what is retained and wills included."""
    record: list[Recorded] = []

    def take(_: Client, __: object, message: MQTTMessage) -> None:
        record.append(
            Recorded(topic=message.topic, payload=bytes(message.payload), qos=message.qos, retain=message.retain)
        )

    with connected(broker, RECORDER) as client:
        client.on_message = take
        client.subscribe(topics, options=SubscribeOptions(qos=1, retainAsPublished=True))
        yield record


def say_again(broker: Mosquitto, record: Sequence[Recorded]) -> None:
    """Publish a record as fast as the broker takes it."""
    with connected(broker, RECORDER) as client:
        for message in record:
            said = client.publish(message.topic, message.payload, message.qos, message.retain)
        said.wait_for_publish(TAKEN_S)


def pour_junk(broker: Mosquitto, topic: str, lasts_s: float) -> float:
    """Publish junk at QoS 0 for so long; returns how many messages a second that were."""
    began_s = time.monotonic()
    until_s, poured = began_s + lasts_s, 0
    with connected(broker, NEIGHBOUR) as client:
        while (now_s := time.monotonic()) < until_s:
            while poured < (now_s - began_s) * JUNK_PER_S:
                client.publish(topic, bytes(JUNK_BYTES), 0)
                poured += 1
            time.sleep(BURST_S)
    return poured / lasts_s
