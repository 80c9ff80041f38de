"""Small actors that write down what happens to them."""

import functools
from typing import assert_never

import anyio
import attrs

from crowd.errors import BrokerLost
from crowd.runtime import Actor, Ask, ChildSpec, Supervisor


@attrs.frozen(kw_only=True)
class Note:
    text: str


@attrs.frozen(kw_only=True)
class Work:
    """Takes this long."""

    duration_s: float


@attrs.frozen(kw_only=True)
class Fail:
    error: Exception = attrs.field(factory=lambda: BrokerLost("gone"))


@attrs.frozen(kw_only=True)
class Echo(Ask[str]):
    text: str
    after_s: float = 0.0


Message = Note | Work | Fail | Echo


class Recorder(Actor[Message]):
    """Writes `(time, its name, event)` into `trace`, which outlives it."""

    def __init__(self, trace: list[tuple[float, str, str]]) -> None:
        self.trace = trace

    def record(self, event: str) -> None:
        self.trace.append((anyio.current_time(), self.ref.name, event))

    async def started(self) -> None:
        self.record("started")

    async def receive(self, message: Message) -> None:
        match message:
            case Note():
                self.record(message.text)
            case Work():
                await anyio.sleep(message.duration_s)
                self.record("worked")
            case Fail():
                raise message.error
            case Echo():
                await anyio.sleep(message.after_s)
                message.reply(message.text)
            case _:
                assert_never(message)

    async def stopped(self) -> None:
        self.record("stopped")


async def send_and_wait(supervisor: Supervisor, *messages: tuple[str, Message], after_s: float = 0.0) -> None:
    """Run `supervisor`, tell its children these messages `after_s` later, and wait for what comes of it."""
    async with supervisor:
        await anyio.sleep(after_s)
        for name, message in messages:
            supervisor.ref(name).tell_nowait(message)
        await supervisor.wait()


def supervise(*actors: Actor[Message], mailbox_size: int = 64, restarts_max: int = 0) -> Supervisor:
    """Children `a`, `b`, … that run the given objects; restarted with the same object."""
    specs = [
        ChildSpec(name=name, factory=functools.partial(_same, actor), mailbox_size=mailbox_size)
        for name, actor in zip("abcdefgh", actors, strict=False)
    ]
    return Supervisor(specs, restarts_max=restarts_max, window_s=60.0, seed=0)


def _same(actor: Actor[Message]) -> Actor[Message]:
    return actor
