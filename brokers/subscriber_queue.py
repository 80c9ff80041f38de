"""What waits at a simulated broker for one subscriber.

Layout: `Mishaps` (what can happen to it) and `SubscriberQueue`.
"""

import heapq
import math
import random
from collections import Counter

import anyio
import attrs
from attrs.validators import ge, le

from brokers.hub import Message
from crowd.units import Address

_probability = [ge(0.0), le(1.0)]


@attrs.frozen(kw_only=True)
class Mishaps:
    """How probable it is that one delivery, of a message to one subscriber, is lost, made twice, or held up by up to
    `held_up_s_max` while later messages of other addresses overtake it."""

    lost: float = attrs.field(default=0.0, validator=_probability)
    duplicated: float = attrs.field(default=0.0, validator=_probability)
    held_up: float = attrs.field(default=0.0, validator=_probability)
    held_up_s_max: float = attrs.field(default=1.0, validator=ge(0.0))


NO_MISHAPS = Mishaps()


class SubscriberQueue:
    """Holds up to `size` messages. What does not get in is counted in `dropped`, as `lost` or `overflow`."""

    def __init__(self, size: int, *, chance: random.Random, dropped: Counter[str]) -> None:
        self._size = size
        self._chance = chance
        self._dropped = dropped
        self._waiting: list[tuple[float, int, Message]] = []
        """A heap by the time from which on each may go, and by the order in which they came."""
        self._came = 0
        self._held_up_until_s = 0.0
        self._changed = anyio.Event()

    def put(self, message: Message, mishaps: Mishaps) -> None:
        if self._befalls(mishaps.lost):
            self._dropped["lost"] += 1
            return
        for _ in range(2 if self._befalls(mishaps.duplicated) else 1):
            held_up_s = mishaps.held_up_s_max * self._chance.random() if self._befalls(mishaps.held_up) else 0.0
            self._enter(message, held_up_s)

    async def get(self) -> tuple[Message, float]:
        """The next message that may go, and since when it may."""
        while not self._waiting or self._waiting[0][0] > anyio.current_time():
            if self._changed.is_set():
                self._changed = anyio.Event()
            with anyio.CancelScope(deadline=self._waiting[0][0] if self._waiting else math.inf):
                await self._changed.wait()
        ready_at_s, _, message = heapq.heappop(self._waiting)
        return message, ready_at_s

    def _enter(self, message: Message, held_up_s: float) -> None:
        if len(self._waiting) >= self._size:
            self._dropped["overflow"] += 1
            return
        now_s = anyio.current_time()
        ready_at_s = now_s + held_up_s
        if self._held_up_until_s > now_s:
            ready_at_s = max(ready_at_s, self._latest(message.delivery.address))
        self._held_up_until_s = max(self._held_up_until_s, ready_at_s)
        self._came += 1
        heapq.heappush(self._waiting, (ready_at_s, self._came, message))
        self._changed.set()

    def _latest(self, address: Address) -> float:
        """When the last message of `address` may go: none of them overtakes another."""
        return max((at_s for at_s, _, held in self._waiting if held.delivery.address == address), default=0.0)

    def _befalls(self, probability: float) -> bool:
        return probability > 0.0 and self._chance.random() < probability
