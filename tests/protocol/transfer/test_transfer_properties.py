"""Whatever the carrier does, once it heals every receiver holds the exact bytes exactly once.

One seed draws every fault; a failing example prints it.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import assert_never

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowd.agreement.ack import StateProgress
from crowd.protocol.messages import WholeState
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

SENDER = device_id("sender")
CARGO = WholeState(progress=StateProgress())
CHUNK = 8
HOUR_US = 3600 * SECOND_US


@pytest.fixture(autouse=True, scope="module")
def _small_chunks() -> Iterator[None]:
    """Bytes by the handful, so that many chunks are cheap."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (manifest, transfers):
            patch.setattr(module, "CHUNK_BYTES", CHUNK)
            patch.setattr(module, "INLINE_BYTES_MAX", CHUNK)
        yield


@attrs.frozen(kw_only=True)
class Faults:
    loss: float = 0.0
    duplication: float = 0.0
    corruption: float = 0.0
    delay_us_max: int = 100_000
    outages: tuple[tuple[int, int, int], ...] = ()
    """Device number, from, until."""
    heal_us: int = 0
    """From here on only delay, and so reordering, remains."""


class TransferWorld:
    """The sender, its receivers, and a carrier with faults, under virtual time."""

    def __init__(self, seed: int, receivers: int, faults: Faults) -> None:
        self.random = random.Random(seed)
        self.faults = faults
        self.now_us = 0
        self.devices = [SENDER, *(device_id(f"receiver-{n}") for n in range(receivers))]
        self.transfers = {
            device: Transfers(
                prefix=f"{device}-x", give_up_us=HOUR_US, size_bytes_max=1 << 20, receive_bytes_max=1 << 22
            )
            for device in self.devices
        }
        self.received: dict[DeviceId, list[Received]] = {device: [] for device in self.devices}
        self.ended: list[Effect] = []
        self.sends: Counter[type] = Counter()
        self.chunk_sends: Counter[tuple[str, int]] = Counter()
        self.unasked: Counter[tuple[DeviceId, str]] = Counter()
        """Chunks that are on their way to one receiver, and that it did not ask for."""
        self.offline: set[DeviceId] = set()
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        for number, start_us, stop_us in faults.outages:
            device = self.devices[number % len(self.devices)]
            self.at(start_us, partial(self.offline.add, device))
            self.at(stop_us, partial(self._reconnect, device))

    def at(self, when_us: int, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (when_us, self._order, action))

    def send(self, destination: DeviceId | None, data: bytes) -> str:
        name, effects = self.transfers[SENDER].send(self.now_us, destination, CARGO, data, rate_bytes_s=CHUNK)
        self.perform(SENDER, effects)
        return name

    def run(self) -> None:
        """Until nothing is on its way and no timer is set."""
        for _ in range(50_000):
            timers = [
                (deadline, device)
                for device in self.devices
                if device not in self.offline and (deadline := self.transfers[device].next_deadline()) is not None
            ]
            if not timers and not self._queue:
                return
            assert self.now_us < HOUR_US, "faults end after a minute: so should the transfers, soon after"
            if timers and (not self._queue or min(timers)[0] < self._queue[0][0]):
                deadline_us, device = min(timers)
                self.now_us = max(self.now_us, deadline_us)
                self.perform(device, self.transfers[device].on_tick(self.now_us))
                next_us = self.transfers[device].next_deadline()
                assert next_us is None or next_us > self.now_us, "a tick leaves nothing to be done at once"
            else:
                self.now_us, _, action = heapq.heappop(self._queue)
                action()
        raise AssertionError(f"too busy: {self.now_us / SECOND_US} s is as far as it came")

    def perform(self, device: DeviceId, effects: tuple[Effect, ...], *, asked: bool = False) -> None:
        for effect in effects:
            self.sends[type(effect)] += 1
            self._perform(device, effect, asked)

    def _perform(self, device: DeviceId, effect: Effect, asked: bool) -> None:
        match effect:
            case SendOffer(destination=None, offer=offer):
                for other in self._others(device):
                    self._carry(device, other, lambda to: to.on_offer(self.now_us, device, offer, to_all=True))
            case SendOffer(destination=other, offer=offer):
                self._carry(device, other, lambda to: to.on_offer(self.now_us, device, offer, to_all=False))
            case SendChunk(destination=None):
                self.chunk_sends[(effect.transfer, effect.index)] += 1
                for other in self._others(device):
                    self._carry_chunk(device, other, effect, asked)
            case SendChunk(destination=other):
                self.chunk_sends[(effect.transfer, effect.index)] += 1
                self._carry_chunk(device, other, effect, asked)
            case SendWant(destination=other, want=want):
                self._carry(device, other, lambda to: to.on_want(self.now_us, device, want), is_want=True)
            case SendDone(destination=other, done=done):
                self._carry(device, other, lambda to: to.on_done(self.now_us, device, done))
            case Received():
                self.received[device].append(effect)
            case Sent() | Failed():
                self.ended.append(effect)
            case _:
                assert_never(effect)

    def _others(self, device: DeviceId) -> list[DeviceId]:
        return [other for other in self.devices if other != device]

    def _carry_chunk(self, source: DeviceId, other: DeviceId | None, chunk: SendChunk, asked: bool) -> None:
        data = bytearray(chunk.data)
        if self._strikes(self.faults.corruption):
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        assert other is not None
        key = (other, chunk.transfer)
        unasked = 0 if asked or chunk.destination is None else 1
        self.unasked[key] += unasked
        assert self.unasked[key] <= 2 * WINDOW

        def arrive(to: Transfers) -> tuple[Effect, ...]:
            return to.on_chunk(self.now_us, source, chunk.transfer, chunk.index, bytes(data))

        copies = self._carry(source, other, arrive)
        # Those that are lost are no longer on their way; of duplicates the first counts.
        self.at(max(copies, default=self.now_us), lambda: self.unasked.subtract({key: unasked}))

    def _carry(
        self,
        source: DeviceId,
        other: DeviceId | None,
        arrive: Callable[[Transfers], tuple[Effect, ...]],
        *,
        is_want: bool = False,
    ) -> list[int]:
        """When the copies will arrive, none if it is lost."""
        assert other is not None
        if source in self.offline or self._strikes(self.faults.loss):
            return []

        def deliver() -> None:
            if other not in self.offline:
                effects = arrive(self.transfers[other])
                assert sum(isinstance(effect, SendChunk) for effect in effects) <= 2 * WINDOW
                self.perform(other, effects, asked=is_want)

        copies = 2 if self._strikes(self.faults.duplication) else 1
        arrivals = [self.now_us + self.random.randint(1, self.faults.delay_us_max) for _ in range(copies)]
        for arrival_us in arrivals:
            self.at(arrival_us, deliver)
        return arrivals

    def _strikes(self, probability: float) -> bool:
        return self.now_us < self.faults.heal_us and self.random.random() < probability

    def _reconnect(self, device: DeviceId) -> None:
        self.offline.discard(device)
        self.perform(device, self.transfers[device].reconnected(self.now_us))


def _bytes(seed: int, chunks: int) -> bytes:
    """Fills `chunks` chunks, the last not wholly; none at all for 0."""
    return random.Random(seed).randbytes(max(0, chunks * CHUNK - 3))


_chunk_counts = st.sampled_from([0, 1, 2, 7, 8, 9, 12, 16, 17, 40])
_outages = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 20 * SECOND_US), st.integers(1, 20 * SECOND_US)).map(
        lambda outage: (outage[0], outage[1], outage[1] + outage[2])
    ),
    max_size=2,
).map(tuple)
_faults = st.builds(
    Faults,
    loss=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    duplication=st.sampled_from([0.0, 0.3]),
    corruption=st.sampled_from([0.0, 0.2]),
    delay_us_max=st.sampled_from([1, 50_000, 900_000, 5 * SECOND_US]),
    outages=_outages,
    heal_us=st.integers(0, 60 * SECOND_US),
)


@given(st.integers(0, 1 << 32), _faults, st.lists(st.tuples(_chunk_counts, st.integers(1, 4)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_under_any_faults_each_receiver_gets_its_bytes_once_and_the_sender_knows(
    seed: int, faults: Faults, plan: list[tuple[int, int]]
) -> None:
    world = TransferWorld(seed, 4, faults)
    expected: dict[DeviceId, dict[str, bytes]] = {device: {} for device in world.devices}
    for number, (chunks, receiver) in enumerate(plan):
        data = _bytes(seed + number, chunks)
        expected[world.devices[receiver]][world.send(world.devices[receiver], data)] = data
    world.run()
    _check_received(world, expected)
    assert sorted(effect.transfer for effect in world.ended if isinstance(effect, Sent)) == sorted(
        name for device in world.devices for name in expected[device]
    )
    assert len(world.ended) == len(plan)


@given(st.integers(0, 1 << 32), _faults, _chunk_counts, st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_under_any_faults_a_fan_out_reaches_all_once_the_missing_are_offered_it_again(
    seed: int, faults: Faults, chunks: int, receivers: int
) -> None:
    world = TransferWorld(seed, receivers, faults)
    data = _bytes(seed, chunks)
    name = world.send(None, data)

    def offer_again() -> None:
        for device in world.devices[1:]:
            if not world.received[device]:
                world.perform(SENDER, world.transfers[SENDER].offer_to(name, device))

    world.at(faults.heal_us + 60 * SECOND_US, offer_again)
    world.run()
    _check_received(world, {SENDER: {}} | {device: {name: data} for device in world.devices[1:]})


def _check_received(world: TransferWorld, expected: dict[DeviceId, dict[str, bytes]]) -> None:
    for device in world.devices:
        received = world.received[device]
        assert {effect.offer.transfer: effect.data for effect in received} == expected[device]
        assert len(received) == len(expected[device])
        assert all(effect.sender == SENDER and effect.offer.cargo == CARGO for effect in received)


_calm = st.builds(Faults, delay_us_max=st.sampled_from([1, 50_000, 400_000]))


@given(st.integers(0, 1 << 32), _calm, _chunk_counts)
@settings(max_examples=100, deadline=None)
def test_without_faults_no_chunk_is_sent_twice_and_wants_are_few(seed: int, faults: Faults, chunks: int) -> None:
    world = TransferWorld(seed, 1, faults)
    world.send(world.devices[1], _bytes(seed, chunks))
    world.run()
    assert sum(world.chunk_sends.values()) == len(world.chunk_sends) == (chunks if chunks > 1 else 0)
    assert world.sends[SendWant] == max(0, -(-(chunks - WINDOW) // (WINDOW // 2)))
    assert world.sends[SendOffer] == world.sends[SendDone] == 1


# No more chunks than are kept when they overtake their offer.
@given(st.integers(0, 1 << 32), _calm, st.sampled_from([0, 1, 2, 7, 8, 9, 15, 16]), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_without_faults_a_fan_out_is_published_once_and_nobody_answers(
    seed: int, faults: Faults, chunks: int, receivers: int
) -> None:
    world = TransferWorld(seed, receivers, faults)
    world.send(None, _bytes(seed, chunks))
    world.run()
    assert set(world.chunk_sends.values()) <= {1}
    assert world.sends == Counter({SendOffer: 1, Received: receivers}) + Counter(
        {SendChunk: chunks if chunks > 1 else 0}
    )
