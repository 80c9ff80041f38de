import anyio

from brokers.session_state import SessionState
from crowd.errors import BrokerLost
from tests.support.virtual import virtual_time


@virtual_time
async def test_calls_that_wait_when_the_connection_goes_fail_in_the_order_in_which_they_came() -> None:
    session_state = SessionState()
    failed: list[int] = []

    async def call(number: int) -> None:
        try:
            with session_state.holding():
                await anyio.sleep_forever()
        except BrokerLost:
            failed.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(call, number)
        await anyio.wait_all_tasks_blocked()
        session_state.lose("cut")
    assert failed == list(range(50))
