"""Bulk bytes from device to device: windowed, acknowledged, resumable, pulled by the receiver.

    sender                                             receiver
      offer (manifest) ─────────────────────────────────► checks it, makes room
      chunks 0 … 7, unasked ────────────────────────────► checks each against its digest
      ◄──────────────────────────────── want [8, 12)      when half of the window has come
      chunks 8 … 11 ────────────────────────────────────►
      ◄──────────────────────────────── done              when all have come

What fits travels inside the offer. A transfer to all is published whole; there silence is consent, and a receiver asks
only for what it lacks. Nothing here waits, reads a clock or sends: every method returns the effects for its caller to
carry out in order, and `now_us` is the caller's clock, which never runs backwards.

Layout: `Transfers` (this file), both ends of one transfer (`outgoing`, `incoming`), `effects`, `manifest`.
"""

from collections import OrderedDict

from crowd.ports import MESSAGE_BYTES_MAX
from crowd.protocol.messages import Cargo, Done, Offer, Want
from crowd.protocol.transfer.effects import Effect, Failed, Received, SendChunk, SendDone, SendOffer, SendWant, Sent
from crowd.protocol.transfer.incoming import ArrivalPace, Incoming
from crowd.protocol.transfer.manifest import (
    CHUNK_BYTES,
    INLINE_BYTES_MAX,
    chunk_bytes_for,
    is_inline,
    is_sound,
    make_offer,
)
from crowd.protocol.transfer.outgoing import WINDOW, FanOut, Outgoing
from crowd.units import DeviceId, is_identifier

__all__ = [
    "CHUNK_BYTES",
    "INLINE_BYTES_MAX",
    "WINDOW",
    "Effect",
    "Failed",
    "Received",
    "SendChunk",
    "SendDone",
    "SendOffer",
    "SendWant",
    "Sent",
    "Transfers",
]

_EARLY_CHUNKS_MAX = 2 * WINDOW
"""Chunks kept because they may have overtaken their offer."""
_ANSWERS_MAX = 4096
"""Ended transfers that are remembered, so that a late offer is answered and not received again."""


class Transfers:
    """All transfers from and to one device."""

    def __init__(self, *, prefix: str, give_up_us: int, size_bytes_max: int, receive_bytes_max: int) -> None:
        """Begin without transfers. `prefix` begins the names of this device's transfers: an identifier of at most 36
        characters that no other start of a process shares.

        A transfer ends when its other end has been silent for `give_up_us`. Larger ones than `size_bytes_max` are
        refused; `receive_bytes_max` bounds the memory of all that are coming in. Raises `ValueError` for a bad prefix.
        """
        if not is_identifier(prefix) or len(prefix) > 36:
            raise ValueError(f"{prefix!r} cannot begin the name of a transfer")
        self._prefix = prefix
        self._counter = 0
        self.give_up_us = give_up_us
        """Microseconds of silence that end a transfer. May be changed; a transfer being sent keeps the value with which
        it began."""
        self.message_bytes_max = MESSAGE_BYTES_MAX
        """Bytes of the longest message that the broker takes. May be changed; a transfer being sent keeps its
        chunks."""
        self._size_bytes_max = min(size_bytes_max, receive_bytes_max)
        self._receive_bytes_max = receive_bytes_max
        self._outgoing: dict[str, Outgoing] = {}
        self._fan_outs: dict[str, FanOut] = {}
        self._incoming: dict[tuple[DeviceId, str], Incoming] = {}
        self._early: OrderedDict[tuple[DeviceId, str, int], bytes | memoryview] = OrderedDict()
        self._answers: OrderedDict[tuple[DeviceId, str], Done] = OrderedDict()
        self._paces: dict[DeviceId, ArrivalPace] = {}

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(
        self, now_us: int, destination: DeviceId | None, cargo: Cargo, data: bytes, *, rate_bytes_s: int
    ) -> tuple[str, tuple[Effect, ...]]:
        """Begin to send `data` to one device, or with `None` to all, over a path whose slowest link carries
        `rate_bytes_s`.

        Returns the transfer's name and what to do. It ends with `Sent` or `Failed`; one to all is kept until it is
        dropped. Takes the digests of all chunks: about 2 ms per MiB.
        """
        transfer = f"{self._prefix}-{self._counter}"
        self._counter += 1
        limit = self.message_bytes_max
        chunk_bytes = chunk_bytes_for(rate_bytes_s, size_bytes=len(data), message_bytes_max=limit)
        offer = make_offer(transfer, cargo, data, chunk_bytes, message_bytes_max=limit)
        if destination is None:
            fan_out = self._fan_outs[transfer] = FanOut(offer, data)
            return transfer, fan_out.start()
        outgoing = self._outgoing[transfer] = Outgoing(now_us, offer, data, destination, self.give_up_us)
        return transfer, outgoing.start()

    def offer_to(self, transfer: str, device: DeviceId) -> tuple[Effect, ...]:
        """Offer a transfer to all again, to one device that missed it; nothing if it has been dropped."""
        fan_out = self._fan_outs.get(transfer)
        return fan_out.offer_to(device) if fan_out else ()

    def on_want(self, now_us: int, sender: DeviceId, want: Want) -> tuple[Effect, ...]:
        """Serve a receiver's want."""
        fan_out = self._fan_outs.get(want.transfer)
        if fan_out:
            return fan_out.serve(sender, want)
        outgoing = self._outgoing.get(want.transfer)
        if outgoing and outgoing.destination == sender:
            return outgoing.on_want(now_us, want)
        return ()

    def on_done(self, now_us: int, sender: DeviceId, done: Done) -> tuple[Effect, ...]:
        """End the transfer that its receiver is done with."""
        outgoing = self._outgoing.get(done.transfer)
        if not outgoing or outgoing.destination != sender:
            return ()
        del self._outgoing[done.transfer]
        return (Failed(transfer=done.transfer, destination=sender) if done.refused else Sent(transfer=done.transfer),)

    # --- receiving ----------------------------------------------------------------------------------------------------

    def on_offer(self, now_us: int, sender: DeviceId, offer: Offer, *, to_all: bool) -> tuple[Effect, ...]:
        """Answer an offer, and begin to receive it. `to_all`: the offer came on the address of all, so its chunks come
        without being asked for."""
        key = (sender, offer.transfer)
        if key in self._answers:
            return self._answer(key, to_all)
        if key in self._incoming:
            self._incoming[key].on_offer(now_us)
            return self._heard(sender, offer, to_all)
        if not is_sound(offer, self._size_bytes_max):
            return self._end(key, Done(transfer=offer.transfer, refused=True), to_all)
        if is_inline(offer):
            received = Received(sender=sender, offer=offer, data=offer.inline)
            return (received, *self._end(key, Done(transfer=offer.transfer), to_all))
        if self._receiving_bytes + offer.size_bytes > self._receive_bytes_max:
            # The sender will offer it again, and by then there may be room.
            return self._heard(sender, offer, to_all)
        self._bound_early(offer.size_bytes)
        pace = self._paces.setdefault(sender, ArrivalPace())
        self._incoming[key] = Incoming(
            now_us, sender, offer, to_all=to_all, pace=pace, others_coming=len(self._incoming)
        )
        return self._take_early(now_us, key)

    def on_chunk(
        self, now_us: int, sender: DeviceId, transfer: str, index: int, data: bytes | memoryview
    ) -> tuple[Effect, ...]:
        """Take a chunk; keep it for a while if its offer has not come."""
        key = (sender, transfer)
        incoming = self._incoming.get(key)
        if incoming is None:
            self._keep_early(key, index, data)
            return ()
        effects = incoming.on_chunk(now_us, index, data)
        if not incoming.is_complete:
            return effects
        del self._incoming[key]
        received = Received(sender=sender, offer=incoming.offer, data=incoming.data())
        return (received, *self._end(key, Done(transfer=transfer), incoming.to_all))

    def receives(self, sender: DeviceId, transfer: str) -> bool:
        """Whether this transfer was offered by `sender` and is coming in."""
        return (sender, transfer) in self._incoming

    def flowing(self, sender: DeviceId) -> tuple[Cargo, ...]:
        """The cargo that is coming in from `sender` and goes on coming, as far as is known."""
        return tuple(
            incoming.offer.cargo for key, incoming in self._incoming.items() if key[0] == sender and incoming.is_flowing
        )

    # --- both ---------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> int | None:
        """The time at which `on_tick` is due, in microseconds of the caller's clock; `None`: never."""
        ends: list[Outgoing | Incoming] = [*self._outgoing.values(), *self._incoming.values()]
        return min((end.deadline_us for end in ends), default=None)

    def on_tick(self, now_us: int) -> tuple[Effect, ...]:
        """Repeat what is overdue, and give up on silent devices. May be called at any time, but not while the
        connection is lost: that silence would be taken for the other end's."""
        effects: list[Effect] = []
        for transfer, outgoing in list(self._outgoing.items()):
            if outgoing.is_lost(now_us):
                del self._outgoing[transfer]
                effects.append(Failed(transfer=transfer, destination=outgoing.destination))
            else:
                effects += outgoing.on_tick(now_us)
        for key, incoming in list(self._incoming.items()):
            if now_us >= incoming.heard_us + self.give_up_us:
                del self._incoming[key]
            else:
                effects += incoming.on_tick(now_us)
        return tuple(effects)

    def reconnected(self, now_us: int) -> tuple[Effect, ...]:
        """Resume after a lost connection: bytes received stay, those on their way are asked for again."""
        ends: list[Outgoing | Incoming] = [*self._outgoing.values(), *self._incoming.values()]
        return tuple(effect for end in ends for effect in end.reconnected(now_us))

    def drop(self, transfer: str) -> tuple[Effect, ...]:
        """Forget a transfer: one of this device's, or one that is coming in, whose sender is told."""
        self._outgoing.pop(transfer, None)
        self._fan_outs.pop(transfer, None)
        effects: list[Effect] = []
        for key, incoming in list(self._incoming.items()):
            if key[1] == transfer:
                del self._incoming[key]
                effects += self._end(key, Done(transfer=transfer, refused=True), incoming.to_all)
        return tuple(effects)

    # --- private ------------------------------------------------------------------------------------------------------

    @property
    def _receiving_bytes(self) -> int:
        return sum(incoming.offer.size_bytes for incoming in self._incoming.values())

    def _heard(self, sender: DeviceId, offer: Offer, to_all: bool) -> tuple[Effect, ...]:
        """Tell the sender of a repeated offer that it need not give up: this device wants nothing, for now."""
        return () if to_all else (SendWant(destination=sender, want=Want(transfer=offer.transfer, chunks=())),)

    def _end(self, key: tuple[DeviceId, str], answer: Done, to_all: bool) -> tuple[Effect, ...]:
        self._answers[key] = answer
        if len(self._answers) > _ANSWERS_MAX:
            self._answers.popitem(last=False)
        for early in [early for early in self._early if early[:2] == key]:
            del self._early[early]
        return self._answer(key, to_all)

    def _answer(self, key: tuple[DeviceId, str], to_all: bool) -> tuple[Effect, ...]:
        return () if to_all else (SendDone(destination=key[0], done=self._answers[key]),)

    def _keep_early(self, key: tuple[DeviceId, str], index: int, data: bytes | memoryview) -> None:
        if key not in self._answers and len(data) <= CHUNK_BYTES:
            self._early[(*key, index)] = data
            self._bound_early(0)

    def _bound_early(self, needed_bytes: int) -> None:
        room_bytes = self._receive_bytes_max - self._receiving_bytes - needed_bytes
        while self._early and (
            len(self._early) > _EARLY_CHUNKS_MAX or sum(map(len, self._early.values())) > room_bytes
        ):
            self._early.popitem(last=False)

    def _take_early(self, now_us: int, key: tuple[DeviceId, str]) -> tuple[Effect, ...]:
        effects: list[Effect] = []
        for sender, transfer, index in [early for early in self._early if early[:2] == key]:
            data = self._early.pop((sender, transfer, index))
            effects += self.on_chunk(now_us, sender, transfer, index, data)
        return tuple(effects)
