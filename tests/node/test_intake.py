"""Junk in the names of members: what they sign themselves is let in, and the work for the rest is bounded."""

import anyio
import attrs
from structlog.testing import capture_logs

from crowd.actors import inbox
from crowd.actors.data_mover.intake import REFUSED_PER_S, STATUSES_PER_S, Intake
from crowd.actors.inbox import DataMoverMessage, PlannerMessage
from crowd.actors.probe import Probe
from crowd.agreement import events
from crowd.ports import Delivery, Signer
from crowd.protocol.codec import Sealer
from crowd.protocol.identity import ephemeral_signers
from crowd.protocol.messages import AskState, ProbeAnswer, ProbeRequest, Want
from crowd.protocol.transfer.manifest import CHUNK_BYTES
from crowd.runtime import ActorRef, Mailbox
from crowd.units import Address, Channel, DeviceId, Life, device_id
from tests.support.virtual import virtual_time

ANNA, BEN, MALLORY = device_id("anna"), device_id("ben"), device_id("mallory")
LIFE, LATER = Life(incarnation=1, boot=b"b" * 16), Life(incarnation=1, boot=b"c" * 16)
FROM_BEN = Address(channel=Channel.TO, source=BEN, destination=ANNA)
STATUS = Address(channel=Channel.STATUS, source=BEN)
SIGNERS = ephemeral_signers([ANNA, BEN])
FORGER = ephemeral_signers([BEN])[BEN]
"""Of the same name, with another key."""


class CountingSigner(Signer):
    """Counts what is verified, which is what junk costs."""

    def __init__(self, signer: Signer) -> None:
        self.verified = 0
        self._signer = signer

    def sign(self, data: bytes) -> bytes:
        return self._signer.sign(data)

    def verify(self, device: DeviceId, data: bytes, signature: bytes) -> bool:
        self.verified += 1
        return self._signer.verify(device, data, signature)

    def is_member(self, device: DeviceId) -> bool:
        return self._signer.is_member(device)


@attrs.define
class Gate:
    """Anna's intake, and what came through it."""

    planner: Mailbox[PlannerMessage] = attrs.field(factory=lambda: Mailbox("planner", 10_000))
    handed_over: list[DataMoverMessage] = attrs.field(factory=list)
    signer: CountingSigner = attrs.field(factory=lambda: CountingSigner(SIGNERS[ANNA]))
    intake: Intake = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.intake = Intake(
            device=ANNA,
            cluster="home",
            signer=self.signer,
            planner=ActorRef(self.planner),
            hand_over=self._keep,
            probe=Probe(),
        )

    async def take(self, address: Address, payload: bytes) -> None:
        await self.intake.take_in(Delivery(address=address, payload=payload))

    def let_in(self) -> list[PlannerMessage]:
        come = []
        while (message := self.planner.get_nowait()) is not None:
            come.append(message)
        return come

    async def _keep(self, message: DataMoverMessage) -> None:
        self.handed_over.append(message)


def words(signer: Signer, life: Life, count: int) -> list[bytes]:
    sealer = Sealer("home", BEN, life, signer)
    return [sealer.seal(FROM_BEN, ProbeRequest(nonce=number)) for number in range(count)]


@virtual_time
async def test_forged_messages_cost_little_and_hold_up_none_of_the_member() -> None:
    gate = Gate()
    genuine = words(SIGNERS[BEN], LIFE, 101)
    await gate.take(FROM_BEN, genuine[100])
    with capture_logs() as logs:
        forged = words(FORGER, LATER, 20 * REFUSED_PER_S)
        for number, junk in enumerate(forged):
            await gate.take(FROM_BEN, junk)
            if number % REFUSED_PER_S == 0:
                await gate.take(FROM_BEN, genuine[number // REFUSED_PER_S])
    assert len(gate.let_in()) == 1 + 20
    assert gate.signer.verified <= 1 + 20 + 3 * REFUSED_PER_S
    assert [(entry["event"], entry["in_the_name_of"]) for entry in logs] == [("messages_refused", BEN)]


@virtual_time
async def test_a_member_that_starts_anew_is_let_in_once_the_flood_is_over_or_has_a_gap() -> None:
    gate = Gate()
    for junk in words(FORGER, LIFE, 20 * REFUSED_PER_S):
        await gate.take(FROM_BEN, junk)
    first, second = words(SIGNERS[BEN], LATER, 2)
    await gate.take(FROM_BEN, first)
    assert gate.let_in() == []
    await anyio.sleep(1)
    await gate.take(FROM_BEN, second)
    assert len(gate.let_in()) == 1


@virtual_time
async def test_a_repeated_message_is_refused_without_a_look_at_its_signature() -> None:
    gate = Gate()
    (word,) = words(SIGNERS[BEN], LIFE, 1)
    for _ in range(100):
        await gate.take(FROM_BEN, word)
    assert gate.signer.verified == 1
    sealer = Sealer("home", BEN, LIFE, SIGNERS[BEN])
    sealer.sequence = 1
    await gate.take(FROM_BEN, sealer.seal(FROM_BEN, ProbeAnswer(nonce=1, life=LIFE)))
    assert len(gate.let_in()) == 2


@virtual_time
async def test_what_comes_in_the_name_of_a_stranger_is_not_opened() -> None:
    gate = Gate()
    stranger = attrs.evolve(FROM_BEN, source=MALLORY)
    await gate.take(stranger, b"\xff" * 100)
    await gate.take(attrs.evolve(STATUS, source=MALLORY), b"online")
    await gate.take(Address(channel=Channel.BLOB, source=MALLORY, name="t", chunk=0), b"chunk")
    assert (gate.let_in(), gate.handed_over, gate.signer.verified) == ([], [], 0)


@virtual_time
async def test_a_chunk_that_is_too_long_goes_no_further() -> None:
    gate = Gate()
    address = Address(channel=Channel.BLOB, source=BEN, name="t", chunk=0)
    await gate.take(address, bytes(CHUNK_BYTES + 1))
    assert gate.handed_over == []
    await gate.take(address, bytes(CHUNK_BYTES))
    assert len(gate.handed_over) == 1


@virtual_time
async def test_words_of_online_and_offline_do_not_fill_the_planners_mailbox() -> None:
    gate = Gate()
    for _ in range(1000):
        await gate.take(STATUS, b"offline")
        await gate.take(STATUS, b"online")
    assert len(gate.let_in()) <= 2 * STATUSES_PER_S
    await anyio.sleep(1)
    await gate.take(STATUS, b"offline")
    assert gate.let_in() == [events.StatusHeard(device=BEN, online=False)]


@virtual_time
async def test_a_message_goes_where_its_class_says_to_the_trainer_by_way_of_the_data_mover() -> None:
    gate = Gate()
    sealer = Sealer("home", BEN, LIFE, SIGNERS[BEN])
    probe, want, ask = ProbeRequest(nonce=1), Want(transfer="t", chunks=()), AskState(digest=b"d")
    for message in (probe, want, ask):
        await gate.take(FROM_BEN, sealer.seal(FROM_BEN, message))
    (heard,) = gate.let_in()
    assert isinstance(heard, inbox.AgreementMessage)
    assert heard.message == probe
    assert gate.handed_over == [inbox.Heard(sender=BEN, life=LIFE, message=message) for message in (want, ask)]


@virtual_time
async def test_what_a_former_life_said_does_not_hide_that_the_present_one_lives() -> None:
    gate = Gate()
    gate.intake.watched = (BEN,)
    for former, present in zip(words(SIGNERS[BEN], LIFE, 30), words(SIGNERS[BEN], LATER, 30), strict=True):
        await gate.take(FROM_BEN, former)
        await anyio.sleep(0.05)
        await gate.take(FROM_BEN, present)
        await anyio.sleep(0.05)
    alive = [come.life for come in gate.let_in() if isinstance(come, events.ProbeAnswered)]
    assert [alive.count(life) for life in (LIFE, LATER)] == [3, 3], "each once a second"


@virtual_time
async def test_a_chunk_is_a_sign_of_the_latest_life_whatever_is_said_again_of_a_former_one() -> None:
    gate = Gate()
    gate.intake.watched = (BEN,)
    for life in (LATER, LIFE):
        (word,) = words(SIGNERS[BEN], life, 1)
        await gate.take(FROM_BEN, word)
    await anyio.sleep(1)
    gate.let_in()
    gate.intake.note_chunk(BEN)
    assert gate.let_in() == [events.ProbeAnswered(device=BEN, life=LATER)]
