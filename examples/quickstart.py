"""Two devices in one process train one network on handwritten digits; one has the small digits, the other the large.

python examples/quickstart.py
"""

import logging
import tempfile
from functools import partial
from pathlib import Path

import anyio
import structlog
import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from crowd import DeviceId, Node, NodeConfig, Task, ephemeral_signers

IMAGES, LABELS = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
IMAGES = IMAGES.float() / 16  # (1797, 64), from 0 to 1
TRAIN = 1_437
DIGITS = {DeviceId("kitchen"): range(5), DeviceId("study"): range(5, 10)}
SIGNERS = ephemeral_signers(DIGITS)  # keys for this process alone


def task(device: str) -> Task:
    mine = torch.isin(LABELS[:TRAIN], torch.tensor(DIGITS[DeviceId(device)]))
    return Task(
        model=lambda: torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)),
        data=TensorDataset(IMAGES[:TRAIN][mine], LABELS[:TRAIN][mine]),
        evaluation=TensorDataset(IMAGES[TRAIN:], LABELS[TRAIN:]),
        optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9),
        target=0.9,
    )


async def run(device: DeviceId, state: Path, digests: dict[str, str | None]) -> None:
    config = NodeConfig(name=device, cluster="home", broker="memory://home", state_dir=state / device)
    async with Node(config, task=task, signer=SIGNERS[device]) as node:
        async for progress in node.progress():
            if device == "kitchen" and progress.value is not None:
                print(f"round {progress.round}: {progress.value:.1%}")
        digests[device] = node.digest


async def main() -> None:
    digests: dict[str, str | None] = {}
    with tempfile.TemporaryDirectory() as state:
        async with anyio.create_task_group() as devices:
            for device in DIGITS:
                devices.start_soon(run, device, Path(state), digests)
    print(digests, "- the same model" if len(set(digests.values())) == 1 else "- the models differ")


structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
torch.set_num_threads(1)
anyio.run(main)
