"""What checkpoints cost: a node that saves against one that does not, and what it writes in an hour.

    python examples/benchmarks/bench_checkpoints.py [--pairs 4] [--seconds 20]

`fashion` is trained by one node for so many seconds with a checkpoint every 6 s, ten times as often as by default, and
for as long, before and after it, with none: the ratio of samples a second, 1.0 being no cost, and what a tenth of that
cost comes to. Then `wide`, a network of 20 million parameters, is trained on a few samples until it has saved, every
minute if it could: what it has written, and the pause that it then makes (`again_s` of its log), tell the bytes of an
hour. Files go into the directory for temporary files.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import attrs
import structlog
import torch

import crowd
from crowd.learning.work import StepReport
from crowd.ports import Device, Signer
from crowd.protocol.identity import ephemeral_signers
from crowd.tasks import fashion, wide
from crowd.tasks.partition import Partition
from crowd.units import device_id
from devices.sensors import MachineSensor
from devices.torch_compute import TorchCompute

T = TypeVar("T")

NAME = device_id("alone")
OFTEN_S, USUALLY_S, NEVER_S = 6.0, 60.0, 1e6
LOOK_S = 0.5
RATIO_MIN = 0.99
BYTES_MAX = 1_000_000_000
"""Written in an hour."""


class Counting(TorchCompute):
    """Counts the samples that are trained, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[float, int]] = []
        """When each piece of training ended, and how many samples it had."""

    async def run(self, work: Callable[[], T], *, flops: int = 0) -> T:
        result = await super().run(work, flops=flops)
        if isinstance(result, StepReport) and result.steps:
            self.done.append((time.perf_counter(), result.samples))
        return result

    def rate(self, seconds: float) -> float:
        """Samples a second in the last `seconds`."""
        end_s = self.done[-1][0]
        late = [(at_s, samples) for at_s, samples in self.done if at_s >= end_s - seconds]
        return sum(samples for _, samples in late[1:]) / (end_s - late[0][0])


class Saves:
    """Remembers the log's lines about checkpoints."""

    def __init__(self) -> None:
        self.pauses_s: list[float] = []

    def __call__(self, _: Any, __: str, event: structlog.types.EventDict) -> str:
        if event["event"] == "checkpoint_saved":
            self.pauses_s.append(event["again_s"])
        raise structlog.DropEvent


async def train(
    task: crowd.Task, signer: Signer, checkpoint_s: float, until: Callable[[Path, Counting], bool]
) -> Counting:
    """A node from its start until that is so."""
    compute = Counting()
    with tempfile.TemporaryDirectory() as directory:
        config = crowd.NodeConfig(
            name=NAME,
            cluster="bench",
            broker="memory://bench",
            members_min=1,
            state_dir=Path(directory),
            checkpoint_s=checkpoint_s,
        )
        device = Device(compute=compute, sensor=MachineSensor())
        async with crowd.Node(config, task=lambda _: task, device=device, signer=signer):
            while True:
                if until(Path(directory), compute):
                    return compute
                await anyio.sleep(LOOK_S)


def ratio(signer: Signer, saves: Saves, pairs: int, seconds: float) -> float:
    """Prints the rates of a node that saves and of one that does not, in turn; returns the median of their ratios."""
    task = attrs.evolve(fashion.task(NAME, Partition()), target=1.0, epochs_max=10_000)

    def rate(checkpoint_s: float) -> float:
        def is_over(_: Path, compute: Counting) -> bool:
            return bool(compute.done) and compute.done[-1][0] - compute.done[0][0] > seconds + 5

        return anyio.run(train, task, signer, checkpoint_s, is_over).rate(seconds)

    ratios = []
    before = rate(NEVER_S)
    for number in range(pairs):
        saves.pauses_s.clear()
        saving = rate(OFTEN_S)
        saved = len(saves.pauses_s)
        after = rate(NEVER_S)
        ratios.append(2 * saving / (before + after))
        print(f"fashion {number + 1}: {saving:,.0f} samples/s with {saved} checkpoints; {ratios[-1]:.3f}", flush=True)
        before = after
    return statistics.median(ratios)


def written(signer: Signer, saves: Saves) -> float:
    """Bytes that a node with `wide` writes in an hour."""
    task = attrs.evolve(wide.task(NAME, Partition(part=0, parts=40)), target=1.0, epochs_max=10_000)
    sizes: list[int] = []
    saves.pauses_s.clear()

    def has_saved(directory: Path, _: Counting) -> bool:
        sizes.extend(path.stat().st_size for path in (directory / "checkpoint").glob("?"))
        return bool(saves.pauses_s)

    anyio.run(train, task, signer, USUALLY_S, has_saved)
    an_hour = max(sizes) * 3600 / saves.pauses_s[0]
    print(f"wide: {max(sizes) / 1e6:.0f} MB, the next after {saves.pauses_s[0]:.0f} s: {an_hour / 1e9:.2f} GB an hour")
    return an_hour


def main() -> int:
    parser = argparse.ArgumentParser(description="What checkpoints cost.")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0, help="of training that is looked at, of each of them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    saves = Saves()
    structlog.configure(processors=[saves])
    signer = ephemeral_signers([NAME])[NAME]
    often = ratio(signer, saves, arguments.pairs, arguments.seconds)
    found = 1 - (1 - often) * OFTEN_S / USUALLY_S
    print(
        f"fashion: {often:.3f} with a checkpoint every {OFTEN_S:g} s, so {found:.3f} every {USUALLY_S:g} s; at least "
        f"{RATIO_MIN} is required"
    )
    an_hour = written(signer, saves)
    return 0 if found >= RATIO_MIN and an_hour <= 1.01 * BYTES_MAX else 1  # pauses are told in tenths of seconds


if __name__ == "__main__":
    sys.exit(main())
