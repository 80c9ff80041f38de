"""The ways to run the demonstration's devices: all in this process, or each in a process of its own on a real
broker."""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio

from crowd import plugins
from crowd.cli.demo.device import STATUSES, DeviceStatus, play
from crowd.cli.demo.setup import DemoDevice, DemoSetup
from crowd.errors import BadConfig, BrokerLost, BrokerRefused
from crowd.experiment.node_files import write_files
from crowd.experiment.subprocesses import GRACE_S, started
from crowd.protocol.identity import ephemeral_signers
from crowd.units import Address, Channel, device_id

OnStatus = Callable[[DeviceStatus], None]


async def run_here(setup: DemoSetup, policy: str, report: OnStatus) -> None:
    """Run all devices in this process, on an in-process broker."""
    import torch

    torch.set_num_threads(1)  # many devices share this machine: several threads for each would only compete
    signers = ephemeral_signers([device_id(device.name) for device in setup.devices])
    async with anyio.create_task_group() as tasks:
        for device in setup.devices:
            config = setup.config(device, policy=policy, broker=f"memory://{setup.cluster}")
            signer = signers[device_id(device.name)]
            tasks.start_soon(partial(play, config, device.part, report, signer=signer))


async def run_processes(setup: DemoSetup, policy: str, report: OnStatus, *, broker: str) -> None:
    """Run each device in a process of its own, with keys of its own. However this ends, so have the processes, and
    nothing is left on the broker."""
    await _check_broker(setup, broker)
    configs = [setup.config(device, policy=policy, broker=broker) for device in setup.devices]
    with tempfile.TemporaryDirectory(prefix="crowd-demo-") as directory:
        files = write_files(Path(directory), configs)
        try:
            async with anyio.create_task_group() as tasks:
                for device in setup.devices:
                    tasks.start_soon(_follow, device, files[device.name], report)
        finally:
            with anyio.move_on_after(GRACE_S, shield=True):
                await _sweep(setup, broker)


async def _check_broker(setup: DemoSetup, broker: str) -> None:
    """Raise `BrokerRefused` if the broker cannot be reached now: a demonstration does not wait for one."""
    name = device_id(setup.devices[0].name)
    try:
        async with plugins.broker_from_url(broker, cluster=setup.cluster, device=name).session():
            pass
    except BrokerLost as error:
        raise BrokerRefused(str(error)) from error


async def _follow(device: DemoDevice, config: Path, report: OnStatus) -> None:
    """Follow one device's process from its start to its end."""
    part = device.part
    arguments = [str(config), str(part.speed_kflops), str(part.memory_bytes)]
    command = [sys.executable, "-P", "-m", "crowd.cli.processes.demo_device", *arguments]
    async with started(command, name=device.name) as process:
        async for line in process.lines():
            report(STATUSES.from_line(line))
        await process.expect_success()


async def _sweep(setup: DemoSetup, broker: str) -> None:
    """Clear what the devices left retained; a broker that is gone has nothing to clear."""
    for device in setup.devices:
        name = device_id(device.name)
        try:
            async with plugins.broker_from_url(broker, cluster=setup.cluster, device=name).session() as session:
                for channel in (Channel.STATUS, Channel.INFO, Channel.PROFILE, Channel.ACK, Channel.RESULT):
                    await session.publish(Address(channel=channel, source=name), b"", retain=True)
        except (BadConfig, BrokerLost):
            return
