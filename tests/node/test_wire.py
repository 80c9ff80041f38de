"""A node in the middle of a training, and a stranger on its broker who sends what nobody should."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import attrs
import cbor2
import pytest
from structlog.testing import capture_logs

from crowd.planning.plan import Encoding
from crowd.ports import MESSAGE_BYTES_MAX, BrokerSession, Delivery
from crowd.protocol.codec import Sealer, encode
from crowd.protocol.envelope import Envelope, Header
from crowd.protocol.messages import (
    PROTOCOL_VERSION,
    AckMessage,
    AskSlice,
    AskState,
    Beat,
    Cargo,
    Contribution,
    MergedSlice,
    Message,
    Offer,
    ProbeRequest,
    ProfileMessage,
    SliceKey,
    Want,
    WholeState,
)
from crowd.protocol.transfer.manifest import CHUNK_BYTES, make_offer
from crowd.units import Address, Channel, DeviceId, Life
from tests.node.cluster import CLUSTER, Cluster, blobs, is_sealed, round_of
from tests.node.test_run import LONG, expect_one_model
from tests.support.virtual import virtual_time

ADA, BEN, MALLORY = DeviceId("ada"), DeviceId("ben"), DeviceId("mallory")
LIFE = Life(incarnation=7, boot=b"mallory")
KEY = SliceKey(generation=1, plan_digest=b"no such plan", round=1, index=0)
SEALED = (Channel.PROFILE, Channel.ACK, Channel.RESULT, Channel.BEAT, Channel.ALL, Channel.TO)
GARBAGE = (b"\0", b"\xff" * 40, b"not CBOR", cbor2.dumps([]), cbor2.dumps({"a": 1}), cbor2.dumps([1] * 9))

Crime = Callable[[Cluster], Iterator[tuple[Address, bytes]]]


def address(channel: Channel, source: DeviceId = MALLORY) -> Address:
    """Of a message that `ada` reads."""
    if channel is Channel.BEAT:
        source = BEN  # whose heartbeat she watches
    return Address(channel=channel, source=source, destination=ADA if channel is Channel.TO else None)


def sealed(devices: Cluster, to: Address, payload: bytes, sequence: int, **changes: Any) -> bytes:
    """An envelope that is right but for `changes` of its header."""
    header = Header(version=PROTOCOL_VERSION, cluster=CLUSTER, sender=MALLORY if to.source is None else to.source)
    envelope = Envelope(
        header=attrs.evolve(header, **changes), life=LIFE, sequence=sequence, address=to, payload=payload
    )
    return envelope.write(devices.signers[envelope.header.sender].sign)


def everywhere(devices: Cluster, payload: bytes, **changes: Any) -> Iterator[tuple[Address, bytes]]:
    for number, channel in enumerate(SEALED):
        to = address(channel)
        yield to, sealed(devices, to, payload, 1000 + number, **changes)


# --- crimes -----------------------------------------------------------------------------------------------------------


def garbage(cluster: Cluster) -> Iterator[tuple[Address, bytes]]:
    for channel in (*SEALED, Channel.STATUS, Channel.INFO):
        yield from ((address(channel), data) for data in GARBAGE)


def truncated(cluster: Cluster) -> Iterator[tuple[Address, bytes]]:
    for to, whole in everywhere(cluster, encode(ProbeRequest(nonce=1))):
        yield from ((to, whole[:length]) for length in range(1, len(whole), 7))


def oversize(cluster: Cluster) -> Iterator[tuple[Address, bytes]]:
    yield from everywhere(cluster, bytes(MESSAGE_BYTES_MAX))


def mis_signed(cluster: Cluster) -> Iterator[tuple[Address, bytes]]:
    for to, whole in everywhere(cluster, encode(ProbeRequest(nonce=1))):
        yield to, whole[:-1] + bytes([whole[-1] ^ 1])
        yield to, whole.replace(encode(ProbeRequest(nonce=1)), encode(ProbeRequest(nonce=2)))


def wrong_version(cluster: Cluster) -> Iterator[tuple[Address, bytes]]:
    yield from everywhere(cluster, encode(ProbeRequest(nonce=1)), version=PROTOCOL_VERSION + 1)


def wrong_cluster(cluster: Cluster) -> Iterator[tuple[Address, bytes]]:
    yield from everywhere(cluster, encode(ProbeRequest(nonce=1)), cluster="next-door")


def wrong_address(cluster: Cluster) -> Iterator[tuple[Address, bytes]]:
    """What Mallory signed, as if it came from Ben, and what she told others."""
    probe = encode(ProbeRequest(nonce=1))
    yield (
        address(Channel.TO, BEN),
        sealed(cluster, Address(channel=Channel.TO, source=MALLORY, destination=ADA), probe, 1),
    )
    yield (
        address(Channel.TO),
        sealed(cluster, Address(channel=Channel.TO, source=MALLORY, destination=BEN), probe, 2),
    )


def unknown_kind(cluster: Cluster) -> Iterator[tuple[Address, bytes]]:
    yield from everywhere(cluster, cbor2.dumps({"t": "gossip", "text": "hello"}))
    yield from everywhere(cluster, encode(ProbeRequest(nonce=1)).replace(b"probe?", b"prober"))


def wrongly_typed(cluster: Cluster) -> Iterator[tuple[Address, bytes]]:
    right = cbor2.loads(encode(ProbeRequest(nonce=1)))
    yield from everywhere(cluster, cbor2.dumps(right)[:-1] + cbor2.dumps("5"))
    wrong: list[object] = [
        None,
        5,
        [],
        "text",
        {},
        {**right, "more": 1},
        {**right, "nonce": -1},
        {**right, "nonce": 1.5},
    ]
    for each in wrong:
        yield from everywhere(cluster, cbor2.dumps(each))


def speaking_for_others(cluster: Cluster) -> Iterator[tuple[Address, bytes]]:
    """Ben's own profile and ack, in an envelope of Mallory's."""
    for channel, message in ((Channel.PROFILE, profile_of(cluster)), (Channel.ACK, ack_of(cluster))):
        yield address(channel), sealed(cluster, address(channel), encode(message), 2000)


def profile_of(cluster: Cluster) -> ProfileMessage:
    return next(message for message in cluster.hub.messages(BEN) if isinstance(message, ProfileMessage))


def ack_of(cluster: Cluster) -> AckMessage:
    return next(message for message in cluster.hub.messages(BEN) if isinstance(message, AckMessage))


REASONS: dict[str, tuple[Crime, ...]] = {
    "malformed": (garbage, truncated, wrongly_typed, speaking_for_others),
    "too_long": (oversize,),
    "bad_signature": (mis_signed,),
    "wrong_version": (wrong_version,),
    "wrong_cluster": (wrong_cluster,),
    "wrong_address": (wrong_address,),
    "unknown_kind": (unknown_kind,),
}


# --- and what comes of them -------------------------------------------------------------------------------------------


def two_in_training() -> Cluster:
    """Two that need more than two minutes."""
    cluster = Cluster(ADA, BEN, MALLORY)
    for name in (ADA, BEN):
        cluster.add(name, blobs(**LONG), speed_kflops=50)
    return cluster


async def attack(cluster: Cluster, during: Callable[[BrokerSession], Any]) -> list[Any]:
    """The log of a training in the third round of which `during` happens; it must come to its end."""
    ended = anyio.Event()

    async def train() -> None:
        await cluster.train(ADA, BEN)
        ended.set()

    with capture_logs() as logs:
        async with cluster.raw(MALLORY).session() as session, anyio.create_task_group() as tasks:
            tasks.start_soon(train)
            await round_of(cluster.nodes[ADA], 2)
            await during(session)
            assert not ended.is_set()
    expect_one_model(cluster)
    return logs


def refusals(logs: list[Any]) -> list[Any]:
    return [entry for entry in logs if entry["event"] == "messages_refused"]


@pytest.mark.parametrize("reason", REASONS)
@virtual_time
async def test_what_no_member_should_send_is_counted_and_the_training_goes_on(reason: str) -> None:
    cluster = two_in_training()

    async def during(session: BrokerSession) -> None:
        for crime in REASONS[reason]:
            for to, data in crime(cluster):
                await session.publish(to, data)

    logs = refusals(await attack(cluster, during))
    assert logs
    assert all(set(entry["counts"]) == {reason} for entry in logs)


@virtual_time
async def test_refusals_are_logged_at_most_once_a_minute_and_every_one_of_them_is_counted() -> None:
    cluster = two_in_training()

    async def during(session: BrokerSession) -> None:
        for _ in range(62):
            for _ in range(5):
                await session.publish(address(Channel.TO), b"garbage")
            await anyio.sleep(1)

    logs = refusals(await attack(cluster, during))
    assert [entry["counts"]["malformed"] for entry in logs] == [1, 301]


@virtual_time
async def test_an_envelope_that_comes_again_changes_nothing_and_is_counted() -> None:
    cluster = two_in_training()
    repeated: list[Delivery] = []

    async def during(session: BrokerSession) -> None:
        plan = cluster.nodes[ADA].plan
        assert plan is not None
        owner = plan.slices[0].owner  # whose merged slices are for all
        victim = BEN if owner == ADA else ADA
        heard = [
            delivery
            for device, delivery in cluster.hub.published
            if device == owner and is_sealed(delivery) and delivery.address.destination in (None, victim)
        ]
        heard.remove(next(delivery for delivery in heard if delivery.address.channel is Channel.BEAT))  # came too early
        repeated.extend(heard)
        for delivery in heard:
            await session.publish(delivery.address, delivery.payload)
        await anyio.sleep(1)
        to = Address(channel=Channel.TO, source=MALLORY, destination=victim)
        await session.publish(to, b"garbage")  # duplicates alone are not worth a line

    logs = refusals(await attack(cluster, during))
    assert {delivery.address.channel for delivery in repeated} >= {
        Channel.PROFILE,
        Channel.ACK,
        Channel.BEAT,
        Channel.ALL,
    }
    assert [entry["counts"] for entry in logs] == [{"duplicate": len(repeated), "malformed": 1}]
    assert cluster.nodes[ADA].results[ADA].generations == 1


@virtual_time
async def test_chunks_and_transfers_that_nobody_wants_change_nothing() -> None:
    cluster = two_in_training()

    async def during(session: BrokerSession) -> None:
        names = [delivery.address.name for _, delivery in cluster.hub.published if delivery.address.name]
        for name in (*names[-1:], "none"):
            for destination, index in itertools.product((ADA, None), (0, 1, 10**6)):
                to = Address(channel=Channel.BLOB, source=MALLORY, destination=destination, name=name, chunk=index)
                for size_bytes in (0, 1, 1000):
                    await session.publish(to, b"\xa5" * size_bytes)
            await session.publish(to, b"\xa5" * (CHUNK_BYTES + 1))
        sealer = Sealer(CLUSTER, MALLORY, LIFE, cluster.signers[MALLORY])
        for message in unwanted(cluster):
            for to in (address(Channel.TO), address(Channel.ALL)):
                await session.publish(to, sealer.seal(to, message))

    logs = await attack(cluster, during)
    assert cluster.nodes[ADA].results[ADA].generations == 1
    assert not any(entry["log_level"] == "error" for entry in logs)


def unwanted(cluster: Cluster) -> Iterator[Message]:
    """Well-formed messages of a member that has no part in the training."""
    now = ack_of(cluster).ack
    key = attrs.evolve(KEY, generation=now.generation, plan_digest=now.plan_digest, round=3)
    finished = attrs.evolve(now.progress, round=10**6, samples=10**9, digest=b"x" * 16, finished=True)
    cargoes: tuple[Cargo, ...] = (
        Contribution(key=key, encoding=Encoding.FLOAT32, samples=10**9, sums=(1e300,) * 500, evaluated=10**9),
        MergedSlice(key=key, encoding=Encoding.BLOCKWISE8, senders={MALLORY: 1}),
        MergedSlice(key=KEY, encoding=Encoding.FLOAT16, senders={}),
        WholeState(progress=finished),
    )
    for number, cargo in enumerate(cargoes):
        for data in (b"", b"\0" * 64, b"\xff" * 1000):
            yield make_offer(f"mallory-{number}-{len(data)}", cargo, data, CHUNK_BYTES)
    whole = make_offer("mallory-big", cargoes[1], bytes(100_000), CHUNK_BYTES)
    yield whole
    yield attrs.evolve(whole, transfer="mallory-short", digests=whole.digests[:-1])
    yield attrs.evolve(whole, transfer="mallory-huge", size_bytes=1 << 50)
    yield attrs.evolve(whole, transfer="mallory-none", chunk_bytes=0)
    yield Offer(transfer="mallory-inline", cargo=cargoes[0], size_bytes=9, chunk_bytes=9, digests=(b"",), inline=b"no")
    yield Want(transfer="none", chunks=((0, 1 << 60), (5, 2)))
    yield AskState(digest=b"no such state")
    yield AskSlice(key=KEY)
    yield Beat(life=LIFE, view_digest=b"", generation=0)
