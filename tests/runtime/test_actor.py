"""One actor's life, and what those who talk to it may rely on."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from structlog.testing import capture_logs

from crowd.errors import ActorDied, AskTimeout, BrokerLost, MailboxFull
from crowd.runtime import ActorRef, ChildSpec, Supervisor
from crowd.runtime.actor import STOP_LIMIT_S
from crowd.units import SECOND_US
from tests.runtime.actors import Echo, Fail, Message, Note, Recorder, Work, send_and_wait, supervise
from tests.support.virtual import virtual_time


async def outcome(call: Callable[[], Awaitable[str]], outcomes: list[str]) -> None:
    try:
        outcomes.append(await call())
    except (ActorDied, AskTimeout) as error:
        outcomes.append(f"{type(error).__name__} at {anyio.current_time()}")


def ask(ref: ActorRef[Message], message: Echo, *, timeout_s: float = 60.0) -> Callable[[], Awaitable[str]]:
    return lambda: ref.ask(message, timeout_s=timeout_s)


# --- tell -------------------------------------------------------------------------------------------------------------


@virtual_time
async def test_messages_are_received_one_by_one_in_the_order_in_which_they_were_sent() -> None:
    actor = Recorder([])
    async with supervise(actor) as supervisor:
        for number in range(20):
            await supervisor.ref("a").tell(Note(text=str(number)))
        await supervisor.ref("a").ask(Echo(text=""), timeout_s=1)
    assert [event for _, _, event in actor.trace] == ["started", *map(str, range(20)), "stopped"]


@virtual_time
async def test_tell_waits_while_the_mailbox_is_full() -> None:
    async with supervise(Recorder([]), mailbox_size=1) as supervisor:
        ref = supervisor.ref("a")
        await ref.tell(Work(duration_s=5))
        await anyio.sleep(1)
        await ref.tell(Note(text="fills the mailbox"))
        assert anyio.current_time() == 1.0
        await ref.tell(Note(text="has to wait"))
        assert anyio.current_time() == 5.0


@virtual_time
async def test_tell_nowait_fails_when_the_mailbox_is_full() -> None:
    async with supervise(Recorder([]), mailbox_size=1) as supervisor:
        supervisor.ref("a").tell_nowait(Note(text="fills the mailbox"))
        with pytest.raises(MailboxFull):
            supervisor.ref("a").tell_nowait(Note(text="one too many"))


@virtual_time
async def test_a_message_to_an_actor_that_has_stopped_for_good_fails() -> None:
    async with supervise(Recorder([])) as supervisor:
        ref = supervisor.ref("a")
    for send in (ref.tell(Note(text="")), ref.ask(Echo(text=""), timeout_s=1)):
        with pytest.raises(ActorDied, match="a has stopped for good"):
            await send
    with pytest.raises(ActorDied):
        ref.tell_nowait(Note(text=""))


# --- ask --------------------------------------------------------------------------------------------------------------


@virtual_time
async def test_ask_returns_the_answer() -> None:
    async with supervise(Recorder([])) as supervisor:
        assert await supervisor.ref("a").ask(Echo(text="hello", after_s=2), timeout_s=3) == "hello"
        assert anyio.current_time() == 2.0


@virtual_time
async def test_ask_times_out_while_the_actor_works_and_the_late_answer_goes_nowhere() -> None:
    async with supervise(Recorder([])) as supervisor:
        ref = supervisor.ref("a")
        with pytest.raises(AskTimeout, match=r"a did not answer Echo in 3 s"):
            await ref.ask(Echo(text="late", after_s=4), timeout_s=3)
        assert anyio.current_time() == 3.0
        assert await ref.ask(Echo(text="next"), timeout_s=3) == "next"


@virtual_time
async def test_ask_times_out_while_the_mailbox_is_full() -> None:
    async with supervise(Recorder([]), mailbox_size=1) as supervisor:
        ref = supervisor.ref("a")
        await ref.tell(Work(duration_s=10))
        await anyio.sleep(1)
        await ref.tell(Note(text="fills the mailbox"))
        with pytest.raises(AskTimeout):
            await ref.ask(Echo(text="no room"), timeout_s=2)
        assert anyio.current_time() == 3.0


@virtual_time
async def test_an_ask_object_is_asked_only_once() -> None:
    async with supervise(Recorder([])) as supervisor:
        question = Echo(text="again")
        await supervisor.ref("a").ask(question, timeout_s=1)
        with pytest.raises(AssertionError, match="asked before"):
            await supervisor.ref("a").ask(question, timeout_s=1)


@virtual_time
async def test_asks_that_are_pending_or_queued_when_the_actor_fails_for_good_get_an_error() -> None:
    class Silent(Recorder):
        async def receive(self, message: Message) -> None:
            if not isinstance(message, Echo):
                await super().receive(message)

    outcomes: list[str] = []
    supervisor = supervise(Silent([]))
    ref = supervisor.ref("a")

    async def ask_later() -> None:
        await anyio.sleep(2)
        await outcome(ask(ref, Echo(text="queued")), outcomes)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outcome, ask(ref, Echo(text="taken and never answered")), outcomes)
        tasks.start_soon(ask_later)
        with pytest.raises(BrokerLost):
            await send_and_wait(supervisor, ("a", Work(duration_s=7)), ("a", Fail()), after_s=1)
    assert outcomes == ["ActorDied at 8.0", "ActorDied at 8.0"]


@virtual_time
async def test_an_ask_that_was_taken_fails_with_that_life_and_a_queued_one_is_answered_by_the_next() -> None:
    class FailsOnFirst(Recorder):
        async def receive(self, message: Message) -> None:
            if message == Echo(text="first"):
                raise BrokerLost("gone")
            await super().receive(message)

    outcomes: list[str] = []
    trace: list[tuple[float, str, str]] = []
    async with supervise(FailsOnFirst(trace), restarts_max=1) as supervisor:
        ref = supervisor.ref("a")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outcome, ask(ref, Echo(text="first")), outcomes)
            tasks.start_soon(outcome, ask(ref, Echo(text="second")), outcomes)
    assert outcomes == ["ActorDied at 0.0", "second"]
    assert [event for _, _, event in trace] == ["started", "stopped", "started", "stopped"]


@virtual_time
async def test_an_ask_that_was_passed_on_is_owed_by_the_actor_that_took_it_last() -> None:
    class Forwarder(Recorder):
        async def receive(self, message: Message) -> None:
            await supervisor.ref("b").tell(message)
            await anyio.sleep(1)
            raise BrokerLost("after the other has taken it")

    class Frail(Recorder):
        async def receive(self, message: Message) -> None:
            await anyio.sleep(5)
            if message == Echo(text="too much"):
                raise BrokerLost("while it worked")
            await super().receive(message)

    async with supervise(Forwarder([]), Frail([]), restarts_max=3) as supervisor:
        assert await supervisor.ref("a").ask(Echo(text="passed on"), timeout_s=60) == "passed on"
        with pytest.raises(ActorDied, match="b died before it answered"):
            await supervisor.ref("a").ask(Echo(text="too much"), timeout_s=60)


# --- tick -------------------------------------------------------------------------------------------------------------


class Ticking(Recorder):
    """Ticks every second."""

    due_us = SECOND_US

    def deadline_us(self) -> int | None:
        return self.due_us

    async def tick(self) -> None:
        self.record("tick")
        self.due_us += SECOND_US


def times(actor: Recorder, event: str) -> list[float]:
    return [at for at, _, what in actor.trace if what == event]


@virtual_time
async def test_an_idle_actor_ticks_at_its_very_deadlines() -> None:
    actor = Ticking([])
    async with supervise(actor):
        await anyio.sleep(4.5)
    assert times(actor, "tick") == [1.0, 2.0, 3.0, 4.0]


@virtual_time
async def test_a_mailbox_that_is_never_empty_does_not_starve_ticks() -> None:
    actor = Ticking([])
    async with supervise(actor, mailbox_size=4) as supervisor:
        with anyio.move_on_after(4.125):
            while True:
                await supervisor.ref("a").tell(Work(duration_s=0.25))
    assert times(actor, "tick") == [1.0, 2.0, 3.0, 4.0]
    assert times(actor, "worked") == [0.25 * count for count in range(1, 17)]


@virtual_time
async def test_ticks_that_are_always_due_do_not_starve_messages() -> None:
    class Overdue(Ticking):
        async def tick(self) -> None:
            self.record("tick")
            await anyio.sleep(1)

    actor = Overdue([])
    actor.due_us = 0
    async with supervise(actor) as supervisor:
        for text in ("one", "two", "three"):
            await supervisor.ref("a").tell(Note(text=text))
        await anyio.sleep(4.5)
    assert [times(actor, text) for text in ("one", "two", "three")] == [[1.0], [2.0], [3.0]]


@virtual_time
async def test_a_message_can_bring_the_deadline_forward_or_call_it_off() -> None:
    class Settable(Recorder):
        due_us: int | None = 100 * SECOND_US

        def deadline_us(self) -> int | None:
            return self.due_us

        async def receive(self, message: Message) -> None:
            assert isinstance(message, Work)
            self.due_us = round(message.duration_s * SECOND_US) or None

        async def tick(self) -> None:
            self.record("tick")
            self.due_us = 9 * SECOND_US

    actor = Settable([])
    async with supervise(actor) as supervisor:
        await supervisor.ref("a").tell(Work(duration_s=2.0))
        await anyio.sleep(5)
        await supervisor.ref("a").tell(Work(duration_s=0))
        await anyio.sleep(200)
    assert times(actor, "tick") == [2.0]


@virtual_time
async def test_what_an_actor_absorbs_wakes_it_not_but_never_overtakes_what_it_was_sent_before() -> None:
    class Absorbing(Recorder):
        def absorb(self, message: Message) -> bool:
            if isinstance(message, Note):
                self.record(f"{message.text} absorbed")
            return isinstance(message, Note)

    actor = Absorbing([])
    async with supervise(actor) as supervisor:
        ref = supervisor.ref("a")
        ref.tell_nowait(Note(text="before it waits"))
        await anyio.sleep(1)
        ref.tell_nowait(Note(text="while it waits"))
        await ref.tell(Note(text="again"))
        await ref.tell(Work(duration_s=2))
        ref.tell_nowait(Note(text="behind work that is queued"))
        await anyio.sleep(1)
        ref.tell_nowait(Note(text="while it works"))
        await anyio.sleep(5)
    assert [event for _, _, event in actor.trace] == [
        "started",
        "before it waits",
        "while it waits absorbed",
        "again absorbed",
        "worked",
        "behind work that is queued",
        "while it works",
        "stopped",
    ]


@virtual_time
async def test_a_busy_actor_does_not_hold_up_the_others() -> None:
    class Chatty(Recorder):
        async def receive(self, message: Message) -> None:
            self.record("chat")
            self.ref.tell_nowait(message)

    chatty = Chatty([])
    async with supervise(chatty, Recorder([])) as supervisor:
        await supervisor.ref("a").tell(Note(text="for ever"))
        assert await supervisor.ref("b").ask(Echo(text="through"), timeout_s=1) == "through"
    assert times(chatty, "chat")


# --- spawned tasks and the end ----------------------------------------------------------------------------------------


class Parent(Recorder):
    """Spawns eight tasks that record their end."""

    async def started(self) -> None:
        for number in range(8):
            self.spawn(self.linger, number)

    async def linger(self, number: int) -> None:
        try:
            with anyio.CancelScope():  # of its own, as real work has: the order must not depend on it
                await anyio.sleep_forever()
        finally:
            self.record(f"task {number} ended")


@virtual_time
async def test_spawned_tasks_end_with_their_actor_the_latest_first_and_before_stopped() -> None:
    actor = Parent([])
    async with supervise(actor):
        await anyio.sleep(1)
    assert actor.trace == [*((1.0, "a", f"task {n} ended") for n in reversed(range(8))), (1.0, "a", "stopped")]


@virtual_time
async def test_spawned_tasks_end_when_their_actor_fails() -> None:
    actor = Parent([])
    with pytest.raises(BrokerLost):
        await send_and_wait(supervise(actor), ("a", Fail()), after_s=1)
    assert actor.trace == [*((1.0, "a", f"task {n} ended") for n in reversed(range(8))), (1.0, "a", "stopped")]


@virtual_time
async def test_a_task_that_a_dying_actor_s_task_spawns_ends_too() -> None:
    class Hydra(Recorder):
        async def started(self) -> None:
            self.spawn(self.head)

        async def head(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                self.spawn(anyio.sleep_forever)

    actor = Hydra([])
    async with supervise(actor):
        await anyio.sleep(1)
    assert actor.trace == [(1.0, "a", "stopped")]


@virtual_time
async def test_an_exception_in_a_spawned_task_ends_the_actor_even_while_it_works() -> None:
    class Doomed(Recorder):
        async def started(self) -> None:
            self.spawn(self.fail_later, 3.0)

        async def fail_later(self, after_s: float) -> None:
            await anyio.sleep(after_s)
            raise BrokerLost("in a task")

    actor = Doomed([])
    with pytest.raises(BrokerLost, match="in a task"):
        await send_and_wait(supervise(actor), ("a", Work(duration_s=100)))
    assert actor.trace == [(3.0, "a", "stopped")]


@virtual_time
async def test_stopped_is_called_even_after_started_has_failed() -> None:
    class Stillborn(Recorder):
        async def started(self) -> None:
            raise BrokerLost("at birth")

    actor = Stillborn([])
    with pytest.raises(BrokerLost, match="at birth"):
        await send_and_wait(supervise(actor))
    assert actor.trace == [(0.0, "a", "stopped")]


@virtual_time
async def test_stopped_may_take_its_time_but_not_more_than_the_limit() -> None:
    class Slow(Recorder):
        async def stopped(self) -> None:
            await anyio.sleep(1)
            self.record("said goodbye")
            await anyio.sleep(100)

    actor = Slow([])
    with capture_logs() as logs, anyio.move_on_after(5):
        async with supervise(actor):
            await anyio.sleep_forever()
    assert times(actor, "said goodbye") == [6.0]
    assert anyio.current_time() == 5.0 + STOP_LIMIT_S
    assert [entry["event"] for entry in logs] == ["actor_stop_timed_out"]


@virtual_time
async def test_a_lost_connection_in_stopped_does_not_hide_why_the_actor_ended() -> None:
    class Clumsy(Recorder):
        async def stopped(self) -> None:
            raise BrokerLost("while saying goodbye")

    with capture_logs() as logs, pytest.raises(ZeroDivisionError):
        await send_and_wait(supervise(Clumsy([]), restarts_max=5), ("a", Fail(error=ZeroDivisionError())))
    assert [entry["event"] for entry in logs] == ["actor_stop_failed"]


@virtual_time
async def test_two_actors_can_hold_each_other_s_reference() -> None:
    class Relay(Recorder):
        def __init__(self, other: ActorRef[Message]) -> None:
            super().__init__([])
            self.other = other

        async def receive(self, message: Message) -> None:
            if isinstance(message, Echo) and message.text == "relay":
                message.reply(await self.other.ask(Echo(text="from the other"), timeout_s=1))
            else:
                await super().receive(message)

    supervisor = Supervisor(
        [
            ChildSpec(name="a", factory=lambda: Relay(supervisor.ref("b"))),
            ChildSpec(name="b", factory=lambda: Relay(supervisor.ref("a"))),
        ],
        restarts_max=0,
        window_s=1.0,
        seed=0,
    )
    async with supervisor:
        assert await supervisor.ref("a").ask(Echo(text="relay"), timeout_s=1) == "from the other"
        assert await supervisor.ref("b").ask(Echo(text="relay"), timeout_s=1) == "from the other"
