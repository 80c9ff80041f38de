from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.topics import Topics, matches
from crowd.errors import MalformedMessage
from crowd.units import Address, Channel, DeviceId, is_identifier
from tests.brokers.talk import ANNA, BEN, chunk, letter, of

HOME = Topics("home")
# Few names, so that patterns and addresses meet; long and hyphenated ones among them.
NAMES = st.sampled_from(["a", "b", "kitchen-pi", "x" * 48]) | st.from_regex(
    r"[a-z0-9]{1,3}(-[a-z0-9]{1,3})?", fullmatch=True
)
DEVICES = NAMES.filter(lambda name: name != "all").map(DeviceId)
CHUNKS = st.integers(min_value=0, max_value=3) | st.integers(min_value=0, max_value=9_999_999_999)


@st.composite
def addresses(draw: st.DrawFn, *, patterns: bool = False) -> Address:
    def some(values: st.SearchStrategy[Any]) -> Any:
        return draw(st.none() | values if patterns else values)

    channel = draw(st.sampled_from(Channel))
    fields: dict[str, Any] = {"source": some(DEVICES)}
    match channel:
        case Channel.TO:
            fields |= {"destination": some(DEVICES)}
        case Channel.BLOB:
            fields |= {"destination": draw(st.none() | DEVICES), "name": some(NAMES), "chunk": some(CHUNKS)}
    return Address(channel=channel, **fields)


def mqtt_matches(topic_filter: str, topic: str) -> bool:
    """MQTT 5, section 4.7.1, for filters with `+` alone."""
    filter_levels, levels = topic_filter.split("/"), topic.split("/")
    return len(filter_levels) == len(levels) and all(f in ("+", t) for f, t in zip(filter_levels, levels, strict=True))


@given(address=addresses())
def test_every_address_comes_back_from_its_topic(address: Address) -> None:
    assert HOME.parse(HOME.topic(address)) == address


@given(pattern=addresses(patterns=True), address=addresses(), data=st.data())
def test_a_pattern_selects_here_what_a_broker_selects(pattern: Address, address: Address, data: st.DataObject) -> None:
    kept = data.draw(st.sets(st.sampled_from(["source", "destination", "name", "chunk"])))
    dropped: dict[str, Any] = {field: None for field in ("source", "name", "chunk") if field not in kept}
    near = attrs.evolve(address, **dropped)
    for candidate in (pattern, near):
        assert matches(candidate, address) == mqtt_matches(HOME.pattern(candidate), HOME.topic(address))


@given(
    text=st.text(max_size=20)
    | st.from_regex(r"crowd/1/home/(node|all|to|blob)(/[a-z0-9+#-]{0,5}){0,4}", fullmatch=True)
)
def test_a_topic_is_either_an_address_that_leads_back_to_it_or_refused(text: str) -> None:
    try:
        address = HOME.parse(text)
    except MalformedMessage:
        return
    assert HOME.topic(address) == text


@pytest.mark.parametrize(
    ("address", "topic"),
    [
        (of(Channel.STATUS, ANNA), "crowd/1/home/node/anna/status"),
        (of(Channel.PROFILE, ANNA), "crowd/1/home/node/anna/profile"),
        (of(Channel.BEAT, ANNA), "crowd/1/home/node/anna/beat"),
        (of(Channel.ALL, ANNA), "crowd/1/home/all/anna"),
        (letter(ANNA, BEN), "crowd/1/home/to/ben/anna"),
        (chunk(ANNA, BEN, "t-1", 12), "crowd/1/home/blob/ben/anna/t-1/12"),
        (chunk(ANNA, None, "t-1", 0), "crowd/1/home/blob/all/anna/t-1/0"),
    ],
)
def test_the_topic_tree_is_the_documented_one(address: Address, topic: str) -> None:
    assert HOME.topic(address) == topic


@pytest.mark.parametrize(
    "topic",
    [
        "crowd/1/garden/all/anna",
        "crowd/2/home/all/anna",
        "crowd/1/home",
        "crowd/1/home/all/Anna",
        "crowd/1/home/all/",
        "crowd/1/home/blob/ben/anna/t/01",
        "crowd/1/home/blob/ben/anna/t/-1",
        "crowd/1/home/blob/ben/anna/t/99999999999",
        "crowd/1/home/node/anna/secret",
        "crowd/1/home/node/anna/set/pause",
        "homeassistant/status",
    ],
)
def test_a_foreign_topic_is_malformed(topic: str) -> None:
    with pytest.raises(MalformedMessage, match="home"):
        HOME.parse(topic)


@pytest.mark.parametrize(
    "address",
    [
        of(Channel.PROFILE),
        letter(ANNA, None),
        chunk(ANNA, BEN, "t", None),
        Address(channel=Channel.ALL, source=ANNA, destination=BEN),
        of(Channel.ALL, DeviceId("anna/../ben")),
        of(Channel.ALL, DeviceId("+")),
        chunk(ANNA, DeviceId("all"), "t", 0),
        chunk(ANNA, BEN, "t", -1),
    ],
)
def test_an_address_that_is_no_single_topic_cannot_be_published_to(address: Address) -> None:
    with pytest.raises(ValueError, match=address.channel.name):
        HOME.topic(address)


def test_a_cluster_name_that_would_change_the_tree_is_refused() -> None:
    assert not is_identifier("home/x")
    with pytest.raises(ValueError, match="home/x"):
        Topics("home/x")
