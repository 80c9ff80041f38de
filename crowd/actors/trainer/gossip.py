"""The exchanges of parameters between neighbours within a round (`Mixing` in a plan): what has come, and who waits for
it."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import anyio
import structlog
import torch

from crowd.agreement.state import Active
from crowd.errors import MalformedMessage
from crowd.learning.encoding import decode, encode
from crowd.learning.layout import Layout
from crowd.learning.work import LocalTrainer
from crowd.planning.plan import PPM, Mixing
from crowd.ports import Compute
from crowd.protocol.messages import Parameters
from crowd.units import SECOND_US, DeviceId

PATIENCE_S_MIN, ROUNDS_PATIENT = 10.0, 3
"""Shortest wait for a neighbour, and for how many planned rounds it may be waited for if that is longer."""

log = structlog.get_logger()

Send = Callable[[DeviceId, Parameters, bytes], Awaitable[None]]


class Gossip:
    """One trainer's exchanges in one generation. A neighbour is at most one exchange ahead: it waits as well."""

    def __init__(
        self, me: DeviceId, mixing: Mixing, active: Active, layout: Layout, compute: Compute, send: Send
    ) -> None:
        self.mixing = mixing
        self._pieces = layout.pieces(0, layout.elements)
        self._neighbours: Mapping[DeviceId, int] = mixing.neighbours(me)
        self._active = active
        self._compute = compute
        self._send = send
        self._arrived: dict[tuple[int, int], dict[DeviceId, torch.Tensor]] = {}
        self._news = anyio.Event()
        self._awaited = (active.start.round + 1, 0)
        self._given_up: set[DeviceId] = set()
        """Neighbours that kept this device waiting for too long, and have not been heard since."""
        self._patience_s = max(PATIENCE_S_MIN, ROUNDS_PATIENT * active.plan.round_us / SECOND_US)

    async def take(self, sender: DeviceId, header: Parameters, data: bytes) -> None:
        """A neighbour's parameters have come; those of anybody else, or for another exchange than this and the next,
        are ignored."""
        if not self._active.covers(header):
            return
        place = (header.round, header.exchange)
        if sender not in self._neighbours or not self._awaited <= place <= self._after(self._awaited):
            return
        try:
            vector = await self._compute.run(partial(decode, data, header.encoding, self._pieces))
        except MalformedMessage as error:
            log.warning("parameters_refused", sender=sender, error=str(error))
            return
        self._arrived.setdefault(place, {})[sender] = vector
        self._given_up.discard(sender)
        self._news.set()

    async def mix(self, local: LocalTrainer, place: tuple[int, int], stopping: Callable[[], bool]) -> None:
        """Exchange `local`'s parameters with all neighbours at this `(round, exchange)` and take in theirs; without
        them once it is `stopping`, and without those that do not come."""
        self._awaited = place
        self._arrived = {known: vectors for known, vectors in self._arrived.items() if known >= place}
        encoding = self._active.plan.encoding
        data = await self._compute.run(lambda: encode(local.parameters(), encoding, self._pieces))
        header = Parameters(
            generation=self._active.generation,
            plan_digest=self._active.plan_digest,
            round=place[0],
            exchange=place[1],
            encoding=encoding,
        )
        for neighbour in sorted(self._neighbours):
            await self._send(neighbour, header, data)
        with anyio.move_on_after(self._patience_s) as limit:
            while self._missing(place):
                if stopping():
                    return
                self._news = anyio.Event()
                await self._news.wait()
        if limit.cancelled_caught:
            self._given_up |= self._missing(place)
            log.warning("exchange_held_up", by=sorted(self._given_up), round=place[0])
        arrived = self._arrived.get(place, {})
        others = [
            (arrived[device], weight / PPM) for device, weight in sorted(self._neighbours.items()) if device in arrived
        ]
        await self._compute.run(partial(local.mix, others))
        self._awaited = self._after(place)

    def _missing(self, place: tuple[int, int]) -> set[DeviceId]:
        """Neighbours whose parameters for that exchange are still waited for."""
        return self._neighbours.keys() - self._arrived.get(place, {}).keys() - self._given_up

    def wake(self) -> None:
        """Let whoever waits check whether it should stop."""
        self._news.set()

    def _after(self, place: tuple[int, int]) -> tuple[int, int]:
        number, exchange = place
        return (number, exchange + 1) if exchange + 1 < self.mixing.exchanges else (number + 1, 0)
