"""What goes over the wire comes back as it was; anything else is refused with one line, and with nothing but that."""

from typing import Any, get_args

import attrs
import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crowd.agreement.ack import Ack, StateProgress
from crowd.errors import MalformedMessage
from crowd.planning.plan import Encoding
from crowd.planning.profile import Prefer, Profile, Share, TaskFacts
from crowd.ports import MESSAGE_BYTES_MAX, Signer
from crowd.protocol.codec import BOOTS_MAX, Opener, Reason, Refused, Sealer, decode, encode
from crowd.protocol.identity import ephemeral_signers
from crowd.protocol.messages import (
    PROTOCOL_VERSION,
    AckMessage,
    Beat,
    Cargo,
    Contribution,
    Done,
    Evictions,
    Message,
    Offer,
    ProbeRequest,
    ProfileMessage,
    SliceKey,
    ViewReply,
    Want,
)
from crowd.units import Address, Channel, DeviceId, Life, device_id
from tests.support.profiles import task_adding_up, task_facts

GATEWAY, CAMERA = device_id("gateway"), device_id("camera")
LIFE = Life(incarnation=3, boot=b"b" * 16)

# --- payloads ---------------------------------------------------------------------------------------------------------

_identifiers = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
_naturals = st.integers(0, (1 << 64) - 1)
_integers = st.integers(-(1 << 63), (1 << 63) - 1)
_reals = st.floats(allow_nan=False, allow_infinity=False)
_plain_text, _real_or_none = st.text(max_size=20), st.none() | _reals
_LEAVES = {DeviceId: _identifiers, int: _naturals, str: _plain_text, float: _reals, float | None: _real_or_none}


def _fields(cls: Any) -> st.SearchStrategy[Any]:
    """Any value of an attrs class, as its annotations have it."""
    special = {"seed": _integers, "transfer": _identifiers, "counters": st.lists(_integers, max_size=3).map(tuple)}
    made = task_adding_up if cls is TaskFacts else cls
    return st.builds(made, **{field.name: special.get(field.name, _of(field.type)) for field in attrs.fields(cls)})


def _of(kind: Any) -> st.SearchStrategy[Any]:
    if (leaf := _LEAVES.get(kind)) is not None:
        return leaf
    if kind == Cargo:
        return st.one_of([_fields(cargo) for cargo in get_args(Cargo)])
    if attrs.has(kind):
        return _fields(kind)
    match getattr(kind, "__origin__", None), get_args(kind):
        case origin, (item, last) if origin is tuple and last is Ellipsis:
            return st.lists(_of(item), max_size=3).map(tuple)
        case origin, items if origin is tuple:
            return st.tuples(*(_of(item) for item in items))
        case origin, (key, value) if origin is dict:
            return st.dictionaries(_of(key), _of(value), max_size=3)
    return st.from_type(kind)


any_message = st.one_of([_fields(kind) for kind in get_args(Message)])


@pytest.mark.parametrize("kind", get_args(Message), ids=lambda kind: kind.__name__)
def test_every_kind_of_message_comes_back_as_it_was(kind: Any) -> None:
    @given(_fields(kind))
    @settings(max_examples=30, deadline=None)
    def check(message: Any) -> None:
        decoded = decode(encode(message))
        assert decoded == message
        assert type(decoded) is kind

    check()


@pytest.mark.parametrize("cargo", get_args(Cargo), ids=lambda cargo: cargo.__name__)
def test_every_kind_of_cargo_comes_back_as_it_was(cargo: Any) -> None:
    @given(_fields(cargo))
    @settings(max_examples=30, deadline=None)
    def check(value: Any) -> None:
        assert decode(encode(_offer(value))) == _offer(value)

    check()


def _offer(cargo: Cargo) -> Offer:
    return Offer(transfer="a-1", cargo=cargo, size_bytes=3, chunk_bytes=9, digests=(b"d" * 16,), inline=b"abc")


def _refusal(payload: bytes) -> Refused:
    with pytest.raises(MalformedMessage) as caught:
        decode(payload)
    assert isinstance(caught.value, Refused)
    assert "\n" not in str(caught.value)
    assert 0 < len(str(caught.value)) < 400
    return caught.value


@given(st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_arbitrary_bytes_are_malformed_and_nothing_worse(payload: bytes) -> None:
    _refusal(payload)


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda item: st.lists(item, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), item, max_size=4),
    max_leaves=10,
)


@given(_plain)
@settings(max_examples=300, deadline=None)
def test_arbitrary_values_are_malformed_and_nothing_worse(value: Any) -> None:
    _refusal(cbor2.dumps(value))


@given(st.data())
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_message_with_changed_bytes_is_another_message_or_malformed_and_nothing_worse(data: st.DataObject) -> None:
    payload = bytearray(encode(data.draw(any_message)))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(payload)))
        payload[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        message = decode(bytes(payload))
    except Refused:
        return
    assert decode(encode(message)) == message


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in _paths(item, (*path, key)))]


@given(st.data(), _plain)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_message_with_one_value_replaced_is_refused_unless_it_says_exactly_that(
    data: st.DataObject, replacement: Any
) -> None:
    plain = cbor2.loads(encode(data.draw(any_message)))
    *inner, last = data.draw(st.sampled_from([path for path in _paths(plain) if path]))
    holder = plain
    for key in inner:
        holder = holder[key]
    holder[last] = replacement
    payload = cbor2.dumps(plain)
    try:
        message = decode(payload)
    except Refused:
        return
    # What was let in says the same again, type by type: 5 has not become "5", nor True 1.
    assert repr(cbor2.loads(encode(message))) == repr(cbor2.loads(payload))


_KEY = SliceKey(generation=1, plan_digest=b"p" * 16, round=2, index=0)
_BEAT = Beat(life=LIFE, view_digest=b"v" * 16, generation=7)
_ENCODINGS = ", ".join(repr(encoding.value) for encoding in Encoding)
_OFFER = Offer(
    transfer="a-1",
    cargo=Contribution(key=_KEY, encoding=Encoding.FLOAT16, samples=3, counters=(-1,)),
    size_bytes=3,
    chunk_bytes=9,
    digests=(b"d" * 16,),
    inline=b"abc",
)


def _changed(message: Message, path: str, value: Any) -> bytes:
    """The payload of `message` with the value at the dotted `path` replaced; `...` removes it."""
    plain = cbor2.loads(encode(message))
    *inner, last = path.split(".")
    holder = plain
    for key in inner:
        holder = holder[key]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    return cbor2.dumps(plain)


@pytest.mark.parametrize(
    ("message", "path", "value", "text"),
    [
        (_BEAT, "generation", "7", "'7' is no integer from 0 to 2^64 - 1 @ message.generation"),
        (_BEAT, "generation", True, "True is no integer"),
        (_BEAT, "generation", 7.0, "7.0 is no integer"),
        (_BEAT, "generation", None, "None is no integer"),
        (_BEAT, "generation", -1, "-1 is no integer"),
        (_BEAT, "generation", 1 << 64, "semantic tag"),
        (_BEAT, "generation", ..., "Beat lacks generation"),
        (_BEAT, "colour", 1, "Beat has no 'colour'"),
        (_BEAT, "life", [3, b"b"], "expected a map, found [3, b'b'] @ message.life"),
        (_BEAT, "life.boot", "bbbb", "'bbbb' is no byte string @ message.life.boot"),
        (_BEAT, "t", ..., "does not say its kind"),
        (_BEAT, "t", [1], "does not say its kind"),
        (_OFFER, "cargo.sums", [1.0, float("inf")], "inf is no finite floating-point number"),
        (Done(transfer="a-1"), "refused", 1, "1 is no boolean"),
        (Done(transfer="a-1"), "refused", ..., "Done lacks refused"),
        (Done(transfer="a-1"), "transfer", "a/b", "'a/b' is no identifier"),
        (Done(transfer="a-1"), "transfer", "a" * 49, "is no identifier"),
        (Want(transfer="a-1", chunks=((0, 1),)), "chunks", [[0, 1, 2]], "expected an array of 2, found 3"),
        (Want(transfer="a-1", chunks=((0, 1),)), "chunks", "ab", "expected an array, found 'ab'"),
        (Want(transfer="a-1", chunks=((0, 1),)), "chunks", {"0": 1}, "expected an array, found {'0': 1}"),
        (Evictions(lives={GATEWAY: LIFE}), "lives", {"No ID": {}}, "'No ID' is no identifier"),
        (Evictions(lives={GATEWAY: LIFE}), "lives", [], "expected a map, found []"),
        (_OFFER, "cargo.encoding", "f17", f"expected one of {_ENCODINGS}, found 'f17' @ message.cargo.encoding"),
        (_OFFER, "cargo.encoding", 1, "expected one of 'float32'"),
        (_OFFER, "cargo.counters", [1 << 63], "is no 64-bit integer @ message.cargo.counters"),
        (_OFFER, "cargo.samples", -3, "-3 is no integer from 0"),
        (_OFFER, "inline", "abc", "'abc' is no byte string"),
        (_OFFER, "digests", [b"d", 1], "1 is no byte string"),
    ],
)
def test_what_is_not_exactly_a_message_is_malformed(message: Message, path: str, value: Any, text: str) -> None:
    refusal = _refusal(_changed(message, path, value))
    assert refusal.reason is Reason.MALFORMED
    assert text in str(refusal)


@pytest.mark.parametrize("path", ["t", "cargo.t"])
def test_a_kind_that_this_version_does_not_know_is_told_from_malformed(path: str) -> None:
    refusal = _refusal(_changed(_OFFER, path, "telepathy"))
    assert refusal.reason is Reason.UNKNOWN_KIND
    assert "'telepathy' is not known here" in str(refusal)


def test_a_cargo_is_no_message_and_a_message_no_cargo() -> None:
    assert _refusal(_changed(_OFFER, "t", "delta")).reason is Reason.UNKNOWN_KIND
    assert _refusal(_changed(_OFFER, "cargo.t", "beat")).reason is Reason.UNKNOWN_KIND


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (encode(_BEAT) + b"\x00", "1 bytes follow the CBOR value"),
        (encode(_BEAT)[:-1], "no valid CBOR"),
        (b"", "no valid CBOR"),
        (b"\x81" * 9 + b"\x00", "nesting depth"),
        (b"\x81" * 100_000 + b"\x00", "nesting depth"),
        (b"\x9b\x7f" + b"\xff" * 7, "no valid CBOR"),
        (b"\x5b\x00\x00\x00\x7f" + b"\xff" * 4, "no valid CBOR"),
        (b"\xd8\x1c\x81\xd8\x1d\x00", "semantic tag"),
        (cbor2.dumps(cbor2.CBORTag(5, [1 << 62, 3])), "semantic tag"),
        (b"\xd9\xd9\xf7" + encode(_BEAT), "semantic tag"),
        (b"\xa2\x61t\x64beat\x61t\x64beat", "Duplicate map key"),
        (b"\xa2" + (b"\x79\x03\xe8" + b"k" * 1000 + b"\x00") * 2, "Duplicate map key"),
        (b"\xbf\x61t\x64beat\xff", "indefinite"),
        (b"\xa1\x01\x02", "no valid CBOR"),
        (b"\x62\xff\xff", "no valid CBOR"),
    ],
    ids=[
        "trailing byte", "cut short", "empty", "over-deep", "bottomless", "endless array", "endless bytes", "a knot",
        "a huge float", "tagged", "duplicate key", "long duplicate key", "indefinite length", "a key that is no text",
        "no UTF-8",
    ],
)  # fmt: skip
def test_what_cbor_would_let_pass_is_malformed(payload: bytes, text: str) -> None:
    assert text in str(_refusal(payload))


def test_an_overlong_text_is_malformed() -> None:
    profile = _profile(GATEWAY)
    assert decode(encode(ProfileMessage(profile=attrs.evolve(profile, unfit="x" * 1024)))).profile.unfit  # type: ignore[union-attr]
    assert "is no text of at most 1024" in str(
        _refusal(_changed(ProfileMessage(profile=profile), "profile.unfit", "x" * 1025))
    )


def test_a_seed_may_be_negative() -> None:
    message = ProfileMessage(profile=attrs.evolve(_profile(GATEWAY), seed=-5))
    assert decode(encode(message)) == message


def _profile(device: DeviceId) -> Profile:
    return Profile(
        device=device, life=LIFE, revision=1, run=0, started=False, members_min=1, policy="crowd_learning",
        policy_version=1, protocol_version=PROTOCOL_VERSION, prefer=Prefer.TIME, seed=0, task=task_facts(),
        speed_kflops=1, memory_bytes=1, uplink_bytes_s=1, downlink_bytes_s=1, link_assumed=True, share=Share.RAW,
        data_epoch=0, label_counts=(1, 2),
    )  # fmt: skip


# --- envelopes --------------------------------------------------------------------------------------------------------

BEAT_ADDRESS = Address(channel=Channel.BEAT, source=GATEWAY)
PROFILE_ADDRESS = Address(channel=Channel.PROFILE, source=GATEWAY)


@attrs.define
class Pair:
    """The gateway seals, the camera opens."""

    signers: dict[DeviceId, Signer] = attrs.field(factory=lambda: dict(ephemeral_signers([GATEWAY, CAMERA])))
    sealer: Sealer = attrs.field(init=False)
    opener: Opener = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sealer = Sealer("home", GATEWAY, LIFE, self.signers[GATEWAY])
        self.opener = Opener("home", CAMERA, self.signers[CAMERA])

    def refuses(self, address: Address, data: bytes) -> Reason:
        with pytest.raises(Refused) as caught:
            self.opener.open(address, data)
        assert "\n" not in str(caught.value)
        return caught.value.reason

    def refuses_relayed(self, data: bytes) -> Reason:
        with pytest.raises(Refused) as caught:
            self.opener.open_relayed(data)
        return caught.value.reason


@pytest.fixture
def pair() -> Pair:
    return Pair()


def _resigned(pair: Pair, data: bytes, position: int, value: Any) -> bytes:
    """The envelope with one item replaced, signed by the gateway."""
    items = cbor2.loads(data)
    items[position] = value
    signed = cbor2.dumps([*items[:8], b""])[:-1]
    return signed + cbor2.dumps(pair.signers[GATEWAY].sign(signed))


def test_what_a_member_sealed_is_opened_with_its_name_life_and_number(pair: Pair) -> None:
    for number in range(3):
        opened = pair.opener.open(BEAT_ADDRESS, pair.sealer.seal(BEAT_ADDRESS, _BEAT))
        assert (opened.sender, opened.life, opened.sequence, opened.message) == (GATEWAY, LIFE, number, _BEAT)


def test_every_field_of_an_address_travels(pair: Pair) -> None:
    address = Address(channel=Channel.TO, source=GATEWAY, destination=CAMERA, name="n", chunk=4)
    assert pair.opener.open(address, pair.sealer.seal(address, ProbeRequest(nonce=1))).message == ProbeRequest(nonce=1)


def test_a_new_life_is_in_the_next_envelope(pair: Pair) -> None:
    pair.sealer.life = Life(incarnation=4, boot=b"c" * 16)
    assert pair.opener.open(BEAT_ADDRESS, pair.sealer.seal(BEAT_ADDRESS, _BEAT)).life == pair.sealer.life


def test_length_is_checked_before_anything_is_decoded(pair: Pair) -> None:
    assert pair.refuses(BEAT_ADDRESS, b"\xff" * (MESSAGE_BYTES_MAX + 1)) is Reason.TOO_LONG
    assert pair.refuses(BEAT_ADDRESS, b"\xff" * MESSAGE_BYTES_MAX) is Reason.MALFORMED


def test_nothing_is_sealed_that_would_not_be_let_in(pair: Pair) -> None:
    with pytest.raises(Refused) as caught:
        pair.sealer.seal(BEAT_ADDRESS, ViewReply(envelopes=(bytes(MESSAGE_BYTES_MAX),), tombstones={}, suspended={}))
    assert caught.value.reason is Reason.TOO_LONG


@given(st.binary(max_size=300) | _plain.map(cbor2.dumps))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_are_no_envelope_and_nothing_worse(data: bytes) -> None:
    assert Pair().refuses(BEAT_ADDRESS, data) in {Reason.MALFORMED, Reason.WRONG_VERSION, Reason.WRONG_CLUSTER}


_PAIR = Pair()
_WHOLE = _PAIR.sealer.seal(BEAT_ADDRESS, _BEAT)


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_no_changed_envelope_is_let_in(data: st.DataObject) -> None:
    changed = bytearray(_WHOLE)
    start = data.draw(st.integers(0, len(_WHOLE)))
    changed[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    if bytes(changed) != _WHOLE:
        assert _PAIR.refuses(BEAT_ADDRESS, bytes(changed))


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, "1"), (0, True), (1, "no/cluster"), (2, 5), (3, -1), (3, None), (4, "boot"), (4, b"b" * 17), (5, -1),
        (5, 1 << 64), (6, ["beat"]), (6, ["nowhere", "gateway", None, None, None]), (6, [["beat"], "gateway", 1, 2, 3]),
        (6, ["beat", "gateway", None, None, -1]), (7, "payload"), (7, [1]), (7, b"payload"),
    ],
)  # fmt: skip
def test_an_envelope_of_another_shape_is_malformed_even_if_signed(pair: Pair, position: int, value: Any) -> None:
    data = _resigned(pair, pair.sealer.seal(BEAT_ADDRESS, _BEAT), position, value)
    assert pair.refuses(BEAT_ADDRESS, data) is Reason.MALFORMED


def test_bytes_behind_an_envelope_are_malformed(pair: Pair) -> None:
    assert pair.refuses(BEAT_ADDRESS, pair.sealer.seal(BEAT_ADDRESS, _BEAT) + b"\x00") is Reason.MALFORMED


def test_the_header_is_readable_whatever_else_another_version_writes(pair: Pair) -> None:
    for rest in ([], ["anything", {"a": 1}], [1] * 20):
        data = cbor2.dumps([PROTOCOL_VERSION + 1, "home", GATEWAY, *rest])
        assert pair.refuses(BEAT_ADDRESS, data) is Reason.WRONG_VERSION


def test_another_clusters_envelope_is_refused(pair: Pair) -> None:
    other = Sealer("office", GATEWAY, LIFE, pair.signers[GATEWAY])
    assert pair.refuses(BEAT_ADDRESS, other.seal(BEAT_ADDRESS, _BEAT)) is Reason.WRONG_CLUSTER


def test_an_envelope_is_refused_on_any_address_but_its_own(pair: Pair) -> None:
    data = pair.sealer.seal(BEAT_ADDRESS, _BEAT)
    for address in (PROFILE_ADDRESS, attrs.evolve(BEAT_ADDRESS, source=CAMERA), attrs.evolve(BEAT_ADDRESS, name="x")):
        assert pair.refuses(address, data) is Reason.WRONG_ADDRESS


def test_a_member_cannot_send_as_another(pair: Pair) -> None:
    address = Address(channel=Channel.BEAT, source=CAMERA)
    assert pair.refuses(address, pair.sealer.seal(address, _BEAT)) is Reason.WRONG_ADDRESS


def test_what_is_for_another_device_is_refused(pair: Pair) -> None:
    address = Address(channel=Channel.TO, source=GATEWAY, destination=device_id("shelf"))
    assert pair.refuses(address, pair.sealer.seal(address, ProbeRequest(nonce=1))) is Reason.WRONG_ADDRESS


def test_nobody_but_a_member_gets_in_and_only_under_its_own_name(pair: Pair) -> None:
    for signer in (ephemeral_signers([GATEWAY])[GATEWAY], pair.signers[CAMERA]):
        forger = Sealer("home", GATEWAY, LIFE, signer)
        assert pair.refuses(BEAT_ADDRESS, forger.seal(BEAT_ADDRESS, _BEAT)) is Reason.BAD_SIGNATURE


def test_a_member_speaks_for_itself_alone(pair: Pair) -> None:
    data = pair.sealer.seal(PROFILE_ADDRESS, ProfileMessage(profile=_profile(CAMERA)))
    assert pair.refuses(PROFILE_ADDRESS, data) is Reason.MALFORMED
    address = Address(channel=Channel.ACK, source=GATEWAY)
    ack = Ack(device=CAMERA, life=LIFE, generation=1, view_digest=b"v", plan_digest=b"p", progress=StateProgress())
    assert pair.refuses(address, pair.sealer.seal(address, AckMessage(ack=ack))) is Reason.MALFORMED


def test_a_forged_envelope_does_not_use_up_the_number_of_the_true_one(pair: Pair) -> None:
    true = pair.sealer.seal(BEAT_ADDRESS, _BEAT)
    forged = true[:-1] + bytes([true[-1] ^ 1])
    assert pair.refuses(BEAT_ADDRESS, forged) is Reason.BAD_SIGNATURE
    assert pair.opener.open(BEAT_ADDRESS, true).message == _BEAT


def test_an_envelope_is_let_in_once_in_whatever_order_they_come(pair: Pair) -> None:
    sealed = [pair.sealer.seal(BEAT_ADDRESS, _BEAT) for _ in range(20)]
    for data in reversed(sealed):
        pair.opener.open(BEAT_ADDRESS, data)
    for data in sealed:
        assert pair.refuses(BEAT_ADDRESS, data) is Reason.DUPLICATE


class PlainSigner(Signer):
    """Signs nothing: for tests of what comes after the signature, in numbers."""

    def sign(self, data: bytes) -> bytes:
        return b""

    def verify(self, device: DeviceId, data: bytes, signature: bytes) -> bool:
        return True

    def is_member(self, device: DeviceId) -> bool:
        return True


def test_numbers_that_left_the_window_are_duplicates_unless_the_broker_keeps_them() -> None:
    pair = Pair(signers={GATEWAY: PlainSigner(), CAMERA: PlainSigner()})
    kept = pair.sealer.seal(PROFILE_ADDRESS, ProfileMessage(profile=_profile(GATEWAY)))
    old = [pair.sealer.seal(BEAT_ADDRESS, _BEAT) for _ in range(2)]
    for _ in range(8190):
        pair.opener.open(BEAT_ADDRESS, pair.sealer.seal(BEAT_ADDRESS, _BEAT))
    pair.opener.open(BEAT_ADDRESS, old[0])
    assert pair.refuses(BEAT_ADDRESS, old[0]) is Reason.DUPLICATE
    pair.opener.open(BEAT_ADDRESS, pair.sealer.seal(BEAT_ADDRESS, _BEAT))
    pair.opener.open(BEAT_ADDRESS, old[1])
    pair.opener.open(BEAT_ADDRESS, pair.sealer.seal(BEAT_ADDRESS, _BEAT))
    assert pair.refuses(BEAT_ADDRESS, old[1]) is Reason.DUPLICATE
    assert pair.opener.open(PROFILE_ADDRESS, kept).sequence == 0


def test_a_leap_of_the_number_costs_no_memory() -> None:
    pair = Pair(signers={GATEWAY: PlainSigner(), CAMERA: PlainSigner()})
    pair.opener.open(BEAT_ADDRESS, pair.sealer.seal(BEAT_ADDRESS, _BEAT))
    far = _resigned(pair, pair.sealer.seal(BEAT_ADDRESS, _BEAT), 5, (1 << 64) - 1)
    assert pair.opener.open(BEAT_ADDRESS, far).sequence == (1 << 64) - 1
    assert pair.refuses(BEAT_ADDRESS, far) is Reason.DUPLICATE


def test_the_last_lives_of_a_sender_are_remembered(pair: Pair) -> None:
    sealed = []
    for boot in range(BOOTS_MAX + 1):
        pair.sealer.life = Life(incarnation=boot, boot=bytes([boot]))
        sealed.append(pair.sealer.seal(BEAT_ADDRESS, _BEAT))
        pair.opener.open(BEAT_ADDRESS, sealed[-1])
    for data in sealed[1:]:
        assert pair.refuses(BEAT_ADDRESS, data) is Reason.DUPLICATE
    pair.opener.open(BEAT_ADDRESS, sealed[0])


@pytest.mark.parametrize(
    "address",
    [PROFILE_ADDRESS, Address(channel=Channel.TO, source=GATEWAY, destination=DeviceId("third"))],
    ids=["said to all", "said to somebody else who asked"],
)
def test_a_relayed_profile_is_opened_as_often_as_it_comes(pair: Pair, address: Address) -> None:
    message = ProfileMessage(profile=_profile(GATEWAY))
    data = pair.sealer.seal(address, message)
    for _ in range(2):
        opened = pair.opener.open_relayed(data)
        assert (opened.sender, opened.life, opened.message) == (GATEWAY, LIFE, message)


def test_nothing_but_a_true_profile_is_opened_when_relayed(pair: Pair) -> None:
    data = pair.sealer.seal(PROFILE_ADDRESS, ProfileMessage(profile=_profile(GATEWAY)))
    assert pair.refuses_relayed(pair.sealer.seal(BEAT_ADDRESS, _BEAT)) is Reason.MALFORMED
    assert pair.refuses_relayed(pair.sealer.seal(PROFILE_ADDRESS, _BEAT)) is Reason.MALFORMED
    assert pair.refuses_relayed(data[:-1] + bytes([data[-1] ^ 1])) is Reason.BAD_SIGNATURE
    foreign = Sealer("office", GATEWAY, LIFE, pair.signers[GATEWAY])
    assert pair.refuses_relayed(foreign.seal(PROFILE_ADDRESS, _BEAT)) is Reason.WRONG_CLUSTER
    assert pair.refuses_relayed(b"\xff" * (MESSAGE_BYTES_MAX + 1)) is Reason.TOO_LONG
