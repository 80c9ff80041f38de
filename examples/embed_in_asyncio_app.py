"""An asyncio application that reads a sensor ten times a second, and a node that trains beside it.

    python examples/embed_in_asyncio_app.py

The node is alone here. With `broker="mqtt://…"`, a key, a members file and `members_min=2` it trains with others; the
application stays as it is.
"""

import asyncio
import itertools
import logging
import tempfile
from pathlib import Path

import psutil
import structlog
import torch

from crowd import Node, NodeConfig, device_id, ephemeral_signers, make_task

PERIOD_S = 0.1
NAME = device_id("gateway")


async def read_sensor() -> None:
    """What the application is there for; here the sensor is the machine's own memory."""
    for reading in itertools.count():
        if reading % 10 == 0:
            print(f"sensor: {psutil.virtual_memory().percent} % of the memory in use")
        await asyncio.sleep(PERIOD_S)


async def train(state_dir: Path) -> torch.nn.Module:
    """Take part in the training until it is over; the trained network."""
    config = NodeConfig(
        name=NAME, cluster="home", broker="memory://home", task="digits", members_min=1, state_dir=state_dir
    )
    async with Node(config, signer=ephemeral_signers([NAME])[NAME]) as node:
        async for progress in node.progress():
            if progress.value is not None:
                print(f"training: round {progress.round}, {progress.value:.1%}")
        return node.model


async def main() -> None:
    sensor = asyncio.create_task(read_sensor())
    with tempfile.TemporaryDirectory() as state_dir:
        model = await train(Path(state_dir))
    sensor.cancel()
    evaluation = make_task("digits", NAME).evaluation
    assert evaluation is not None
    images, labels = evaluation[:5]
    print(f"the network reads {model(images).argmax(1).tolist()}, which is {labels.tolist()}")


structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
torch.set_num_threads(1)
asyncio.run(main())
