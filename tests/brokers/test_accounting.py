import pytest

from brokers.accounting import Meter, crossing, publish_packet_bytes
from crowd.ports import Traffic


def test_a_small_message_is_counted_as_the_specification_lays_it_out() -> None:
    # fixed header 2, topic 2 + 24, packet identifier 2, no properties 1, payload 10
    assert publish_packet_bytes(topic_bytes=24, payload_bytes=10, qos=1) == 41
    assert publish_packet_bytes(topic_bytes=24, payload_bytes=10, qos=0) == 39
    assert publish_packet_bytes(topic_bytes=24, payload_bytes=10, qos=1, expiry=True) == 46


@pytest.mark.parametrize(
    ("remaining", "length_bytes"),
    [(127, 1), (128, 2), (16_383, 2), (16_384, 3), (2_097_151, 3), (2_097_152, 4)],
)
def test_the_remaining_length_takes_as_many_bytes_as_the_specification_says(remaining: int, length_bytes: int) -> None:
    topic_bytes = 20
    payload_bytes = remaining - 2 - topic_bytes - 1
    packet = publish_packet_bytes(topic_bytes=topic_bytes, payload_bytes=payload_bytes, qos=0)
    assert packet == 1 + length_bytes + remaining


def test_one_segment_there_and_its_acknowledgement_back() -> None:
    heartbeat = crossing(topic_bytes=24, payload_bytes=10, qos=0)
    assert (heartbeat.forward_bytes, heartbeat.backward_bytes) == (39 + 52, 52)
    letter = crossing(topic_bytes=24, payload_bytes=10, qos=1)
    assert (letter.forward_bytes, letter.backward_bytes) == (41 + 52 + 52, 4 + 52)


def test_a_large_message_has_a_header_for_each_segment_and_half_as_many_acknowledgements() -> None:
    payload_bytes = 10 * 1448 - 24 - 8  # the packet fills ten segments
    assert publish_packet_bytes(topic_bytes=24, payload_bytes=payload_bytes, qos=1) == 10 * 1448
    exact = crossing(topic_bytes=24, payload_bytes=payload_bytes, qos=1)
    assert (exact.forward_bytes, exact.backward_bytes) == (10 * 1500 + 52, 4 + 5 * 52)
    more = crossing(topic_bytes=24, payload_bytes=payload_bytes + 1, qos=1)
    assert (more.forward_bytes, more.backward_bytes) == (10 * 1500 + 53 + 52, 4 + 6 * 52)


def test_a_meter_adds_up_both_directions() -> None:
    meter = Meter()
    message = crossing(topic_bytes=24, payload_bytes=10, qos=1)
    meter.sent(message)
    meter.sent(message)
    meter.received(message)
    assert meter.traffic == Traffic(up_bytes=2 * 145 + 56, down_bytes=2 * 56 + 145)
