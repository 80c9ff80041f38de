"""`crowd node`: this device's part in its cluster."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import cyclopts
import structlog
from rich.console import Console

from crowd import plugins
from crowd.cli.asked import answer
from crowd.cli.files import check_writable, write_runs
from crowd.cli.new_data import NewData
from crowd.cli.preflight import check_broker, check_without_torch
from crowd.cli.saving import keep_trying
from crowd.cli.signals import ended_at_once, unless_stopped
from crowd.cli.terminal import hardly_trained_lines, idle_lines, round_words, summary
from crowd.config.node_file import NodeConfig, read_node_config
from crowd.errors import DONE, NOT_REACHED
from crowd.formatting import seconds, size
from crowd.logs import logs_to_stderr
from crowd.planning.check import check_hope
from crowd.ports import Device
from crowd.protocol.identity import read_members
from crowd.run_record import RunGoal, metrics_of, run_record
from crowd.units import device_id

if TYPE_CHECKING:
    from crowd.node import Node
    from crowd.progress import Progress

log = structlog.get_logger()


def node(
    *,
    config: Path,
    once: Annotated[bool, cyclopts.Parameter(negative="")] = False,
    json: Path | None = None,
    start: Annotated[Path | None, cyclopts.Parameter(name="--from")] = None,
) -> int:
    """Run this device until it is stopped.

    Parameters
    ----------
    config
        The device's node.toml.
    once
        End when every living device has finished the run.
    json
        Write the figures of the run to this file.
    start
        A safetensors file with parameters of the network, all or some, with which the first run begins where no device
        has a model yet. One device needs it.
    """
    settings = read_node_config(config)
    if json is not None:
        check_writable(json)
    console = Console()
    logs_to_stderr(verbose=not console.is_terminal)
    with ended_at_once():
        broker = check_without_torch(settings)
        device = plugins.devices.load(settings.device)()
        _ = device.compute.torch_device  # says whether it is there, and loads torch only where that is the question
        anyio.run(check_broker, broker)
        session = _Session(settings, device, console, once=once, json=json, start=start)
    return anyio.run(unless_stopped, session.run)


def limit_torch(device: Device, config: NodeConfig) -> None:
    """Let torch use `cpu_share_max` of the processors that the device's process may use, and one at least, and
    `accelerator_share_max` of the memory of the accelerator that it trains on."""
    import torch

    torch.set_num_threads(max(1, int(device.sensor.read().processors * config.cpu_share_max)))
    match torch.device(device.compute.torch_device).type:
        case "cuda":
            torch.cuda.set_per_process_memory_fraction(config.accelerator_share_max)
        case "mps":
            torch.mps.set_per_process_memory_fraction(config.accelerator_share_max)


class _Session:
    def __init__(
        self,
        config: NodeConfig,
        device: Device,
        console: Console,
        *,
        once: bool,
        json: Path | None,
        start: Path | None,
    ) -> None:
        self._config = config
        self._console = console
        self._once = once
        self._json = json
        self._shown = 0
        self._idle: dict[str, tuple[int, str]] = {}
        """Samples that nobody trains by the run's latest plan, by device, and why."""
        self._hardly_trained: Mapping[str, tuple[int, str]] | None = None
        """Samples that were planned to be trained and hardly were, by device, and why; `None`: not known here."""
        self._say("loading PyTorch")
        from crowd.cli.waiting import Acquaintances
        from crowd.node import Node

        limit_torch(device, config)
        assert config.members_file is not None, "check_without_torch wants it"
        self._members = frozenset(read_members(config.members_file))
        self._known = Acquaintances(device_id(config.name), self._members)
        self._node = Node(config, device=device, probe=self._known, start=start)
        self._say(f"reading the data of task {config.task!r}")
        self._task, _ = self._node.prepare()

    async def run(self) -> int:
        config = self._config
        self._say(f"{config.name} joins {config.cluster} at {config.broker} and measures its speed")
        async with self._node as node, anyio.create_task_group() as tasks:
            new_data = None if self._once else NewData(node)
            if new_data is not None:
                tasks.start_soon(new_data.watch)
            tasks.start_soon(answer, node, config.state_dir, new_data)
            while True:
                await self._follow(node)
                try:
                    reached = self._report(node)
                finally:  # whatever becomes of the report, the model is what counts
                    await keep_trying(node.trained, config.state_dir, once=self._once)
                if self._once:
                    break
                self._say(f"{config.name} keeps the model; the next run begins with crowd train{self._by_clock}")
                self._say(f"run {await node.begun()} begins")
                self._shown, self._idle = 0, {}
            tasks.cancel_scope.cancel()
        return DONE if reached else NOT_REACHED

    @property
    def _by_clock(self) -> str:
        """When the next run begins by itself, for a sentence."""
        every = None if self._config.every is None else f"every {self._config.every}"
        words = " ".join(filter(None, (every, self._config.at and f"at {self._config.at}")))
        return f", and {words} by itself" if words else ""

    async def _follow(self, node: "Node") -> None:
        """Show what happens until the run is over, and why nothing does."""
        from crowd.cli.waiting import tell_waiting

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tell_waiting, self._known, self._say_why)
            async for progress in node.progress():
                self._show(progress)
                if self._once and progress.plan is not None:
                    check_hope(progress.plan, node.name, self._config.members_min, self._members)
            tasks.cancel_scope.cancel()

    def _say_why(self, why: str) -> None:
        if self._console.is_terminal:
            self._console.print(f"waiting: {why}", highlight=False)
        else:
            log.warning("node_waits", why=why)

    def _say(self, text: str) -> None:
        """Say what is going on: on a terminal in words, else as an event of the log."""
        if self._console.is_terminal:
            self._console.print(text, highlight=False)
        else:
            log.info("node_goes_on", doing=text)

    def _show(self, progress: "Progress") -> None:
        plan, self._hardly_trained = progress.plan, progress.hardly_trained
        if plan is not None and plan.has_work and not progress.finished and plan.idle_by_device() != self._idle:
            self._idle = plan.idle_by_device()
            for line in idle_lines(self._idle):
                print(line, flush=True)
        if not self._console.is_terminal:
            return
        if progress.round <= self._shown:
            return
        self._shown = progress.round
        words = round_words(progress.round, self._task.metric.name, progress.value, progress.loss)
        self._console.print(
            f"{words}  {seconds(progress.elapsed_s):>8}  "
            f"{size(progress.bytes_up):>8} up  {size(progress.bytes_down):>8} down",
            highlight=False,
        )

    def _report(self, node: "Node") -> bool:
        record = record_of(node, self._config, RunGoal.of(self._task), self._idle, self._hardly_trained)
        for line in hardly_trained_lines(self._hardly_trained):
            print(line, flush=True)
        if not node.results[node.name].curve:
            self._say(f"{node.name} came when the run was over: its model is the others', and it has trained nothing")
        print(summary(record, node.digest), flush=True)
        if self._json is not None:
            write_runs(self._json, [record])
        return bool(record["reached"])


def record_of(
    node: "Node",
    config: NodeConfig,
    goal: RunGoal,
    idle: Mapping[str, tuple[int, str]],
    hardly_trained: Mapping[str, tuple[int, str]] | None,
) -> dict[str, Any]:
    """The record of the run that has just ended on `node`, with the metrics of every device that ended with it, and the
    samples that nobody trained, or hardly."""
    own = node.results[node.name]
    results = {name: result for name, result in node.results.items() if result.progress == own.progress}
    return run_record(
        {name: metrics_of(result) for name, result in results.items()},
        policy=config.policy,
        cluster=config.cluster,
        task=config.task,
        seed=config.seed,
        goal=goal,
        reached=own.reached,
        idle=idle,
        hardly_trained=hardly_trained,
    )
