"""The intake, which opens everything that comes from the broker, in the task that reads the connection: what is not
meant for this device goes no further, agreement goes straight to the planner, all else to the data mover."""

from collections import Counter
from collections.abc import Awaitable, Callable

import attrs
import structlog

from crowd.actors import inbox
from crowd.actors.data_mover.budget import Budget
from crowd.actors.inbox import DataMoverMessage, PlannerMessage
from crowd.actors.probe import Probe
from crowd.agreement import events
from crowd.errors import MailboxFull
from crowd.ports import Delivery, Signer
from crowd.protocol import messages
from crowd.protocol.codec import Opened, Opener, Reason, Refused
from crowd.protocol.tagged import ToPlanner
from crowd.protocol.transfer.manifest import CHUNK_BYTES
from crowd.runtime import ActorRef
from crowd.runtime.clock import now_us
from crowd.runtime.seldom import Seldom
from crowd.units import SECOND_US, Address, Channel, DeviceId, Life

ALIVE_AGAIN_US = SECOND_US
REFUSED_PER_S = 50
"""Messages in the name of one member that are opened in vain in a second, but for those that name a life in which it
was heard: an outsider's junk must not keep a device from its work."""
STATUSES_PER_S = 4
"""Words `online` and `offline` of one device in a second that the planner is told: anybody may have said them."""

log = structlog.get_logger()


class Intake:
    """The reader of one delivery after the other; `hand_over` brings a message to the data mover. Nobody else touches
    its state but for `watched`, the devices whose heartbeats this one reads."""

    def __init__(
        self,
        *,
        device: DeviceId,
        cluster: str,
        signer: Signer,
        planner: ActorRef[PlannerMessage],
        hand_over: Callable[[DataMoverMessage], Awaitable[None]],
        probe: Probe,
    ) -> None:
        self.watched: tuple[DeviceId, ...] = ()
        self._me = device
        self._planner = planner
        self._hand_over = hand_over
        self._probe = probe
        self._opener = Opener(cluster, device, signer)
        self._alive_us: dict[DeviceId, dict[Life, int]] = {}
        """When the planner was told that a watched device lives, in each life in which it was heard a moment ago."""
        self._lives: dict[DeviceId, Life] = {}
        """The latest life in which each watched device was heard."""
        self._beats_us: dict[int, int] = {}
        """The times at which own heartbeats were sent, by their numbers, until one comes back."""
        self._signer = signer
        self._refusals_left: dict[DeviceId, Budget] = {}
        self._statuses_left: dict[DeviceId, Budget] = {}
        self._refused: Counter[str] = Counter()
        self._told_refusals = Seldom()

    async def take_in(self, delivery: Delivery) -> None:
        """Open one delivery and pass it on. Waits while the data mover's mailbox is full, and so holds the broker
        back."""
        address, source = delivery.address, delivery.address.source
        assert source is not None, "whatever comes has a source in its address"
        match address.channel:
            case Channel.STATUS:
                if source != self._me:
                    self._hear_status(source, online=delivery.payload != b"offline")
            case Channel.BLOB:
                if not self._signer.is_member(source) or len(delivery.payload) > CHUNK_BYTES:
                    self._count_refusal("chunk", f"a chunk of {len(delivery.payload)} bytes", source)
                    return
                await self._hand_over(inbox.Inbound(delivery=delivery))
            case Channel.INFO:
                pass
            case _:
                if delivery.payload:  # an empty one clears what was retained
                    await self._open(address, source, delivery.payload)

    def _hear_status(self, device: DeviceId, *, online: bool) -> None:
        if not self._signer.is_member(device):
            return
        left = self._statuses_left.setdefault(device, Budget(per_s=STATUSES_PER_S, at_once=2 * STATUSES_PER_S))
        if left.is_left(now_us()):
            left.spend()
            self._tell_planner(events.StatusHeard(device=device, online=online))
        else:
            self._count_refusal("status", f"it is said to be {'online' if online else 'offline'} too often", device)

    async def _open(self, address: Address, source: DeviceId, envelope: bytes) -> None:
        left = self._refusals_left.get(source)
        if left is not None and not left.is_left(now_us()) and not self._opener.names_known_life(source, envelope):
            self._count_refusal("unopened", "too much of what comes in its name is junk", source)
            return
        try:
            opened = self._opener.open(address, envelope)
            self._probe.let_in(address, opened)
            if address.channel is not Channel.BEAT:  # a heartbeat says so itself
                self._note_life(opened.sender, opened.life)
            await self._hand_on(address, opened, envelope)
        except Refused as error:
            if error.reason is not Reason.DUPLICATE and self._signer.is_member(source):
                budget = Budget(per_s=REFUSED_PER_S, at_once=2 * REFUSED_PER_S)
                self._refusals_left.setdefault(source, budget).spend()
            if error.sender is not None:
                self._probe.refused(error.sender, error.reason)
            self._count_refusal(error.reason.value, str(error), source)

    async def _hand_on(self, address: Address, opened: Opened, envelope: bytes) -> None:
        match opened.message:
            case messages.Beat() if opened.sender == self._me:
                sent_us = self._beats_us.get(opened.sequence, now_us())
                self._beats_us = {number: us for number, us in self._beats_us.items() if number > opened.sequence}
                self._tell_planner(attrs.evolve(_heard(opened, envelope), rtt_us=now_us() - sent_us))
            case messages.ViewReply(envelopes=envelopes):
                for relayed in envelopes:
                    self._tell_planner(_heard(self._opener.open_relayed(relayed), relayed))
                self._tell_planner(_heard(opened, b""))
            case ToPlanner():
                self._tell_planner(_heard(opened, envelope))
            case message:
                to_all = address.channel is Channel.ALL
                await self._hand_over(
                    inbox.Heard(sender=opened.sender, life=opened.life, message=message, to_all=to_all)
                )

    def note_beat(self, sequence: int) -> None:
        """Remember the time at which the own heartbeat with this number is sent."""
        self._beats_us[sequence] = now_us()

    def note_chunk(self, sender: DeviceId) -> None:
        """Count a chunk from `sender` as a sign of life: where a link is slow, nothing else may come for a long
        time."""
        if sender in self._lives:
            self._note_life(sender, self._lives[sender])

    def _note_life(self, sender: DeviceId, life: Life) -> None:
        """Tell the planner that a watched device lives: whoever sends bulk does, even if its answer to a probe waits
        behind that on a slow link. Only watched devices could be taken for dead. What a former life said, and somebody
        says again, must not hide that the present one lives."""
        if sender == self._me or sender not in self.watched:
            self._lives.pop(sender, None)
            self._alive_us.pop(sender, None)
            return
        self._lives[sender] = max(life, self._lives.get(sender, life))
        now = now_us()
        told_us = {one: us for one, us in self._alive_us.get(sender, {}).items() if now - us < ALIVE_AGAIN_US}
        if life not in told_us:
            self._tell_planner(events.ProbeAnswered(device=sender, life=life))
        self._alive_us[sender] = {life: now, **told_us}

    def _tell_planner(self, message: PlannerMessage) -> None:
        """Tell the planner without waiting, as one that computes must not hold up bulk. A message lost here is repeated
        by its sender, for it is state, not an event."""
        try:
            self._planner.tell_nowait(message)
        except MailboxFull:
            self._count_refusal("planner_busy", f"{message} was dropped: the planner is busy", None)

    def _count_refusal(self, reason: str, text: str, source: DeviceId | None) -> None:
        """Count a refusal always, log it at most once a minute; `source` is in whose name it came, whoever sent it."""
        self._refused[reason] += 1
        if reason != Reason.DUPLICATE.value and self._told_refusals.is_due():
            log.warning("messages_refused", counts=dict(self._refused), in_the_name_of=source, latest=text)


def _heard(opened: Opened, envelope: bytes) -> inbox.AgreementMessage:
    assert isinstance(opened.message, ToPlanner)
    return inbox.AgreementMessage(sender=opened.sender, life=opened.life, message=opened.message, envelope=envelope)
