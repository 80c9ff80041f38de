"""The bounded queue in front of an actor: `Mailbox`, and `Ask`, a message that wants an answer."""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio
import attrs

from crowd.errors import ActorDied, MailboxFull

M = TypeVar("M")
R = TypeVar("R")


class Answer(Generic[R]):
    """The pending answer to an `Ask`. Settled once, by a value or by the death of the actor that owes it; later ones
    are ignored."""

    def __init__(self) -> None:
        self.sent = False
        self.settled = anyio.Event()
        self._outcome: R | ActorDied
        self._debts: dict[Answer[R], None] = {}

    def value(self) -> R:
        """The value of a settled answer; raises `ActorDied` if none will come."""
        if isinstance(self._outcome, ActorDied):
            raise self._outcome
        return self._outcome

    def settle(self, outcome: R | ActorDied) -> None:
        if not self.settled.is_set():
            self._outcome = outcome
            self.settled.set()
            self.owe({})

    def owe(self, debts: "dict[Answer[R], None]") -> None:
        """Let the keeper of `debts`, and nobody else, owe this answer from now on."""
        self._debts.pop(self, None)
        self._debts = debts
        if not self.settled.is_set():
            debts[self] = None


@attrs.frozen(kw_only=True)
class Ask(Generic[R]):
    """Base of the messages that want an answer of type `R`: `class Total(Ask[int])`, itself `@attrs.frozen`.

    Sent by `ActorRef.ask`, each object once. The actor that took it last owes the answer, now or later: if its life
    ends first, the asker gets `ActorDied`.
    """

    answer: Answer[R] = attrs.field(init=False, factory=Answer, eq=False, repr=False)

    def reply(self, value: R) -> None:
        """Settle the answer with `value`. Only the first reply counts; one to an asker that no longer waits is
        dropped."""
        self.answer.settle(value)


class Mailbox(Generic[M]):
    """A queue of at most `size` messages for one reader, first in, first out; waiting puts keep their turn.

    Outlives its reader: after `end_life` the next one goes on where the last one stopped; `close` is for good.
    """

    def __init__(self, owner: str, size: int) -> None:
        self.owner = owner
        self._size = size
        self._messages: deque[M] = deque()
        self._arrival = anyio.Event()
        self._waiting: dict[anyio.Event, M] = {}
        self._debts: dict[Answer[object], None] = {}
        self._closed = False
        self._reader_waits = False
        self.absorb: Callable[[M], bool] | None = None
        """The present reader's `absorb`: asked while it waits, about its next message; returns whether it has taken
        that in, so that it need not be woken."""

    async def put(self, message: M) -> None:
        """Queue `message`; wait for room. Raises `ActorDied` if the mailbox is closed, now or while waiting. A message
        whose `put` is cancelled may have been taken."""
        if self._absorbs(message):
            return
        if self._admits():
            self._accept(message)
            return
        turn = anyio.Event()
        self._waiting[turn] = message
        try:
            await turn.wait()
        finally:
            refused = self._waiting.pop(turn, None) is not None
        if refused:
            raise self._death()

    def put_nowait(self, message: M) -> None:
        """Queue `message` at once. Raises `MailboxFull` if there is no room, `ActorDied` if the mailbox is closed."""
        if self._absorbs(message):
            return
        if not self._admits():
            raise MailboxFull(f"the mailbox of {self.owner} holds {self._size} messages: wait, or send less")
        self._accept(message)

    @property
    def queued(self) -> int:
        """How many messages wait to be read."""
        return len(self._messages)

    @property
    def is_empty(self) -> bool:
        """Whether `get` would wait."""
        return not self._messages

    async def get(self) -> M:
        """The oldest message; waits for one. Cancelled, it takes none."""
        while (message := self.get_nowait()) is None:
            self._arrival = anyio.Event()
            self._reader_waits = True
            try:
                await self._arrival.wait()
            finally:
                self._reader_waits = False
        return message

    def get_nowait(self) -> M | None:
        """The oldest message, or `None` if there is none."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        if self._waiting:
            turn = next(iter(self._waiting))
            self._accept(self._waiting.pop(turn))
            turn.set()
        if isinstance(message, Ask):
            message.answer.owe(self._debts)
        return message

    def end_life(self) -> None:
        """End the reader's life: asks that it took and did not answer fail; queued messages stay."""
        self.absorb = None
        for answer in tuple(self._debts):
            answer.settle(ActorDied(f"{self.owner} died before it answered: ask again"))

    def close(self) -> None:
        """Refuse all readers from now on: all asks and all waiting puts fail with `ActorDied`."""
        self._closed = True
        self.end_life()
        for message in self._messages:
            if isinstance(message, Ask):
                message.answer.settle(self._death())
        self._messages.clear()
        for turn in self._waiting:
            turn.set()

    def _absorbs(self, message: M) -> bool:
        return self.absorb is not None and self._reader_waits and not self._messages and self.absorb(message)

    def _admits(self) -> bool:
        if self._closed:
            raise self._death()
        return len(self._messages) < self._size

    def _accept(self, message: M) -> None:
        self._messages.append(message)
        self._arrival.set()

    def _death(self) -> ActorDied:
        return ActorDied(f"{self.owner} has stopped for good: send to it no more")
