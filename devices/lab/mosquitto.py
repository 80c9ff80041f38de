"""A real Mosquitto on one host of a lab's network: `LabBroker`."""

import anyio
from anyio.abc import TaskGroup, TaskStatus

from crowd.experiment.subprocesses import Subprocess, started
from devices.lab.programs import find_program
from devices.lab.sandbox import Site

_SETTINGS = ("allow_anonymous true", "persistence false", "user root", "log_dest stderr")


class LabBroker:
    """A Mosquitto that runs in `tasks`, with as much processor time as it needs. If it ends unasked, `RuntimeError`
    leaves `tasks`."""

    def __init__(self, site: Site, host: str, tasks: TaskGroup, *, port: int) -> None:
        self._site = site
        self._place = host
        self._tasks = tasks
        self._port = port
        self._group = site.group("_broker")
        self._process: Subprocess | None = None

    async def start(self) -> None:
        """Start the broker; return when it accepts connections. After `kill`, it begins anew."""
        await self._tasks.start(self._run)

    def kill(self) -> None:
        """End the broker at once; all that it held is lost."""
        assert self._process is not None
        process, self._process = self._process, None
        process.kill()

    async def _run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        configuration = self._site.directory / "mosquitto.conf"
        settings = (f"listener {self._port} 0.0.0.0", *_SETTINGS)
        configuration.write_text("\n".join(settings) + "\n", encoding="utf-8")
        program = find_program("mosquitto", package="mosquitto")
        # its log is buffered on standard output, but not on standard error
        merged = ("sh", "-c", 'exec "$@" 2>&1', "sh", program, "-c", str(configuration))
        line = ""
        async with started(self._site.net.command(self._place, *merged), name="the broker", grace_s=0) as process:
            self._group.add(process.pid)
            self._process = process
            async for line in process.lines():
                if line.endswith(" running"):
                    task_status.started()
            if self._process is process:
                raise RuntimeError(f"the broker has ended: {line}")
