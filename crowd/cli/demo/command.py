"""`crowd demo`: a real network on real data, on emulated devices that differ 25-fold, three ways in turn."""

import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
import cyclopts
from rich.console import Console

from crowd.cli.demo.device import DeviceStatus
from crowd.cli.demo.launch import run_here, run_processes
from crowd.cli.demo.run import DemoRun
from crowd.cli.demo.screen import DemoScreen, final_screen
from crowd.cli.demo.setup import DemoSetup
from crowd.cli.files import check_writable, write_runs
from crowd.cli.signals import unless_stopped
from crowd.errors import BadConfig
from crowd.logs import logs_to_stderr

POLICIES = ("crowd_learning", "ship_once", "fedavg")
PATIENCE = 8.0
"""Times as long as the first policy that another one may take before it is stopped."""


def demo(
    *,
    devices: int = 5,
    broker: str | None = None,
    full: Annotated[bool, cyclopts.Parameter(negative="")] = False,
    json: Path | None = None,
) -> int:
    """Train on emulated unequal devices, and compare with other ways to do it.

    Parameters
    ----------
    devices
        How many.
    broker
        Run each device as a process of its own on this MQTT broker, as mqtt://host:1883.
    full
        Let every policy train to the target, however long it takes.
    json
        Write the figures of all runs to this file.
    """
    setup = DemoSetup.of(devices, cluster=f"demo-{secrets.token_hex(4)}")
    if broker is not None and broker.startswith("memory:"):
        raise BadConfig(f"--broker {broker}: processes share no memory; give an MQTT broker, or leave --broker out")
    if json is not None:
        check_writable(json)
    logs_to_stderr()
    return anyio.run(unless_stopped, partial(_demo, setup, Console(), broker, full, json))


async def _demo(setup: DemoSetup, console: Console, broker: str | None, full: bool, json: Path | None) -> int:
    runs = await compare(setup, console, broker=broker, full=full)
    console.print(final_screen(runs), highlight=False)
    if json is not None:
        write_runs(json, [run.record() for run in runs])
    return 0 if runs[0].reached else 1


async def compare(
    setup: DemoSetup,
    console: Console,
    *,
    broker: str | None = None,
    full: bool = False,
    policies: Sequence[str] = POLICIES,
) -> list[DemoRun]:
    """Run `policies` one after the other, the first to the target, and show it on `console`. Raises `RuntimeError` if
    the devices of one end with different models."""
    runs: list[DemoRun] = []
    with DemoScreen(console) as screen:
        for policy in policies:
            run = DemoRun(setup.for_policy(policy), policy)
            runs.append(run)
            screen.begin(run)
            limit_s = PATIENCE * runs[0].elapsed_s if len(runs) > 1 and not full else None
            await _run(run, screen, broker, limit_s)
            screen.end(run)
            if run.reached and len(run.digests) > 1:
                raise RuntimeError(f"{policy}: the devices ended with different models: {run.digests}")
    return runs


async def _run(run: DemoRun, screen: DemoScreen, broker: str | None, limit_s: float | None) -> None:
    def report(news: DeviceStatus) -> None:
        if run.see(news):
            screen.round_done(run)
        if limit_s is not None and run.elapsed_s >= limit_s:
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        if broker is None:
            await run_here(run.setup, run.policy, report)
        else:
            await run_processes(run.setup, run.policy, report, broker=broker)
