"""The data mover: everything that leaves this device or comes to it goes through here.

Layout: the connection, sealed messages out, chunks and messages in, transfers, samples on loan, published slices.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import assert_never

import structlog

from crowd.actors import inbox
from crowd.actors.data_mover.connection import Connection, OutboxItem
from crowd.actors.data_mover.intake import Intake
from crowd.actors.data_mover.pieces import in_pieces
from crowd.actors.inbox import DataMoverMessage, PlannerMessage, ProfilerMessage, TrainerMessage
from crowd.actors.probe import Probe
from crowd.agreement import events
from crowd.planning.profile import Share
from crowd.ports import Broker, Delivery, Signer, Will
from crowd.protocol import codec, messages
from crowd.protocol.codec import Sealer
from crowd.protocol.messages import (
    KEPT_ROUNDS,
    Contribution,
    ForDataMover,
    ForTrainer,
    MergedSlice,
    Parameters,
    Samples,
    SliceKey,
    WholeState,
)
from crowd.protocol.tagged import ToTrainer
from crowd.protocol.transfer.effects import Effect, Failed, Received, SendChunk, SendDone, SendOffer, SendWant, Sent
from crowd.protocol.transfer.manifest import message_bytes_needed
from crowd.protocol.transfer.transfers import Transfers
from crowd.runtime import Actor, ActorRef
from crowd.runtime.clock import now_us, reached_us
from crowd.units import SECOND_US, Address, Channel, DeviceId, Life

GIVE_UP_US = 60 * SECOND_US
"""Shortest silence that ends a transfer; longer where rounds are long, as bytes may be of use for longer."""
ROUNDS_OF_USE = 3
"""Rounds for which bytes that were sent may still be awaited."""
LOANS_AT_ONCE = 2
"""Transfers of samples under way; the next begins when one has arrived, so that a slow link is not flooded."""
CHUNK_GAP_US_MAX = 2 * SECOND_US
"""Longest gap between two chunks that measures the link; after a longer one they were waited for."""

log = structlog.get_logger()


class DataMover(Actor[DataMoverMessage]):
    """Owns the connection to the broker.

    1. Connects, subscribes, says `online`, and tells the planner; does so again after every loss.
    2. Seals and publishes what the other actors send; what comes in is opened by its `Intake`, and handed to them.
    3. Says `offline` and closes.
    """

    def __init__(
        self,
        *,
        device: DeviceId,
        cluster: str,
        broker: Broker,
        signer: Signer,
        life: Life,
        share: Share,
        size_bytes_max: int,
        planner: ActorRef[PlannerMessage],
        trainer: ActorRef[TrainerMessage],
        profiler: ActorRef[ProfilerMessage],
        info: bytes,
        seed: int,
        probe: Probe,
    ) -> None:
        self._me = device
        self._planner = planner
        self._trainer = trainer
        self._profiler = profiler
        self._share = share
        self._info = info
        self._probe = probe
        self._sealer = Sealer(cluster, device, life, signer)
        self._transfers = Transfers(
            prefix=life.boot.hex()[:16],
            give_up_us=GIVE_UP_US,
            size_bytes_max=size_bytes_max,
            receive_bytes_max=4 * size_bytes_max,
        )
        self._up = False
        self._plan = inbox.PlanBegun(uplink_bytes_s=0, downlinks_bytes_s={}, round_us=0)
        """The plan in force; before the first the slowest link is assumed, as others may ask for a state already."""
        self._results: dict[Address, messages.Message] = {}
        self._published: dict[SliceKey, str] = {}
        self._contributions: dict[str, Contribution | Parameters] = {}
        self._loans: deque[inbox.SendCargo] = deque()
        self._loans_out: dict[str, inbox.SendCargo] = {}
        self._latest_chunk: tuple[DeviceId, str, int] | None = None
        self._states_out: dict[DeviceId, str] = {}
        self._status = Address(channel=Channel.STATUS, source=device)
        self._intake = Intake(
            device=device,
            cluster=cluster,
            signer=signer,
            planner=planner,
            hand_over=lambda message: self.ref.tell(message),
            probe=probe,
        )
        self._connection = Connection(
            broker,
            will=Will(address=self._status, payload=b"offline"),
            subscriptions=self._subscriptions,
            changed=lambda up: self.ref.tell(inbox.Linked(up=up)),
            arrived=self._intake.take_in,
            timed=partial(self._time_link, True),
            farewell=self._say_goodbye,
            message_bytes_min=message_bytes_needed(size_bytes_max // 2),  # a whole state
            seed=seed,
        )

    def kept(self) -> Mapping[str, int]:
        return {"urgent messages": self._connection.outbox.urgent}

    # --- life and connection ------------------------------------------------------------------------------------------

    async def started(self) -> None:
        self.spawn(self._connection.run)

    def _say_goodbye(self) -> None:
        """Evict this life, so that nobody has to probe, and clear the profile and the ack, which are of this life."""
        goodbye = messages.Evictions(lives={self._me: self._sealer.life})
        self._publish(Address(channel=Channel.ALL, source=self._me), goodbye)
        for channel in (Channel.PROFILE, Channel.ACK):
            self._publish_plain(Address(channel=channel, source=self._me), b"")
        self._publish_plain(self._status, b"offline")

    def _subscriptions(self) -> tuple[Address, ...]:
        me = self._me
        kinds = (Channel.STATUS, Channel.PROFILE, Channel.ACK, Channel.RESULT, Channel.ALL, Channel.BLOB)
        return (
            *(Address(channel=channel) for channel in kinds),
            Address(channel=Channel.TO, destination=me),
            Address(channel=Channel.BLOB, destination=me),
            *(Address(channel=Channel.BEAT, source=device) for device in self._intake.watched or (me,)),
        )

    async def _linked(self, up: bool) -> None:
        self._up = up
        if not up:
            await self._planner.tell(events.Disconnected())
            return
        self._publish_plain(self._status, b"online")
        self._publish_plain(Address(channel=Channel.INFO, source=self._me), self._info)
        for address, result in self._results.items():
            self._publish(address, result, retain=True)
        if self._share is not Share.RAW:
            # a former life of this device may have lent under a laxer rule
            self._publish(Address(channel=Channel.ALL, source=self._me), messages.Revoke(data_epoch=0))
        self._transfers.message_bytes_max = self._connection.message_bytes_max
        await self._carry_out(self._transfers.reconnected(now_us()))
        await self._trainer.tell(inbox.LinkUp())
        await self._planner.tell(events.Connected())

    async def _time_link(self, up: bool, size_bytes: int, elapsed_us: int) -> None:
        await self._profiler.tell(inbox.LinkTimed(up=up, size_bytes=size_bytes, elapsed_us=elapsed_us))

    async def _time_chunk(self, source: DeviceId, transfer: str, size_bytes: int) -> None:
        """Measure the downlink by two chunks of one transfer that follow each other closely."""
        previous, self._latest_chunk = self._latest_chunk, (source, transfer, now_us())
        if previous is not None and previous[:2] == (source, transfer) and self._transfers.receives(source, transfer):
            elapsed_us = now_us() - previous[2]
            if elapsed_us < CHUNK_GAP_US_MAX:
                await self._time_link(False, size_bytes, elapsed_us)

    # --- messages -----------------------------------------------------------------------------------------------------

    async def receive(self, message: DataMoverMessage) -> None:
        match message:
            case inbox.Send(address=address, message=messages.AskSlice(key=key)) if self._is_coming(address, key):
                pass  # asked for, it would be sent again
            case inbox.Send(address=address, message=payload, retain=retain):
                if address.channel is Channel.RESULT:
                    self._results[address] = payload
                for piece in in_pieces(payload, self._connection.message_bytes_max):
                    self._publish(address, piece, retain=retain)
            case inbox.NewLife(life=life):
                self._sealer.life = life
            case inbox.WatchBeats(devices=devices):
                self._intake.watched = devices
                self._connection.resubscribe()
            case inbox.PlanBegun(round_us=round_us):
                self._plan = message
                self._transfers.give_up_us = max(GIVE_UP_US, ROUNDS_OF_USE * round_us)
                self._connection.expiry_s = self._transfers.give_up_us // SECOND_US
            case inbox.SendCargo():
                await self._send_cargo(message)
            case inbox.Forget(generation=generation):
                await self._forget(generation)
            case inbox.Inbound(delivery=delivery):
                await self._take_chunk(delivery)
            case inbox.Heard():
                await self._hear(message)
            case inbox.Linked(up=up):
                await self._linked(up)
            case _:
                assert_never(message)

    def deadline_us(self) -> int | None:
        return self._transfers.next_deadline() if self._up else None

    async def tick(self) -> None:
        await self._carry_out(self._transfers.on_tick(reached_us()))

    def _publish(
        self,
        address: Address,
        message: messages.Message,
        *,
        retain: bool = False,
        bulk: bool = False,
    ) -> None:
        is_state = retain or address.channel is Channel.BEAT  # only the newest state counts
        if address.channel is Channel.BEAT:
            self._intake.note_beat(self._sealer.sequence)
        self._connection.outbox.put(
            OutboxItem(
                address=address,
                payload=self._sealer.seal(address, message),
                retain=retain,
                says=address if is_state else (address, codec.encode(message)),
            ),
            bulk=bulk,
        )

    def _publish_plain(self, address: Address, payload: bytes) -> None:
        self._connection.outbox.put(OutboxItem(address=address, payload=payload, retain=True, says=address), bulk=False)

    # --- what comes in ------------------------------------------------------------------------------------------------

    async def _take_chunk(self, delivery: Delivery) -> None:
        address, payload = delivery.address, delivery.payload
        if address.source is not None and address.name is not None and address.chunk is not None:
            await self._time_chunk(address.source, address.name, len(payload))
            if self._transfers.receives(address.source, address.name):
                self._intake.note_chunk(address.source)
            effects = self._transfers.on_chunk(now_us(), address.source, address.name, address.chunk, payload)
            await self._carry_out(effects)

    async def _hear(self, word: inbox.Heard[ForDataMover | ForTrainer]) -> None:
        sender = word.sender
        match word.message:
            case messages.Offer() as offer:
                await self._carry_out(self._transfers.on_offer(now_us(), sender, offer, to_all=word.to_all))
            case messages.Want() as want:
                await self._carry_out(self._transfers.on_want(now_us(), sender, want))
            case messages.Done() as done:
                await self._carry_out(self._transfers.on_done(now_us(), sender, done))
            case messages.AskState() if sender in self._states_out:
                pass  # one is on its way
            case messages.AskSlice(key=key):
                if key in self._published:
                    await self._carry_out(self._transfers.offer_to(self._published[key], sender))
                else:
                    over = any(_is_later(published, key) for published in self._published)
                    self._publish(self._address(sender), messages.NoSlice(key=key, over=over))
            case ToTrainer() as message:
                await self._trainer.tell(inbox.Heard(sender=sender, life=word.life, message=message))
            case _:
                assert_never(word.message)

    def _is_coming(self, owner: Address, key: SliceKey) -> bool:
        """Whether that merged slice is on its way from its owner."""
        assert owner.destination is not None
        coming = self._transfers.flowing(owner.destination)
        return any(isinstance(cargo, MergedSlice) and cargo.key == key for cargo in coming)

    # --- transfers ----------------------------------------------------------------------------------------------------

    async def _send_cargo(self, message: inbox.SendCargo) -> None:
        match message.cargo:
            case Samples():
                if self._share is not Share.RAW:
                    log.error("lending_refused", borrower=message.destination, share=self._share.value)
                    return
                if not self._is_on_loan(message):
                    self._loans.append(message)
                await self._next_loan()
            case MergedSlice(key=key):
                self._published[key] = await self._begin(message)
                for old in [old for old in self._published if _is_out_of_date(old, key)]:
                    self._transfers.drop(self._published.pop(old))
            case (Contribution() | Parameters()) as cargo:
                self._drop_contributions_before(*_round_of(cargo))
                self._contributions[await self._begin(message)] = cargo
            case WholeState():
                if message.destination is not None:
                    self._states_out[message.destination] = await self._begin(message)
            case _:
                assert_never(message.cargo)

    async def _begin(self, message: inbox.SendCargo) -> str:
        self._probe.sent(message.destination, message.cargo, message.data)
        transfer, effects = self._transfers.send(
            now_us(), message.destination, message.cargo, message.data, rate_bytes_s=self._rate_bytes_s(message)
        )
        await self._carry_out(effects)
        return transfer

    def _rate_bytes_s(self, message: inbox.SendCargo) -> int:
        """Bytes per second of the slowest link on the path of `message`."""
        downlinks = self._plan.downlinks_bytes_s
        receivers = downlinks if message.destination is None else {message.destination} & downlinks.keys()
        return min([self._plan.uplink_bytes_s, *(downlinks[device] for device in receivers if device != self._me)])

    def _is_on_loan(self, asked: inbox.SendCargo) -> bool:
        """Whether the borrower asks again for samples that are on their way to it already."""
        waiting = [*self._loans, *self._loans_out.values()]
        return any((loan.destination, loan.cargo) == (asked.destination, asked.cargo) for loan in waiting)

    async def _next_loan(self) -> None:
        while self._loans and len(self._loans_out) < LOANS_AT_ONCE:
            loan = self._loans.popleft()
            self._loans_out[await self._begin(loan)] = loan

    async def _ended(self, transfer: str) -> None:
        match self._contributions.pop(transfer, None):
            case Contribution(key=key):
                await self._trainer.tell(inbox.ContributionEnded(key=key))
        self._states_out = {device: name for device, name in self._states_out.items() if name != transfer}
        if self._loans_out.pop(transfer, None) is not None:
            await self._next_loan()

    async def _forget(self, generation: int) -> None:
        """Drop transfers of earlier generations: their contributions are of no use, and their borrowers ask anew."""
        self._drop_contributions_before(generation, 0)
        for transfer in self._loans_out:
            self._transfers.drop(transfer)
        self._loans.clear()
        self._loans_out.clear()

    def _drop_contributions_before(self, generation: int, number: int) -> None:
        """Drop contributions to earlier rounds, which would only hold up what matters now."""
        for transfer in [name for name, of in self._contributions.items() if _round_of(of) < (generation, number)]:
            self._transfers.drop(transfer)
            del self._contributions[transfer]

    async def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendOffer(destination=destination, offer=offer):
                    # in one queue with its chunks: overtaken by them it would find the receiver asking again
                    self._publish(self._address(destination), offer, bulk=True)
                case SendChunk(destination=destination, transfer=transfer, index=index, data=data):
                    address = Address(
                        channel=Channel.BLOB, source=self._me, destination=destination, name=transfer, chunk=index
                    )
                    self._connection.outbox.put(OutboxItem(address=address, payload=data, says=address), bulk=True)
                case SendWant(destination=destination, want=want):
                    self._publish(self._address(destination), want)
                case SendDone(destination=destination, done=done):
                    self._publish(self._address(destination), done)
                case Received(sender=sender, offer=offer, data=data):
                    await self._trainer.tell(inbox.Arrived(sender=sender, cargo=offer.cargo, data=data))
                case Sent(transfer=transfer):
                    await self._ended(transfer)
                case Failed(transfer=transfer, destination=device):
                    log.warning("transfer_failed", to=device, transfer=transfer)
                    await self._ended(transfer)
                case _:
                    assert_never(effect)

    def _address(self, destination: DeviceId | None) -> Address:
        if destination is None:
            return Address(channel=Channel.ALL, source=self._me)
        return Address(channel=Channel.TO, source=self._me, destination=destination)


def _round_of(cargo: Contribution | Parameters) -> tuple[int, int]:
    """The generation and round of `cargo`."""
    key = cargo.key if isinstance(cargo, Contribution) else cargo
    return key.generation, key.round


def _is_later(key: SliceKey, than: SliceKey) -> bool:
    """Whether `key` is of a later round than `than`, under the same plan."""
    return (key.generation, key.plan_digest) == (than.generation, than.plan_digest) and key.round > than.round


def _is_out_of_date(old: SliceKey, new: SliceKey) -> bool:
    """Whether slice `old` may go once `new` is published: those of the last rounds and of one generation are kept."""
    if old.generation != new.generation:
        return old.generation < new.generation - 1
    return old.round <= new.round - KEPT_ROUNDS
