"""The owner of actors: `Supervisor` starts them, restarts what may succeed the next time, and leaves none behind."""

import enum
import math
import random
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, assert_never

import anyio
import attrs
import structlog

from crowd.errors import ActorDied, Retryable
from crowd.runtime.actor import Actor, ActorRef
from crowd.runtime.backoff import backoff_s
from crowd.runtime.mailbox import Mailbox

RESTART_PAUSE_S_MAX = 30.0

log = structlog.get_logger()


class Strategy(enum.Enum):
    """The children that are restarted when one fails."""

    ONE_FOR_ONE = "one_for_one"
    """Only the child that failed."""
    ONE_FOR_ALL = "one_for_all"
    """All children, whichever failed."""
    REST_FOR_ONE = "rest_for_one"
    """The child that failed and those listed after it."""


@attrs.frozen(kw_only=True)
class ChildSpec:
    """The recipe for one child, used again for each of its lives."""

    name: str
    factory: Callable[[], Actor[Any]]
    """Makes the actor; called when all references exist. An exception counts as the child's failure."""
    mailbox_size: int = attrs.field(default=64, validator=attrs.validators.gt(0))


@attrs.frozen(eq=False)
class _Life:
    """A task that only the supervisor ends: shielded, so that children end in order whatever cancels the whole."""

    scope: anyio.CancelScope = attrs.field(factory=lambda: anyio.CancelScope(shield=True))
    ended: anyio.Event = attrs.field(factory=anyio.Event)

    async def end(self) -> None:
        self.scope.cancel()
        await self.ended.wait()


@attrs.define(eq=False)
class _Child:
    spec: ChildSpec
    mailbox: Mailbox[Any]
    life: _Life | None = None
    actor: Actor[Any] | None = None
    """The latest; `None` before the first."""
    starts_at: float = math.inf
    """The time at which the child's next life is due, in seconds of `anyio.current_time()`; infinite if it is to have
    none."""

    async def halt(self) -> None:
        if self.life is not None:
            await self.life.end()


class Supervisor:
    """Owns actors, in one task group, for as long as its `async with` block lasts.
    1. Every child's reference exists from the constructor on, and its mailbox keeps what comes before it starts.
    2. Entering starts the children in order, without waiting for their `started`.
    3. A child that ends with a `Retryable` is restarted, with those that the strategy names, after a delay that doubles
       with its failures within `window_s` (`backoff_s`, up to `RESTART_PAUSE_S_MAX`, by `seed`). The others
       are stopped at once, in reverse order; all start in order.
    4. More than `restarts_max` failures within `window_s`, or any other exception, end the whole: the block is
       cancelled and the exception itself leaves it (a group only where there are several).
    5. Leaving the block in any way ends the children one by one in reverse order. Then nothing is left running.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        restarts_max: int,
        window_s: float,
        seed: int,
    ) -> None:
        assert len({spec.name for spec in specs}) == len(specs) > 0, "each child needs a name of its own"
        self._children = [_Child(spec, Mailbox(spec.name, spec.mailbox_size)) for spec in specs]
        self._strategy = strategy
        self._restarts_max = restarts_max
        self._window_s = window_s
        self._random = random.Random(seed)
        self._recent: list[tuple[float, str]] = []  # who failed when, within the window
        # A child fails once per life and has no new life before that failure is taken out: this is never full.
        self._failures: Mailbox[tuple[_Child, Retryable]] = Mailbox("supervisor", len(specs))
        self._watch_life = _Life()
        self._left = anyio.Event()

    def ref(self, name: str) -> ActorRef[Any]:
        """The reference to the child of that name; raises `KeyError` if there is none."""
        return ActorRef({child.spec.name: child.mailbox for child in self._children}[name])

    def kept(self) -> Mapping[str, int]:
        """How much waits in the children's mailboxes, and what they keep themselves (`Actor.kept`)."""
        sizes = {f"messages for the {child.spec.name}": child.mailbox.queued for child in self._children}
        for child in self._children:
            sizes.update({} if child.actor is None else child.actor.kept())
        return sizes

    async def wait(self) -> None:
        """Wait for the supervisor's end. In the block it never returns: when a child fails for good, the block is
        cancelled, and the failure leaves it. Elsewhere it returns when the block has been left."""
        await self._left.wait()

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        for child in self._children:
            self._start(child)
        self._tasks.start_soon(self._watch, name="supervisor")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        with anyio.CancelScope(shield=True):
            await self._watch_life.end()
            for child in reversed(self._children):
                await child.halt()
                child.mailbox.close()
        self._left.set()
        if isinstance(error, ActorDied):  # the echo of a child's failure, if there is one, which then goes first
            kind, error, traceback = None, None, None
        try:
            return await self._tasks.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            failure = _root_cause(group)
        context = failure.__context__
        try:
            raise failure
        finally:
            failure.__context__ = context  # raising it here must not change where it came from

    def _start(self, child: _Child) -> None:
        child.starts_at = math.inf
        child.life = _Life()
        self._tasks.start_soon(self._live, child, child.life, name=child.spec.name)

    async def _live(self, child: _Child, life: _Life) -> None:
        failure: BaseException | None = None
        try:
            with life.scope:
                child.actor = child.spec.factory()
                await child.actor.live(child.mailbox)
        except Exception as error:
            failure = _root_cause(error)
        finally:
            life.ended.set()
        if isinstance(failure, Retryable):
            self._failures.put_nowait((child, failure))
        elif failure is not None:
            child.mailbox.close()
            raise failure

    async def _watch(self) -> None:
        """Handle failures as they come, and starts as they are due."""
        try:
            with self._watch_life.scope:
                while True:
                    failure: tuple[_Child, Retryable] | None = None
                    with anyio.CancelScope(deadline=min(child.starts_at for child in self._children)):
                        failure = await self._failures.get()
                    if failure is not None:
                        await self._schedule_restart(*failure)
                    for child in self._children:
                        if child.starts_at <= anyio.current_time():
                            self._start(child)
        finally:
            self._watch_life.ended.set()

    async def _schedule_restart(self, failed: _Child, error: Retryable) -> None:
        name, now = failed.spec.name, anyio.current_time()
        self._recent = [(at, who) for at, who in self._recent if at > now - self._window_s] + [(now, name)]
        if len(self._recent) > self._restarts_max:
            error.add_note(f"{name} failed; {self._restarts_max} restarts in {self._window_s} s did not help")
            failed.mailbox.close()
            raise error
        before = sum(who == name for _, who in self._recent) - 1
        delay_s = backoff_s(before, max_s=RESTART_PAUSE_S_MAX, chance=self._random)
        log.warning("actor_restarted", name=name, error=repr(error), delay_s=delay_s)
        affected = self._affected_by(failed)
        for child in reversed(affected):
            await child.halt()
        for child in affected:
            child.starts_at = anyio.current_time() + delay_s

    def _affected_by(self, failed: _Child) -> list[_Child]:
        match self._strategy:
            case Strategy.ONE_FOR_ONE:
                return [failed]
            case Strategy.ONE_FOR_ALL:
                return self._children
            case Strategy.REST_FOR_ONE:
                return self._children[self._children.index(failed) :]
            case _:
                assert_never(self._strategy)


def _root_cause(error: BaseException) -> BaseException:
    """The error inside a group, if that is one error or all of it may be retried (then the first); else `error`
    itself."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [_root_cause(inner) for inner in error.exceptions]
    if len(causes) == 1 or all(isinstance(cause, Retryable) for cause in causes):
        return causes[0]
    return error
