"""One actor: `Actor`, private state behind a mailbox, and `ActorRef`, the only way to talk to it."""

import abc
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, NoReturn, TypeVar, TypeVarTuple, cast

import anyio
import anyio.lowlevel
import attrs
import structlog

from crowd.errors import AskTimeout, Retryable
from crowd.runtime.mailbox import Ask, M, Mailbox, R
from crowd.units import SECOND_US

M_contra = TypeVar("M_contra", contravariant=True)
Args = TypeVarTuple("Args")

STOP_LIMIT_S = 2.0
"""Seconds that `Actor.stopped` may take before it is cancelled."""

log = structlog.get_logger()


@attrs.frozen
class ActorRef(Generic[M_contra]):
    """The way others talk to an actor. Stays valid when the actor is restarted; each sender's messages keep their
    order."""

    _mailbox: Mailbox[M_contra] = attrs.field(repr=lambda mailbox: mailbox.owner)

    @property
    def name(self) -> str:
        return self._mailbox.owner

    async def tell(self, message: M_contra) -> None:
        """Queue `message`; wait while the mailbox is full (an actor must not do that to itself). Raises `ActorDied` if
        the actor has stopped for good."""
        await self._mailbox.put(message)

    def tell_nowait(self, message: M_contra) -> None:
        """Queue `message` at once. Raises `MailboxFull` if there is no room, `ActorDied` if the actor has stopped for
        good."""
        self._mailbox.put_nowait(message)

    async def ask(self, message: Ask[R], *, timeout_s: float) -> R:
        """The actor's answer to `message`, which must be one of its messages. Waits through a restart.

        Raises `AskTimeout` after `timeout_s` seconds, waiting for room in the mailbox included, and `ActorDied` if the
        life that took the message ends before the answer, or the actor has stopped for good.
        """
        answer = message.answer
        assert not answer.sent, f"{message} has been asked before: make a new one for each ask"
        answer.sent = True
        try:
            with anyio.move_on_after(timeout_s):
                # The type system cannot say "an Ask[R] that is also one of the actor's messages".
                await self._mailbox.put(cast(M_contra, message))
                await answer.settled.wait()
        finally:
            answer.owe({})
        if answer.settled.is_set():
            return answer.value()
        raise AskTimeout(f"{self.name} did not answer {type(message).__name__} in {timeout_s} s")


class Actor(abc.ABC, Generic[M]):
    """Private state behind a mailbox of `M`, a union of message classes. One life of it is:

    1. `started`;
    2. again and again: `tick`, if the deadline has passed, and `receive`, if there is a message; so neither holds up
       the other, and no two of these methods ever run at once. What `absorb` takes in while it waits does not wake it;
    3. the end, by an exception in one of them or in a spawned task, or by the supervisor: spawned tasks are cancelled,
       the latest first, and unanswered asks fail;
    4. `stopped`.

    A restart is a new object, on the same mailbox and with the same references to it.
    """

    ref: ActorRef[M]
    """The actor's own reference; set before `started`."""

    async def started(self) -> None:
        """Begin this life; called first. An exception ends the life."""

    @abc.abstractmethod
    async def receive(self, message: M) -> None:
        """Handle one message; called for one after the other. An exception ends this life."""

    def absorb(self, message: M) -> bool:
        """Whether `message` has been taken in at once and needs no `receive`. Meant for messages so frequent that
        waking the actor for each would cost more than the message itself. Called by the sender, while this actor waits
        and nothing is queued before it; must not raise, and must not move the deadline forward."""
        return False

    def kept(self) -> Mapping[str, int]:
        """How many it keeps of what grows by what comes to it, by a name for each: for whoever watches that everything
        has an end."""
        return {}

    async def stopped(self) -> None:
        """Clean up; called at every end, also that of a life that failed in `started`. Takes at most `STOP_LIMIT_S`
        seconds, in which cancellation from outside has to wait. A `Retryable` raised here is logged and goes no
        further."""

    def deadline_us(self) -> int | None:
        """The time at which `tick` is due, in microseconds of `now_us`; `None`: never. Asked for again after every
        message and tick."""
        return None

    async def tick(self) -> None:
        """Do what is due once `reached_us` has reached the deadline. Must move it on, or it is called again at once."""

    def spawn(self, async_fn: Callable[[*Args], Awaitable[Any]], *args: *Args) -> None:
        """Run `async_fn(*args)` next to this actor, from `started` on and no longer than its life. An exception in it
        ends the life."""
        # Shielded from its group, which cancels in an arbitrary order: a simulation must be the same each time.
        scope = anyio.CancelScope(shield=True)
        self._scopes[scope] = None
        if self._ending:
            scope.cancel()
        name = f"{self.ref.name}: {getattr(async_fn, '__qualname__', 'task')}"
        self._tasks.start_soon(self._run_spawned, scope, lambda: async_fn(*args), name=name)

    async def listen_until(self, event: anyio.Event, take: Callable[[M], None]) -> None:
        """Wait for `event` within `receive` or `tick`, and hand every message that comes meanwhile to `take`, which
        must not wait: so nobody is held up by a mailbox that is full."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._take_all, take)
            await event.wait()
            tasks.cancel_scope.cancel()

    async def _take_all(self, take: Callable[[M], None]) -> None:
        while True:
            take(await self._mailbox.get())

    async def live(self, mailbox: Mailbox[M]) -> None:
        """Run one life; called by the supervisor. Raises what ended it, in an exception group."""
        self.ref = ActorRef(mailbox)
        self._mailbox = mailbox
        self._scopes: dict[anyio.CancelScope, None] = {}
        self._ending = False
        try:
            async with anyio.create_task_group() as self._tasks:
                try:
                    await self.started()
                    mailbox.absorb = self.absorb
                    await self._serve(mailbox)
                finally:
                    self._ending = True
                    for scope in reversed(self._scopes):
                        scope.cancel()
        finally:
            mailbox.end_life()
            await self._stop()

    async def _serve(self, mailbox: Mailbox[M]) -> NoReturn:
        while True:
            if not mailbox.is_empty:
                await anyio.lowlevel.checkpoint()  # a mailbox that is never empty must not hold up other actors
            due = self._due()
            if due <= anyio.current_time():
                await self.tick()
                due = self._due()
            message = mailbox.get_nowait()
            if message is None:
                with anyio.CancelScope(deadline=due):
                    message = await mailbox.get()
            if message is not None:
                await self.receive(message)

    def _due(self) -> float:
        deadline_us = self.deadline_us()
        return math.inf if deadline_us is None else deadline_us / SECOND_US

    async def _run_spawned(self, scope: anyio.CancelScope, work: Callable[[], Awaitable[Any]]) -> None:
        with scope:
            await work()
        del self._scopes[scope]

    async def _stop(self) -> None:
        with anyio.move_on_after(STOP_LIMIT_S, shield=True) as limit:
            try:
                await self.stopped()
            except Retryable as error:
                log.warning("actor_stop_failed", name=self.ref.name, error=repr(error))
        if limit.cancelled_caught:
            log.warning("actor_stop_timed_out", name=self.ref.name, limit_s=STOP_LIMIT_S)
