"""One emulated device as a process of its own, for `crowd demo --broker`:

    python -m crowd.cli.processes.demo_device NODE_TOML SPEED_KFLOPS MEMORY_BYTES

Writes its `DeviceStatus` in lines, often; a reader that is gone ends it."""

import sys
from functools import partial
from pathlib import Path

import anyio

from crowd.cli.demo.device import STATUSES, DeviceStatus, EmulatedDevice, play
from crowd.cli.signals import unless_stopped
from crowd.config.node_file import NodeConfig, read_node_config
from crowd.errors import BAD_INPUT, Rejected, innermost
from crowd.logs import logs_to_stderr
from crowd.protocol.identity import Ed25519Signer, read_key, read_members


def main(arguments: list[str]) -> int:
    """Play one device; returns the exit code: 0 when the run is over, 2 with one line on standard error for what cannot
    work."""
    path, speed_kflops, memory_bytes = arguments
    logs_to_stderr()
    try:
        config = read_node_config(Path(path))
        part = EmulatedDevice(name=config.name, speed_kflops=int(speed_kflops), memory_bytes=int(memory_bytes))
        return_code = anyio.run(unless_stopped, partial(_work, config, part))
    except* Rejected as rejected:
        print(" ".join(str(innermost(rejected)).split()), file=sys.stderr)
        return_code = BAD_INPUT
    return return_code


async def _work(config: NodeConfig, part: EmulatedDevice) -> int:
    import torch

    torch.set_num_threads(1)
    assert config.key_file is not None
    assert config.members_file is not None
    signer = Ed25519Signer(read_key(config.key_file), read_members(config.members_file))
    await play(config, part, _say, signer=signer)
    return 0


def _say(news: DeviceStatus) -> None:
    print(STATUSES.to_line(news), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
