"""Who is restarted, when, how often; and that every way out is orderly and honest."""

import asyncio
from collections.abc import Callable

import anyio
import pytest
from structlog.testing import capture_logs

from crowd.errors import ActorDied, BadConfig, BrokerLost
from crowd.runtime import Actor, ChildSpec, Strategy, Supervisor
from crowd.runtime.backoff import BACKOFF_FIRST_S
from crowd.runtime.supervisor import RESTART_PAUSE_S_MAX
from tests.runtime.actors import Echo, Fail, Message, Note, Recorder, Work, send_and_wait
from tests.support.virtual import run_virtually, virtual_time

Trace = list[tuple[float, str, str]]


def three(
    trace: Trace,
    *,
    strategy: Strategy = Strategy.ONE_FOR_ONE,
    restarts_max: int = 10,
    window_s: float = 1000.0,
    seed: int = 0,
    make: Callable[[Trace], Actor[Message]] = Recorder,
) -> Supervisor:
    """Children `a`, `b` and `c`."""
    children = [ChildSpec(name=name, factory=lambda: make(trace)) for name in "abc"]
    return Supervisor(children, strategy=strategy, restarts_max=restarts_max, window_s=window_s, seed=seed)


def events(trace: Trace) -> list[str]:
    return [f"{name} {event}" for _, name, event in trace]


# --- strategies -------------------------------------------------------------------------------------------------------


async def trace_of_a_failure_of_b(strategy: Strategy) -> list[str]:
    """What happens between the start of all three children and the end."""
    trace: Trace = []
    async with three(trace, strategy=strategy) as supervisor:
        await anyio.sleep(1)
        trace.clear()
        await supervisor.ref("b").tell(Fail())
        await anyio.sleep(10)
        happened = events(trace)
    return happened


@virtual_time
async def test_one_for_one_restarts_the_child_that_failed() -> None:
    assert await trace_of_a_failure_of_b(Strategy.ONE_FOR_ONE) == ["b stopped", "b started"]


@virtual_time
async def test_one_for_all_stops_the_others_in_reverse_and_restarts_all_in_order() -> None:
    assert await trace_of_a_failure_of_b(Strategy.ONE_FOR_ALL) == [
        *("b stopped", "c stopped", "a stopped"),
        *("a started", "b started", "c started"),
    ]


@virtual_time
async def test_rest_for_one_restarts_the_child_that_failed_and_those_after_it() -> None:
    assert await trace_of_a_failure_of_b(Strategy.REST_FOR_ONE) == [
        *("b stopped", "c stopped"),
        *("b started", "c started"),
    ]


@virtual_time
async def test_children_that_fail_together_are_restarted_together() -> None:
    trace: Trace = []
    async with three(trace, strategy=Strategy.ONE_FOR_ALL) as supervisor:
        await anyio.sleep(1)
        trace.clear()
        for name in "abc":
            supervisor.ref(name).tell_nowait(Fail())
        await anyio.sleep(20)
        assert [event for event in events(trace) if "started" in event] == ["a started", "b started", "c started"]


# --- backoff ----------------------------------------------------------------------------------------------------------


async def delays_s_of_eight_failures(seed: int) -> list[float]:
    """As logged, after checking that they are the delays that really passed."""
    trace: Trace = []
    with capture_logs() as logs:
        async with three(trace, seed=seed) as supervisor:
            for _ in range(8):
                await supervisor.ref("a").tell(Fail())
                await anyio.sleep(RESTART_PAUSE_S_MAX)
    logged = [entry["delay_s"] for entry in logs if entry["event"] == "actor_restarted"]
    ends = [at for at, name, event in trace if (name, event) == ("a", "stopped")]
    starts = [at for at, name, event in trace if (name, event) == ("a", "started")]
    passed = [start - end for start, end in zip(starts[1:], ends[:-1], strict=True)]
    assert passed == pytest.approx(logged)
    return logged


@virtual_time
async def test_delays_double_within_their_jitter_up_to_the_longest() -> None:
    for count, delay_s in enumerate(await delays_s_of_eight_failures(seed=7)):
        longest_s = min(BACKOFF_FIRST_S * 2**count, RESTART_PAUSE_S_MAX)
        assert longest_s / 2 <= delay_s <= longest_s


def test_delays_depend_on_the_seed_alone() -> None:
    delays_s = run_virtually(delays_s_of_eight_failures, 7)
    assert delays_s == run_virtually(delays_s_of_eight_failures, 7)
    assert delays_s != run_virtually(delays_s_of_eight_failures, 8)


@virtual_time
async def test_a_restart_is_logged_with_name_error_and_delay() -> None:
    with capture_logs() as logs:
        async with three([]) as supervisor:
            await supervisor.ref("b").tell(Fail())
            await anyio.sleep(1)
    (entry,) = logs
    assert entry.pop("delay_s") > 0
    assert entry == {"event": "actor_restarted", "name": "b", "error": "BrokerLost('gone')", "log_level": "warning"}


@virtual_time
async def test_an_ask_to_a_child_that_is_down_waits_for_its_restart() -> None:
    async with three([]) as supervisor:
        await supervisor.ref("a").tell(Fail())
        await anyio.sleep(0.125)  # the delay is at least twice that
        assert await supervisor.ref("a").ask(Echo(text="back again"), timeout_s=5) == "back again"
        assert BACKOFF_FIRST_S / 2 <= anyio.current_time() <= BACKOFF_FIRST_S


@virtual_time
async def test_a_factory_that_fails_is_tried_again() -> None:
    attempts: list[float] = []

    def make(trace: Trace) -> Recorder:
        attempts.append(anyio.current_time())
        if len(attempts) == 1:
            raise BrokerLost("not yet")
        return Recorder(trace)

    spec = ChildSpec(name="a", factory=lambda: make([]))
    async with Supervisor([spec], restarts_max=1, window_s=60, seed=0) as supervisor:
        assert await supervisor.ref("a").ask(Echo(text="there"), timeout_s=5) == "there"
    assert len(attempts) == 2


# --- escalation -------------------------------------------------------------------------------------------------------


@virtual_time
async def test_more_failures_than_allowed_in_the_window_escalate_the_last_error() -> None:
    errors = [BrokerLost(f"failure {count}") for count in range(4)]

    async def fail_again_and_again() -> None:
        async with three([], restarts_max=3) as supervisor:
            for count, error in enumerate(errors):
                await supervisor.ref("abc"[count % 3]).tell(Fail(error=error))
                await anyio.sleep(10)

    with pytest.raises(BrokerLost) as caught:
        await fail_again_and_again()
    assert caught.value is errors[3]
    assert anyio.current_time() == 30.0


@virtual_time
async def test_failures_that_lie_outside_of_the_window_are_forgotten() -> None:
    async with three([], restarts_max=1, window_s=60) as supervisor:
        for _ in range(5):
            await supervisor.ref("a").tell(Fail())
            await anyio.sleep(61)
        assert await supervisor.ref("a").ask(Echo(text="alive"), timeout_s=1) == "alive"


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), AssertionError("a bug"), BadConfig("rejected")])
@virtual_time
async def test_what_cannot_be_retried_escalates_at_once_and_unchanged(error: Exception) -> None:
    cause, context = OSError("the cause"), KeyError("the context")
    error.__cause__, error.__context__ = cause, context
    with capture_logs() as logs, pytest.raises(type(error)) as caught:
        await send_and_wait(three([]), ("b", Fail(error=error)), after_s=1)
    assert caught.value is error
    assert (error.__cause__, error.__context__) == (cause, context)
    assert anyio.current_time() == 1.0
    assert logs == []


@virtual_time
async def test_a_bug_escalates_while_another_child_waits_for_its_restart() -> None:
    bug = Fail(error=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await send_and_wait(three([]), ("a", Fail()), ("b", Work(duration_s=0.125)), ("b", bug))
    assert anyio.current_time() == 0.125


@virtual_time
async def test_a_bug_beside_an_error_that_may_be_retried_is_not_retried() -> None:
    class TwiceUnlucky(Recorder):
        async def started(self) -> None:
            self.spawn(self.fail_at_the_end)

        async def fail_at_the_end(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        await send_and_wait(three([], make=TwiceUnlucky), ("c", Fail()), after_s=1)
    assert caught.group_contains(ZeroDivisionError)
    assert anyio.current_time() == 1.0


@virtual_time
async def test_a_block_that_asks_a_failed_child_gets_its_echo_at_once_and_the_bug_leaves_it() -> None:
    class Buggy(Recorder):
        async def receive(self, message: Message) -> None:
            raise ZeroDivisionError

    async def ask_in_the_block() -> None:
        async with three([], make=Buggy) as supervisor:
            with anyio.CancelScope(shield=True):  # so that the block ends with the echo
                with pytest.raises(ActorDied, match="a died before it answered"):
                    await supervisor.ref("a").ask(Echo(text="fails"), timeout_s=5)
                await supervisor.ref("a").ask(Echo(text="too late"), timeout_s=5)

    with pytest.raises(ZeroDivisionError):
        await ask_in_the_block()
    assert anyio.current_time() == 0.0


@virtual_time
async def test_an_exception_of_the_block_itself_leaves_it_unchanged() -> None:
    error = KeyError("of the block")

    async def raise_in_the_block() -> None:
        async with three([]):
            await anyio.sleep(1)
            raise error

    with pytest.raises(KeyError) as caught:
        await raise_in_the_block()
    assert caught.value is error


# --- the end ----------------------------------------------------------------------------------------------------------


class SlowToStop(Recorder):
    async def stopped(self) -> None:
        await anyio.sleep(1)
        self.record("stopped")


IN_REVERSE = [(6.0, "c", "stopped"), (7.0, "b", "stopped"), (8.0, "a", "stopped")]


@virtual_time
async def test_leaving_stops_the_children_one_by_one_in_reverse_order() -> None:
    trace: Trace = []
    async with three(trace, make=SlowToStop):
        await anyio.sleep(5)
    assert trace[3:] == IN_REVERSE


@virtual_time
async def test_cancellation_passes_through_and_stops_the_children_in_reverse_order_too() -> None:
    trace: Trace = []
    with anyio.move_on_after(5) as limit:
        async with three(trace, make=SlowToStop):
            await anyio.sleep_forever()
    assert limit.cancelled_caught
    assert trace[3:] == IN_REVERSE


@virtual_time
async def test_a_failure_for_good_stops_the_other_children_in_reverse_order() -> None:
    trace: Trace = []
    with pytest.raises(ZeroDivisionError):
        await send_and_wait(three(trace, make=SlowToStop), ("b", Fail(error=ZeroDivisionError())), after_s=4)
    assert trace[3:] == [(5.0, "b", "stopped"), (6.0, "c", "stopped"), (7.0, "a", "stopped")]


@virtual_time
async def test_leaving_while_a_child_waits_for_its_restart_does_not_start_it_again() -> None:
    trace: Trace = []
    async with three(trace, strategy=Strategy.REST_FOR_ONE) as supervisor:
        await anyio.sleep(1)
        trace.clear()
        supervisor.ref("b").tell_nowait(Fail())
        await anyio.sleep(0.125)
    await anyio.sleep(100)
    assert events(trace) == ["b stopped", "c stopped", "a stopped"]


@virtual_time
async def test_leaving_at_once_is_no_different() -> None:
    trace: Trace = []
    async with three(trace):
        pass
    assert events(trace)[-3:] == ["c stopped", "b stopped", "a stopped"]


@virtual_time
async def test_nothing_is_left_running_after_any_way_out() -> None:
    class Parent(Recorder):
        async def started(self) -> None:
            self.spawn(anyio.sleep_forever)

    before = asyncio.all_tasks()
    async with three([], make=Parent):
        await anyio.sleep(1)
        assert len(asyncio.all_tasks()) == len(before) + 3 + 3 + 1  # actors, their tasks, the supervisor's own
    assert asyncio.all_tasks() == before
    with anyio.move_on_after(1):
        async with three([], make=Parent):
            await anyio.sleep_forever()
    assert asyncio.all_tasks() == before
    for error in (ZeroDivisionError(), BrokerLost("once too often")):
        with pytest.raises(type(error)):
            await send_and_wait(three([], make=Parent, restarts_max=0), ("a", Fail(error=error)))
        assert asyncio.all_tasks() == before


@virtual_time
async def test_wait_ends_elsewhere_when_the_block_has_been_left() -> None:
    supervisor = three([])
    ended_at: list[float] = []

    async def watch() -> None:
        await supervisor.wait()
        ended_at.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        with pytest.raises(ZeroDivisionError):
            await send_and_wait(supervisor, ("a", Fail(error=ZeroDivisionError())), after_s=3)
    assert ended_at == [3.0]


@virtual_time
async def test_messages_sent_before_the_start_are_received_after_it() -> None:
    trace: Trace = []
    supervisor = three(trace)
    supervisor.ref("a").tell_nowait(Note(text="early"))
    async with supervisor:
        await anyio.sleep(1)
    assert [event for _, name, event in trace if name == "a"] == ["started", "early", "stopped"]
