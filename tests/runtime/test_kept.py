"""How much a supervisor's children keep can be asked for."""

from collections.abc import Mapping

import anyio

from crowd.runtime import ChildSpec, Supervisor
from tests.runtime.actors import Note, Recorder, Work
from tests.support.virtual import virtual_time

Trace = list[tuple[float, str, str]]


class Hoarder(Recorder):
    def kept(self) -> Mapping[str, int]:
        return {"events": len(self.trace)}


@virtual_time
async def test_what_waits_in_mailboxes_is_counted_with_what_the_children_keep() -> None:
    trace: Trace = []
    specs = [
        ChildSpec(name="busy", factory=lambda: Hoarder(trace)),
        ChildSpec(name="idle", factory=lambda: Recorder([])),
    ]
    async with Supervisor(specs, restarts_max=0, window_s=1.0, seed=0) as supervisor:
        assert supervisor.kept()["messages for the busy"] == 0
        await anyio.sleep(1)
        for message in (Work(duration_s=5), Note(text="first"), Note(text="second")):
            await supervisor.ref("busy").tell(message)
        await anyio.sleep(1)
        assert supervisor.kept() == {"messages for the busy": 2, "messages for the idle": 0, "events": 1}
