"""The one connection of a device to its broker: opened again whenever it is lost, written to in order of urgency."""

import contextlib
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable

import anyio
import attrs
import structlog

from crowd.errors import BrokerLost, BrokerRefused, innermost
from crowd.ports import Broker, BrokerSession, Delivery, Will
from crowd.runtime.backoff import backoff_s
from crowd.units import SECOND_US, Address

RECONNECT_PAUSE_S_MAX = 5.0
"""A gateway that comes back finds its devices within seconds of each other."""
OUTBOX_MAX = 4096
"""Bulk messages that may wait; beyond it the oldest is dropped, as a transfer asks again for what it lacks."""
URGENT_IN_A_ROW = 4
"""Urgent messages that may leave before waiting bulk: it may contain what is asked for, and repeated questions must not
hold it up for ever."""
FAREWELL_LIMIT_S = 1.0
EXPIRY_S = 60
"""Seconds that a message may wait at the broker for its receiver before it is of no use, unless a plan says
otherwise."""
BULK_BYTES_MIN = 64 * 1024
"""Bytes of the smallest message that says something about a link's rate."""

log = structlog.get_logger()

Timed = Callable[[int, int], Awaitable[None]]


@attrs.frozen(kw_only=True)
class OutboxItem:
    address: Address
    payload: bytes | memoryview
    retain: bool = False
    says: Hashable = None
    """The key of what the message says: of waiting messages with equal keys only the newest leaves, at the position of
    the first."""


class Outbox:
    """The messages that wait to be published: urgent ones first, though bulk has its turn too; each kind in order, and
    nothing that waits is said twice."""

    def __init__(self) -> None:
        self._urgent: OrderedDict[Hashable, OutboxItem] = OrderedDict()
        self._bulk: OrderedDict[Hashable, OutboxItem] = OrderedDict()
        self._passed = 0
        """Urgent messages since bulk last left."""
        self._filled = anyio.Event()
        self.dropped = 0

    def put(self, outgoing: OutboxItem, *, bulk: bool) -> None:
        queue = self._bulk if bulk else self._urgent
        queue[object() if outgoing.says is None else outgoing.says] = outgoing
        while len(self._bulk) > OUTBOX_MAX:
            self._bulk.popitem(last=False)
            self.dropped += 1
        self._filled.set()

    @property
    def urgent(self) -> int:
        """How many urgent messages wait."""
        return len(self._urgent)

    async def get(self) -> OutboxItem:
        while not self._urgent and not self._bulk:
            self._filled = anyio.Event()
            await self._filled.wait()
        urgent = self.next_urgent() if self._passed < URGENT_IN_A_ROW or not self._bulk else None
        self._passed = 0 if urgent is None else self._passed + 1
        return urgent or self._bulk.popitem(last=False)[1]

    def next_urgent(self) -> OutboxItem | None:
        return self._urgent.popitem(last=False)[1] if self._urgent else None

    def clear_urgent(self) -> None:
        """Drop the urgent messages of a lost connection: state is rebuilt, the rest is asked for again."""
        self._urgent.clear()


class Connection:
    """Keeps a session to the broker. `run` ends only by an error that reconnecting does not mend."""

    def __init__(
        self,
        broker: Broker,
        *,
        will: Will,
        subscriptions: Callable[[], tuple[Address, ...]],
        changed: Callable[[bool], Awaitable[None]],
        arrived: Callable[[Delivery], Awaitable[None]],
        timed: Timed,
        farewell: Callable[[], None],
        seed: int,
    ) -> None:
        """Make a connection that is not open yet. `farewell` puts the last messages into the outbox before the
        connection is closed on purpose."""
        self._broker = broker
        self._will = will
        self._subscriptions = subscriptions
        self._changed = changed
        self._arrived = arrived
        self._timed = timed
        self._farewell = farewell
        self._random = random.Random(seed)
        self._connected = False
        self._outdated = anyio.Event()
        """Set when the session's subscriptions differ from those that it should have."""
        self.outbox = Outbox()
        self.expiry_s = EXPIRY_S

    async def run(self) -> None:
        """Connect, and again whenever the connection goes, after a growing pause. Raises `BrokerRefused` if the first
        attempt already fails: then the configuration is at fault, or the broker is not running."""
        attempt = 0
        connected_before = False
        while True:
            error: BaseException | None = None
            try:
                async with self._broker.session(will=self._will) as session:
                    patterns = self._subscriptions()
                    await session.subscribe(*patterns)
                    connected_before, attempt = True, 0
                    await self._serve(session, patterns)
            except* BrokerLost as lost:
                error = innermost(lost)
            if not connected_before:
                raise BrokerRefused(str(error)) from error
            if self._connected:
                self._connected = False
                log.warning("broker_lost", error=str(error))
                await self._changed(False)
            pause_s = backoff_s(attempt, max_s=RECONNECT_PAUSE_S_MAX, chance=self._random)
            attempt += 1
            await anyio.sleep(pause_s)

    async def _serve(self, session: BrokerSession, patterns: tuple[Address, ...]) -> None:
        self._connected = True
        self.outbox.clear_urgent()
        log.info("broker_connected")
        await self._changed(True)
        try:
            async with anyio.create_task_group() as tasks:
                # shielded from the group, which cancels in an arbitrary order: a simulation must be the same each time
                writing, subscribing = anyio.CancelScope(shield=True), anyio.CancelScope(shield=True)
                tasks.start_soon(self._write, session, writing)
                tasks.start_soon(self._keep_subscribed, session, patterns, subscribing)
                try:
                    await self._read(session)
                finally:
                    writing.cancel()
                    subscribing.cancel()
        except anyio.get_cancelled_exc_class():
            self._farewell()
            with anyio.move_on_after(FAREWELL_LIMIT_S, shield=True):
                await self._write_urgent(session)
            raise

    def resubscribe(self) -> None:
        """Let the session follow `subscriptions`, which has changed; nobody waits for it."""
        self._outdated.set()

    async def _write_urgent(self, session: BrokerSession) -> None:
        with contextlib.suppress(BrokerLost):
            while outgoing := self.outbox.next_urgent():
                await self._publish(session, outgoing)

    async def _write(self, session: BrokerSession, scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                outgoing = await self.outbox.get()
                began = anyio.current_time()
                await self._publish(session, outgoing)
                if len(outgoing.payload) >= BULK_BYTES_MIN:
                    await self._timed(len(outgoing.payload), int((anyio.current_time() - began) * SECOND_US))

    async def _publish(self, session: BrokerSession, outgoing: OutboxItem) -> None:
        expiry_s = None if outgoing.retain else self.expiry_s
        await session.publish(outgoing.address, bytes(outgoing.payload), retain=outgoing.retain, expiry_s=expiry_s)

    async def _keep_subscribed(
        self, session: BrokerSession, patterns: tuple[Address, ...], scope: anyio.CancelScope
    ) -> None:
        with scope:
            while True:
                await self._outdated.wait()
                self._outdated = anyio.Event()
                wanted = self._subscriptions()
                added = [pattern for pattern in wanted if pattern not in patterns]
                gone = [pattern for pattern in patterns if pattern not in wanted]
                if added:
                    await session.subscribe(*added)
                if gone:
                    await session.unsubscribe(*gone)
                patterns = wanted

    async def _read(self, session: BrokerSession) -> None:
        while True:
            await self._arrived(await session.receive())
