"""The queue of a simulated broker for one subscriber.

Layout: `FaultRates` (the faults of deliveries) and `SubscriberQueue`.
"""

import asyncio
import contextvars
import functools
import heapq
import random
from collections import Counter, deque
from collections.abc import Callable

import anyio.lowlevel
import attrs
from attrs.validators import ge, le

from brokers.in_process import PublishedMessage
from crowd.units import Address

_probability = [ge(0.0), le(1.0)]


@attrs.frozen(kw_only=True)
class FaultRates:
    """The probabilities that one delivery, of a message to one subscriber, is lost, made twice, or held up by up to
    `held_up_s_max` while later messages of other addresses overtake it."""

    lost: float = attrs.field(default=0.0, validator=_probability)
    duplicated: float = attrs.field(default=0.0, validator=_probability)
    held_up: float = attrs.field(default=0.0, validator=_probability)
    held_up_s_max: float = attrs.field(default=1.0, validator=ge(0.0))


NO_MISHAPS = FaultRates()


class SubscriberQueue:
    """Up to `size` messages on their way from the broker to one subscriber. Those that do not get in are counted in
    `dropped`, as `lost` or `overflow`.

    A message sets out as soon as it may, whether somebody reads or not: `arrival` is asked then when it will be there,
    or `None` if it does not go.
    """

    def __init__(
        self,
        size: int,
        *,
        arrival: Callable[[PublishedMessage, float], float | None],
        chance: random.Random,
        dropped: Counter[str],
    ) -> None:
        self._size = size
        self._arrival = arrival
        self._chance = chance
        self._dropped = dropped
        self._nobodys = contextvars.Context()
        """Context for timers, which no simulated process owns."""
        self._held: list[tuple[float, int, PublishedMessage]] = []
        """Messages that are held up: a heap by the time from which on each may go, and by the order in which they
        came."""
        self._came = 0
        self._coming: deque[tuple[float, PublishedMessage]] = deque()
        """Messages under way, with the times of their arrival: in order, as TCP keeps it."""
        self._loop = asyncio.get_running_loop()
        self._woken: asyncio.Future[None] = self._loop.create_future()
        """Future of the reader that waits now, or waited last."""

    def put(self, message: PublishedMessage, fault_rates: FaultRates) -> None:
        if self._befalls(fault_rates.lost):
            self._dropped["lost"] += 1
            return
        for _ in range(2 if self._befalls(fault_rates.duplicated) else 1):
            held_up_s = fault_rates.held_up_s_max * self._chance.random() if self._befalls(fault_rates.held_up) else 0.0
            self._enter(message, held_up_s)

    async def wait(self) -> None:
        """Wait until a message has arrived, or `wake` is called."""
        if self._has_arrived():
            await anyio.lowlevel.checkpoint()
            return
        self._woken = self._loop.create_future()
        if self._coming:
            self._wake_at(self._coming[0][0])
        await self._woken

    def arrived(self) -> PublishedMessage | None:
        """The next message that has arrived, or `None`; it stays until `take`."""
        return self._coming[0][1] if self._has_arrived() else None

    def take(self) -> None:
        """Remove the message that `arrived` gave."""
        self._coming.popleft()

    def clear_coming(self) -> int:
        """Drop the messages that have set out and not arrived; returns how many they were."""
        arrived = [entry for entry in self._coming if entry[0] <= self._loop.time()]
        lost = len(self._coming) - len(arrived)
        self._coming = deque(arrived)
        return lost

    def wake(self) -> None:
        """Let whoever waits look again."""
        if not self._woken.done():
            self._woken.set_result(None)

    def _enter(self, message: PublishedMessage, held_up_s: float) -> None:
        if len(self._held) + len(self._coming) >= self._size:
            self._dropped["overflow"] += 1
            return
        now_s = self._loop.time()
        ready_at_s = now_s + held_up_s
        if self._held:
            ready_at_s = max(ready_at_s, self._latest(message.delivery.address))
        if ready_at_s <= now_s:
            self._send(message, ready_at_s)
            return
        self._came += 1
        heapq.heappush(self._held, (ready_at_s, self._came, message))
        self._call_at(ready_at_s, functools.partial(self._let_go, ready_at_s))

    def _let_go(self, until_s: float) -> None:
        """Let the messages set out that were held up until `until_s`."""
        while self._held and self._held[0][0] <= until_s:
            ready_at_s, _, message = heapq.heappop(self._held)
            self._send(message, ready_at_s)

    def _send(self, message: PublishedMessage, ready_at_s: float) -> None:
        arrives_at_s = self._arrival(message, ready_at_s)
        if arrives_at_s is None:
            return
        if self._coming:
            arrives_at_s = max(arrives_at_s, self._coming[-1][0])
        else:
            self._wake_at(arrives_at_s)
        self._coming.append((arrives_at_s, message))

    def _wake_at(self, time_s: float) -> None:
        self._call_at(time_s, self.wake)

    def _call_at(self, time_s: float, action: Callable[[], None]) -> None:
        self._loop.call_at(time_s, action, context=self._nobodys)

    def _has_arrived(self) -> bool:
        return bool(self._coming) and self._coming[0][0] <= self._loop.time()

    def _latest(self, address: Address) -> float:
        """The time at which the last message of `address` may go: none of them overtakes another."""
        return max((at_s for at_s, _, held in self._held if held.delivery.address == address), default=0.0)

    def _befalls(self, probability: float) -> bool:
        return probability > 0.0 and self._chance.random() < probability
