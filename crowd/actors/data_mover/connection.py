"""The one connection of a device to its broker: opened again whenever it is lost, written to in order of urgency."""

import contextlib
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable

import anyio
import attrs
import structlog

from crowd.errors import BrokerLost, BrokerRefused, PublishDenied, innermost
from crowd.ports import MESSAGE_BYTES_MAX, Broker, BrokerSession, Delivery, Will
from crowd.runtime.backoff import backoff_s
from crowd.runtime.seldom import Seldom
from crowd.units import SECOND_US, Address, Channel

RECONNECT_PAUSE_S_MAX = 5.0
"""A gateway that comes back finds its devices within seconds of each other."""
STEADY_S = 10.0
"""Seconds that a session must last for the pauses between attempts to begin anew at the shortest one."""
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
        message_bytes_min: int,
        seed: int,
    ) -> None:
        """Make a connection that is not open yet. `farewell` puts the last messages into the outbox before the
        connection is closed on purpose; a broker must take messages of `message_bytes_min`."""
        self._broker = broker
        self._will = will
        self._subscriptions = subscriptions
        self._changed = changed
        self._arrived = arrived
        self._timed = timed
        self._farewell = farewell
        self._message_bytes_min = message_bytes_min
        self._random = random.Random(seed)
        self._let_in = broker.traffic.up_bytes > 0
        """Whether the broker has ever let this device in, in an earlier life of its actors too."""
        self._connected = False
        self._since_s = 0.0
        """Since when it is as it is, connected or not."""
        self._allowed: set[Channel] = set()
        """Channels on which the broker has taken something."""
        self._told_lost, self._told_away, self._told_denied, self._told_too_long = (Seldom() for _ in range(4))
        self._outdated = anyio.Event()
        """Set when the session's subscriptions differ from those that it should have."""
        self.outbox = Outbox()
        self.expiry_s = EXPIRY_S
        self.message_bytes_max = MESSAGE_BYTES_MAX
        """Bytes of the longest message that the broker took when it was last there."""

    async def run(self) -> None:
        """Connect, and again whenever the connection goes, after a growing pause; wait for a broker that is away.

        Raises `BrokerRefused` for what waiting cannot mend: a broker that refuses this device and has never let it in,
        one that never let it publish what it must, or one that takes no message long enough. A broker that refuses a
        device which it has let in before is waited for like one that is away.
        """
        attempt = 0
        self._since_s = anyio.current_time()
        while True:
            error: BaseException | None = None
            try:
                async with self._broker.session(will=self._will) as session:
                    patterns = self._subscriptions()
                    await self._open(session, patterns)
                    await self._serve(session, patterns)
            except* (BrokerLost, BrokerRefused) as group:
                error = innermost(group)
            if isinstance(error, BrokerRefused) and (self._connected or not self._let_in):
                raise error
            elapsed_s = anyio.current_time() - self._since_s
            if self._connected and elapsed_s >= STEADY_S:
                attempt = 0
            await self._note_failure(error, elapsed_s)
            pause_s = backoff_s(attempt, max_s=RECONNECT_PAUSE_S_MAX, chance=self._random)
            attempt += 1
            await anyio.sleep(pause_s)

    async def _open(self, session: BrokerSession, patterns: tuple[Address, ...]) -> None:
        if session.message_bytes_max < self._message_bytes_min:
            raise BrokerRefused(
                f"the broker takes messages of at most {max(0, session.message_bytes_max):,} bytes, and a network of "
                f"this size needs {self._message_bytes_min:,}: raise max_packet_size in the broker's configuration"
            )
        await session.subscribe(*patterns)
        self._let_in = True
        self.message_bytes_max = session.message_bytes_max

    async def _note_failure(self, error: BaseException | None, elapsed_s: float) -> None:
        """Tell that the connection has gone after so many seconds, or was not there for so long."""
        if not self._connected:
            if self._told_away.is_due():
                log.warning("waiting_for_broker", waited_s=round(elapsed_s), error=str(error))
            return
        self._connected, self._since_s = False, anyio.current_time()
        if self._told_lost.is_due():
            log.warning("broker_lost", error=str(error))
        await self._changed(False)

    async def _serve(self, session: BrokerSession, patterns: tuple[Address, ...]) -> None:
        self._connected, self._since_s = True, anyio.current_time()
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
        with contextlib.suppress(BrokerLost, BrokerRefused):
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
        address, size_bytes = outgoing.address, len(outgoing.payload)
        if size_bytes > session.message_bytes_max:
            self._leave_out(address.channel, size_bytes, session.message_bytes_max)
            return
        expiry_s = None if outgoing.retain else self.expiry_s
        try:
            await session.publish(address, bytes(outgoing.payload), retain=outgoing.retain, expiry_s=expiry_s)
        except PublishDenied as error:
            if address.channel not in self._allowed:
                raise
            if self._told_denied.is_due():
                log.warning("publishing_denied", error=str(error))
        else:
            self._allowed.add(address.channel)

    def _leave_out(self, channel: Channel, size_bytes: int, limit_bytes: int) -> None:
        """Drop a chunk that was cut when the broker still took longer ones; raises `BrokerRefused` for all else."""
        text = f"a message of {size_bytes:,} bytes is too long for the broker, which takes {limit_bytes:,} at most"
        if channel is not Channel.BLOB:
            raise BrokerRefused(f"{text}: raise max_packet_size in the broker's configuration")
        if self._told_too_long.is_due():
            log.warning("chunks_left_out", reason=text)

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
