"""The data mover: everything that leaves this device or comes to it goes through here.

Layout: the connection, sealed messages out, chunks and messages in, transfers.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import assert_never

import structlog

from crowd.actors import inbox
from crowd.actors.data_mover.connection import Connection, OutboxItem
from crowd.actors.data_mover.intake import Intake
from crowd.actors.data_mover.link_timer import LinkTimer
from crowd.actors.data_mover.pieces import in_pieces
from crowd.actors.data_mover.shipments import GIVE_UP_US, Shipments
from crowd.actors.inbox import DataMoverMessage, PlannerMessage, ProfilerMessage, TrainerMessage
from crowd.actors.probe import Probe
from crowd.agreement import events
from crowd.planning.profile import Share
from crowd.ports import Broker, Delivery, Signer, Will
from crowd.protocol import codec, messages
from crowd.protocol.codec import Sealer
from crowd.protocol.messages import Contribution, ForDataMover, ForTrainer, MergedSlice, SliceKey
from crowd.protocol.tagged import ToTrainer
from crowd.protocol.transfer.effects import Effect, Failed, Received, SendChunk, SendDone, SendOffer, SendWant, Sent
from crowd.protocol.transfer.manifest import message_bytes_needed
from crowd.protocol.transfer.transfers import Transfers
from crowd.runtime import Actor, ActorRef
from crowd.runtime.clock import now_us, reached_us
from crowd.units import SECOND_US, Address, Channel, DeviceId, Life

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
        self._shipments = Shipments(device, share, self._transfers, probe)
        self._link_timer = LinkTimer()
        self._up = False
        self._results: dict[Address, messages.Message] = {}
        self._status = Address(channel=Channel.STATUS, source=device)
        self._intake = Intake(
            device=device,
            cluster=cluster,
            signer=signer,
            planner=planner,
            hand_over=lambda message: self.ref.tell(message),
            probe=probe,
        )
        self._connection = self._connect(broker, size_bytes_max=size_bytes_max, seed=seed)

    def _connect(self, broker: Broker, *, size_bytes_max: int, seed: int) -> Connection:
        return Connection(
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
            case inbox.PlanBegun():
                self._shipments.begin_plan(message)
                self._connection.expiry_s = self._transfers.give_up_us // SECOND_US
            case inbox.SendCargo():
                await self._carry_out(self._shipments.send(message))
            case inbox.Forget(generation=generation):
                self._shipments.forget_before(generation)
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
        self, address: Address, message: messages.Message, *, retain: bool = False, bulk: bool = False
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
            receives = self._transfers.receives(address.source, address.name)
            elapsed_us = self._link_timer.time(address.source, address.name, is_awaited=receives)
            if elapsed_us is not None:
                await self._time_link(False, len(payload), elapsed_us)
            if receives:
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
            case messages.AskState() if self._shipments.sends_state_to(sender):
                pass  # one is on its way
            case messages.AskSlice(key=key):
                offered = self._shipments.published(key, sender)
                if offered is None:
                    no_slice = messages.NoSlice(key=key, over=self._shipments.is_over(key))
                    self._publish(self._address(sender), no_slice)
                else:
                    await self._carry_out(offered)
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

    async def _ended(self, transfer: str) -> None:
        ended, effects = self._shipments.ended(transfer)
        if isinstance(ended, Contribution):
            await self._trainer.tell(inbox.ContributionEnded(key=ended.key))
        await self._carry_out(effects)

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
