"""Transfers of one sender to a few receivers, where each fate of each message is chosen, and ends are walked away from.

`test_transfer_properties` draws faults for transfers that nobody abandons; here transfers are dropped at either end,
devices vanish, silence lasts until it counts, and what comes in contends for little memory.
"""

import weakref
from collections import Counter
from typing import Any, assert_never

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from crowd.agreement.ack import StateProgress
from crowd.protocol.messages import Want, WholeState
from crowd.protocol.transfer import manifest, transfers
from crowd.protocol.transfer.transfers import (
    WINDOW,
    Effect,
    Failed,
    Received,
    SendChunk,
    SendDone,
    SendOffer,
    SendWant,
    Sent,
    Transfers,
)
from crowd.units import SECOND_US, DeviceId, device_id

CHUNK = 8
RECEIVE_BYTES_MAX = 24 * CHUNK
"""Two of the larger transfers fit, three do not."""
GIVE_UP_US = 100 * SECOND_US
CARGO = WholeState(progress=StateProgress())

SENDER = device_id("sender")
RECEIVERS_MAX = 3

numbers = st.integers(0, RECEIVERS_MAX - 1)
places = st.integers(0, 99)
sizes = st.sampled_from([0, CHUNK, CHUNK + 1, 3 * CHUNK, 8 * CHUNK, 9 * CHUNK, 12 * CHUNK - 3, 21 * CHUNK])


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes by the handful, so that a few of them are many chunks."""
    for module in (manifest, transfers):
        monkeypatch.setattr(module, "CHUNK_BYTES", CHUNK)
        monkeypatch.setattr(module, "INLINE_BYTES_MAX", CHUNK)


class Fate:
    OPEN, SENT, FAILED, DROPPED = range(4)


@attrs.define
class Sending:
    """What the sender began, and how it ended."""

    destination: DeviceId | None
    data: bytes
    fate: int = Fate.OPEN


@attrs.frozen
class Sealed:
    """A message in the air."""

    source: DeviceId
    target: DeviceId
    effect: SendOffer | SendChunk | SendWant | SendDone
    spoilt: bool = False


class Network(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_us = 0
        self.air: list[Sealed] = []
        self.transfers: dict[DeviceId, Transfers] = {}
        self.connected: set[DeviceId] = set()
        self.sendings: dict[str, Sending] = {}
        self.received: Counter[tuple[DeviceId, str]] = Counter()
        self.refused: set[tuple[DeviceId, str]] = set()
        """Dropped by the receiver while it was coming in."""
        self.credit: dict[tuple[DeviceId, str], set[int]] = {}
        """Chunks that each receiver may expect: the first window, and what it asked for since."""
        self.arrived: dict[tuple[DeviceId, str], set[int]] = {}
        """Chunks that have come whole, before their offer or after it."""
        self.handed: list[tuple[DeviceId, int, weakref.ref[memoryview]]] = []
        """Chunks given to receivers; those that live are held by them."""

    @initialize(receivers=st.integers(1, RECEIVERS_MAX), first=st.lists(st.tuples(numbers, sizes), max_size=3))
    def devices_start(self, receivers: int, first: list[tuple[int, int]]) -> None:
        for name in (SENDER, *(device_id(f"receiver-{number}") for number in range(receivers))):
            self.transfers[name] = Transfers(
                prefix=f"{name}-x",
                give_up_us=GIVE_UP_US,
                size_bytes_max=1 << 20,
                receive_bytes_max=RECEIVE_BYTES_MAX,
            )
            self.connected.add(name)
        for number, size in first:
            self.something_is_sent(number=number, size=size, to_all=False)

    # --- what devices do ----------------------------------------------------------------------------------------------

    @precondition(lambda self: SENDER in self.transfers and len(self.sendings) < 6)
    @rule(number=numbers, size=sizes, to_all=st.booleans())
    def something_is_sent(self, number: int, size: int, to_all: bool) -> None:
        destination = None if to_all else self._receiver(number)
        data = bytes((len(self.sendings) + place) % 251 for place in range(size))
        name, effects = self.transfers[SENDER].send(self.now_us, destination, CARGO, data, rate_bytes_s=CHUNK)
        assert name not in self.sendings
        self.sendings[name] = Sending(destination, data)
        self._perform(SENDER, effects, chunks_max=len(data) // CHUNK + 1 if to_all else WINDOW)

    @precondition(lambda self: SENDER in self.transfers and self.sendings)
    @rule(place=places)
    def the_sender_drops_a_transfer(self, place: int) -> None:
        self._drop(self._sending(place))

    @precondition(lambda self: self._coming())
    @rule(place=places)
    def a_receiver_drops_what_is_coming_in(self, place: int) -> None:
        coming = self._coming()
        receiver, name = coming[place % len(coming)]
        self.refused.add((receiver, name))
        self._perform(receiver, self.transfers[receiver].drop(name))
        assert not self.transfers[receiver].receives(SENDER, name)

    @precondition(lambda self: SENDER in self.transfers and self.sendings)
    @rule(place=places, number=numbers)
    def one_device_is_offered_again_what_went_to_all(self, place: int, number: int) -> None:
        effects = self.transfers[SENDER].offer_to(self._sending(place), self._receiver(number))
        self._perform(SENDER, effects, chunks_max=WINDOW)

    # --- the fate of messages -----------------------------------------------------------------------------------------

    @precondition(lambda self: self.air)
    @rule(place=places)
    def a_message_arrives(self, place: int) -> None:
        self._deliver(self.air.pop(place % len(self.air)))

    @precondition(lambda self: self.air)
    @rule(place=places)
    def a_message_arrives_and_will_come_again(self, place: int) -> None:
        self._deliver(self.air[place % len(self.air)])

    @precondition(lambda self: self.air)
    @rule(place=places)
    def a_message_is_lost(self, place: int) -> None:
        self.air.pop(place % len(self.air))

    @precondition(lambda self: self.air)
    @rule(place=places)
    def a_message_is_spoilt_if_it_is_a_chunk(self, place: int) -> None:
        place %= len(self.air)
        self.air[place] = attrs.evolve(self.air[place], spoilt=isinstance(self.air[place].effect, SendChunk))

    @precondition(lambda self: self.air)
    @rule(backwards=st.booleans())
    def everything_sent_so_far_arrives(self, backwards: bool) -> None:
        air, self.air = self.air, []
        for sealed in reversed(air) if backwards else air:
            self._deliver(sealed)

    # --- time and connections -----------------------------------------------------------------------------------------

    @rule()
    def time_passes_to_the_next_deadline(self) -> None:
        due = self._due()
        if due:
            self._pass_to(min(due))

    @rule(seconds=st.sampled_from([1, 5, 30, 110]))
    def time_passes(self, seconds: int) -> None:
        """Or to the first deadline within it: timers do not sleep."""
        self._pass_to(min([self.now_us + seconds * SECOND_US, *self._due()]))

    @rule(number=st.integers(0, RECEIVERS_MAX))
    def a_connection_goes_or_is_back(self, number: int) -> None:
        device = sorted(self.transfers)[number % len(self.transfers)]
        if device in self.connected:
            self.connected.discard(device)
        else:
            self._connect(device)

    @precondition(lambda self: len(self.transfers) > 1)
    @rule(number=st.integers(0, 5 * RECEIVERS_MAX))
    def a_device_vanishes(self, number: int) -> None:
        """Seldom, and most seldom the sender: that ends all that could still happen."""
        device = SENDER if number == 5 * RECEIVERS_MAX else self._receiver(number)
        self.transfers.pop(device, None)
        self.connected.discard(device)

    def _due(self) -> list[int]:
        deadlines = (self.transfers[device].next_deadline() for device in self.connected)
        return [deadline_us for deadline_us in deadlines if deadline_us is not None]

    def _pass_to(self, now_us: int) -> None:
        self.now_us = max(self.now_us, now_us)
        for device in sorted(self.connected):
            self._perform(device, self.transfers[device].on_tick(self.now_us))
            due_us = self.transfers[device].next_deadline()
            assert due_us is None or due_us > self.now_us, "a tick leaves nothing to be done at once"
        self._forget_credit()

    def _connect(self, device: DeviceId) -> None:
        self.connected.add(device)
        self._perform(device, self.transfers[device].reconnected(self.now_us))

    # --- the network --------------------------------------------------------------------------------------------------

    def _deliver(self, sealed: Sealed) -> None:
        source, target, effect = sealed.source, sealed.target, sealed.effect
        if target not in self.connected:
            return
        to = self.transfers[target]
        match effect:
            case SendOffer():
                self._deliver_offer(source, target, effect)
            case SendChunk(transfer=name, index=index):
                data = bytes(effect.data)
                view = memoryview(bytes([data[0] ^ 1]) + data[1:] if sealed.spoilt else data)
                self.handed.append((target, len(view), weakref.ref(view)))
                if not sealed.spoilt:
                    self.arrived.setdefault((target, name), set()).add(index)
                    self.credit.get((target, name), set()).discard(index)
                self._perform(target, to.on_chunk(self.now_us, source, name, index, view))
            case SendWant(want=want):
                chunks = to.on_want(self.now_us, source, want)
                wanted = {index for start, stop in want.chunks for index in range(start, stop)}
                sent = [chunk.index for chunk in chunks if isinstance(chunk, SendChunk)]
                assert len(sent) == len(set(sent)) == len(chunks)
                assert set(sent) <= wanted
                self._perform(target, chunks, chunks_max=WINDOW)
            case SendDone(done=done):
                self._perform(target, to.on_done(self.now_us, source, done))
            case _:
                assert_never(effect)
        self._forget_credit()

    def _deliver_offer(self, source: DeviceId, target: DeviceId, sent: SendOffer) -> None:
        to, name, to_all = self.transfers[target], sent.offer.transfer, sent.destination is None
        key = (target, name)
        known = to.receives(source, name)
        effects = to.on_offer(self.now_us, source, sent.offer, to_all=to_all)
        if to.receives(source, name) and not known and not to_all:
            # those that overtook their offer were kept, and more may be wanted already
            self.credit[key] = set(range(WINDOW)) - self.arrived.get(key, set())
        self._perform(target, effects)

    def _forget_credit(self) -> None:
        """Of what no longer comes in: received, dropped or given up."""
        for receiver, name in list(self.credit):
            if receiver not in self.transfers or not self.transfers[receiver].receives(SENDER, name):
                del self.credit[receiver, name]
                self.arrived.pop((receiver, name), None)

    def _perform(self, device: DeviceId, effects: tuple[Effect, ...], *, chunks_max: int = 0) -> None:
        """`chunks_max`: how many chunks these effects may send to one receiver."""
        assert sum(isinstance(effect, SendChunk) for effect in effects) <= chunks_max
        for effect in effects:
            match effect:
                case SendOffer(destination=destination) | SendChunk(destination=destination):
                    assert device == SENDER
                    receivers = [destination] if destination else sorted(self.transfers.keys() - {SENDER})
                    self._carry(device, receivers, effect)
                case SendWant(destination=destination, want=want):
                    self._check_want(device, want)
                    self._carry(device, [destination], effect)
                case SendDone(destination=destination):
                    self._carry(device, [destination], effect)
                case Received():
                    self._check_received(device, effect)
                case Sent(transfer=name):
                    destination = self.sendings[name].destination
                    assert destination is not None
                    assert self.received[destination, name] == 1, "sent, and not received"
                    self._end(name, Fate.SENT)
                case Failed(transfer=name, destination=destination):
                    assert self.sendings[name].destination == destination
                    self._end(name, Fate.FAILED)
                case _:
                    assert_never(effect)

    def _carry(self, source: DeviceId, receivers: list[DeviceId], effect: Any) -> None:
        if source in self.connected:
            self.air += [Sealed(source, receiver, effect) for receiver in receivers]

    def _end(self, name: str, fate: int) -> None:
        assert self.sendings[name].fate == Fate.OPEN, f"{name} ends twice"
        self.sendings[name].fate = fate
        self._check_forgotten(name)

    def _drop(self, name: str) -> None:
        sending = self.sendings[name]
        assert self.transfers[SENDER].drop(name) == ()
        if sending.fate == Fate.OPEN:
            self._end(name, Fate.DROPPED)

    # --- checks -------------------------------------------------------------------------------------------------------

    def _check_received(self, device: DeviceId, received: Received) -> None:
        sending = self.sendings[received.offer.transfer]
        assert received.data == sending.data
        assert received.sender == SENDER
        assert received.offer.cargo == CARGO
        assert sending.destination in (None, device)
        assert (device, received.offer.transfer) not in self.refused
        self.received[device, received.offer.transfer] += 1
        assert self.received[device, received.offer.transfer] == 1

    def _check_want(self, receiver: DeviceId, want: Want) -> None:
        """Never more than a window is asked for, and so is on its way to a receiver of its own."""
        wanted = {index for start, stop in want.chunks for index in range(start, stop)}
        assert len(wanted) <= WINDOW
        credit = self.credit.get((receiver, want.transfer))
        if credit is not None:
            credit |= wanted
            assert len(credit) <= WINDOW

    def _check_forgotten(self, name: str) -> None:
        everything = Want(transfer=name, chunks=((0, 1 << 20),))
        for receiver in (device_id(f"receiver-{number}") for number in range(RECEIVERS_MAX)):
            assert self.transfers[SENDER].on_want(self.now_us, receiver, everything) == ()
            assert self.transfers[SENDER].offer_to(name, receiver) == ()

    def _held(self, receiver: DeviceId) -> list[int]:
        """Sizes of the chunks that a receiver keeps as they came."""
        self.handed = [chunk for chunk in self.handed if chunk[2]() is not None]
        return [size for device, size, _ in self.handed if device == receiver]

    @invariant()
    def what_comes_in_is_bounded(self) -> None:
        coming = self._coming()
        for device in self.transfers.keys() - {SENDER}:
            coming_bytes = sum(len(self.sendings[name].data) for receiver, name in coming if receiver == device)
            held = self._held(device)
            assert len(held) <= 2 * WINDOW
            assert coming_bytes + sum(held) <= RECEIVE_BYTES_MAX

    # --- the end ------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Connections are back, and nothing is lost any more: every transfer ends, and nothing is left behind."""
        for device in sorted(self.transfers):
            self._connect(device)
        wanted = [name for name, sending in self.sendings.items() if sending.fate == Fate.OPEN]
        self._settle()
        if SENDER in self.transfers:
            for name in wanted:
                self._check_end(name)
        assert not self._coming()
        for ends in self.transfers.values():
            assert ends.next_deadline() is None

    def _settle(self) -> None:
        for _ in range(10_000):
            if self.air:
                self._deliver(self.air.pop(0))
            elif due := self._due():
                self._pass_to(min(due))
            else:
                return
        raise AssertionError("transfers never end")

    def _check_end(self, name: str) -> None:
        """The one receiver has it or cannot have it; of all, those that lack it are offered it again."""
        sending = self.sendings[name]
        if sending.destination is not None:
            key = (sending.destination, name)
            if sending.destination in self.transfers and key not in self.refused:
                assert sending.fate == Fate.SENT
            else:  # who has vanished may have received it before
                assert sending.fate == Fate.FAILED or (self.received[key] and sending.fate == Fate.SENT)
            return
        for receiver in sorted(self.transfers.keys() - {SENDER}):
            if not self.received[receiver, name] and (receiver, name) not in self.refused:
                self._perform(SENDER, self.transfers[SENDER].offer_to(name, receiver), chunks_max=WINDOW)
                self._settle()
                assert self.received[receiver, name]
        self._drop(name)

    def _coming(self) -> list[tuple[DeviceId, str]]:
        return [
            (device, name)
            for device in sorted(self.transfers.keys() - {SENDER})
            for name in self.sendings
            if self.transfers[device].receives(SENDER, name)
        ]

    def _receiver(self, number: int) -> DeviceId:
        """Also one that has vanished."""
        return device_id(f"receiver-{number}")

    def _sending(self, place: int) -> str:
        return list(self.sendings)[place % len(self.sendings)]


def test_every_transfer_ends_and_is_received_at_most_once_whoever_walks_away() -> None:
    run_state_machine_as_test(Network, settings=settings(max_examples=200, stateful_step_count=50, deadline=None))
