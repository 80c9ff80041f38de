"""Where the demonstration's devices run: all in this process, or each in a process of its own on a real broker."""

import json
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream

from crowd import plugins
from crowd.cli.emulate import News, play
from crowd.cli.main import BAD_INPUT
from crowd.cli.race import Contest, DemoDevice
from crowd.config import NodeConfig
from crowd.errors import BadConfig, BrokerLost
from crowd.protocol.identity import generate_key, public_line, throw_away_signers, write_key
from crowd.units import Address, Channel, device_id

LAST_WORDS = 20
LINE_BYTES_MAX = 1 << 16
GRACE_S = 5.0
"""A process that is told to end has so long to say goodbye."""

Report = Callable[[News], None]


async def run_here(contest: Contest, policy: str, report: Report) -> None:
    """All devices in this process, on a broker in memory."""
    import torch

    torch.set_num_threads(1)  # many devices share this machine: threads of each would only stand in each other's way
    signers = throw_away_signers([device_id(device.name) for device in contest.devices])
    async with anyio.create_task_group() as tasks:
        for device in contest.devices:
            config = contest.config(device, policy=policy, broker=f"memory://{contest.cluster}")
            signer = signers[device_id(device.name)]
            tasks.start_soon(partial(play, config, device.part, report, signer=signer))


async def run_processes(contest: Contest, policy: str, report: Report, *, broker: str) -> None:
    """Each device in a process of its own, with keys of its own. However this ends, so have the processes, and nothing
    is left on the broker."""
    with tempfile.TemporaryDirectory(prefix="crowd-demo-") as name:
        directory = Path(name)
        members = directory / "members.toml"
        lines = []
        for device in contest.devices:
            key = generate_key()
            write_key(directory / f"{device.name}.key", key)
            lines.append(public_line(device.name, key))
        members.write_text("\n".join(lines) + "\n", encoding="utf-8")
        try:
            async with anyio.create_task_group() as tasks:
                for device in contest.devices:
                    path = directory / f"{device.name}.toml"
                    config = contest.config(device, policy=policy, broker=broker)
                    path.write_text(_node_toml(config), encoding="utf-8")
                    tasks.start_soon(_follow, device, path, report)
        finally:
            with anyio.move_on_after(GRACE_S, shield=True):
                await _sweep(contest, broker)


async def _follow(device: DemoDevice, config: Path, report: Report) -> None:
    """One device's process, from its start to its end."""
    part = device.part
    command = [sys.executable, "-m", "crowd.cli.worker", str(config), str(part.speed_kflops), str(part.memory_bytes)]
    # in a session of its own, so that Ctrl-C reaches this process alone, which then ends the others
    process = await anyio.open_process(command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True)
    last_words: deque[str] = deque(maxlen=LAST_WORDS)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_keep_last, process, last_words)
            assert process.stdout is not None
            async for line in _lines(process.stdout):
                report(News.from_json(line))
        code = await process.wait()
    finally:
        await _end(process)
    if code == BAD_INPUT:
        raise BadConfig(f"{device.name}: {last_words[-1] if last_words else 'it ended without a word'}")
    if code:
        raise RuntimeError(f"the process of {device.name} ended with exit code {code}:\n" + "\n".join(last_words))


async def _keep_last(process: Process, lines: deque[str]) -> None:
    assert process.stderr is not None
    async for line in _lines(process.stderr):
        lines.append(line)


async def _lines(stream: ByteReceiveStream) -> AsyncIterator[str]:
    buffered = BufferedByteReceiveStream(stream)
    while True:
        try:
            yield (await buffered.receive_until(b"\n", LINE_BYTES_MAX)).decode()
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError):
            return


async def _end(process: Process) -> None:
    """Politely, then at once."""
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            process.terminate()
            with anyio.move_on_after(GRACE_S):
                await process.wait()
        if process.returncode is None:
            process.kill()
        await process.aclose()


async def _sweep(contest: Contest, broker: str) -> None:
    """Clear what the devices left retained; a broker that is gone has nothing to clear."""
    for device in contest.devices:
        name = device_id(device.name)
        try:
            async with plugins.broker_from_url(broker, cluster=contest.cluster, device=name).session() as session:
                for channel in (Channel.STATUS, Channel.INFO, Channel.PROFILE, Channel.ACK, Channel.RESULT):
                    await session.publish(Address(channel=channel, source=name), b"", retain=True)
        except (BadConfig, BrokerLost):
            return


def _node_toml(config: NodeConfig) -> str:
    """The file from which the device's process reads `config`, beside its key and the members' file."""
    assert config.data is not None
    sections: dict[str, dict[str, Any]] = {
        "node": {
            "name": config.name,
            "cluster": config.cluster,
            "broker": config.broker,
            "key_file": f"{config.name}.key",
            "members_file": "members.toml",
        },
        "train": {
            "task": config.task,
            "policy": config.policy,
            "seed": config.seed,
            "members_min": config.members_min,
            "uplink_mbps": config.uplink_mbps,
            "downlink_mbps": config.downlink_mbps,
        },
        "data": {
            "partition": config.data.partition.value,
            "alpha": config.data.alpha,
            "part": config.data.part,
            "parts": config.data.parts,
        },
    }
    lines = []
    for section, values in sections.items():
        # a number or a text of plain letters is the same in JSON and in TOML
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"
