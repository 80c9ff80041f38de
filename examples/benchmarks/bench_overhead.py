"""What the engine costs: training inside a node against the same training in a plain PyTorch loop.

    python examples/benchmarks/bench_overhead.py [--repeats 7] [--epochs 1] [--threads 1]

A node, alone, trains the task `fashion`; before and after it a loop in the same process does as many steps of the
same batch size on tensors in memory, and evaluates as often; and so on, in turns. Three ratios of step rates, node to
loop, 1.0 being no cost: `steps` counts the time in training pieces alone, `run` all from the first plan to the last
round, merging and digests included, and `cpu` the same in processor time of the whole process, which is the one to look
at on a machine that has other work. While the node trains, a coroutine that sleeps 10 ms at a time measures how late it
wakes.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

import anyio
import attrs
import structlog
import torch

import crowd
from crowd.learning.quality import evaluate
from crowd.ports import Signer
from crowd.protocol.identity import ephemeral_signers
from crowd.tasks import fashion
from crowd.tasks.partition import Partition
from crowd.units import SECOND_US, device_id

NAME = device_id("alone")
RATIO_MIN = 0.95
SLEEP_S = 0.01


@attrs.frozen(kw_only=True)
class Run:
    """One training: all of it in time and processor time, and the time in which steps were made."""

    samples: int
    rounds: int
    steps_s: float
    run_s: float
    cpu_s: float
    lag_s_max: float = 0.0


@attrs.frozen
class Ratios:
    """Of step rates, a node's to the mean of the loops' before and after it."""

    steps: float
    run: float
    cpu: float
    lag_ms: float

    @classmethod
    def of(cls, node: Run, before: Run, after: Run) -> Self:
        def loop_s(name: str) -> float:
            """For as many samples as the node's."""
            return sum(float(getattr(run, name)) / run.samples for run in (before, after)) / 2 * node.samples

        return cls(
            steps=loop_s("steps_s") / node.steps_s,
            run=loop_s("run_s") / node.run_s,
            cpu=loop_s("cpu_s") / node.cpu_s,
            lag_ms=node.lag_s_max * 1000,
        )

    def text(self) -> str:
        return f"steps {self.steps:.3f}, run {self.run:.3f}, cpu {self.cpu:.3f}, lag {self.lag_ms:.1f} ms"


def work(epochs: int) -> crowd.Task:
    """`fashion` for a given time, whatever accuracy it reaches."""
    return attrs.evolve(fashion.task(NAME, Partition()), target=1.0, epochs_max=epochs)


async def in_node(epochs: int, signer: Signer) -> Run:
    """A node from its start to the end of its run."""
    lags_s = [0.0]
    cpu_began_s = cpu_s = 0.0
    with tempfile.TemporaryDirectory() as state_dir:
        config = crowd.NodeConfig(
            name=NAME, cluster="bench", broker="memory://bench", members_min=1, state_dir=Path(state_dir)
        )
        async with crowd.Node(config, task=lambda _: work(epochs), signer=signer) as node:
            async with anyio.create_task_group() as tasks:
                async for progress in node.progress():
                    if progress.finished:
                        cpu_s = time.process_time() - cpu_began_s
                    elif not cpu_began_s and progress.plan is not None and progress.plan.has_work:
                        cpu_began_s = time.process_time()
                        tasks.start_soon(measure_lag, lags_s)
                tasks.cancel_scope.cancel()
            result = node.results[NAME]
    return Run(
        samples=result.samples_trained,
        rounds=result.progress.round,
        steps_s=result.busy_us / SECOND_US,
        run_s=result.elapsed_us / SECOND_US,
        cpu_s=cpu_s,
        lag_s_max=max(lags_s),
    )


async def measure_lag(lags_s: list[float]) -> None:
    """Appends how much later than asked for each sleep ended."""
    while True:
        began = time.perf_counter()
        await anyio.sleep(SLEEP_S)
        lags_s.append(time.perf_counter() - began - SLEEP_S)


def in_loop(samples: int, rounds: int) -> Run:
    """As many steps and evaluations in plain PyTorch."""
    task = work(1)
    train, evaluation = fashion.small_samples()
    model = task.model()
    optimizer = task.optimizer(model.parameters())
    order = torch.randperm(len(train.labels)).repeat(samples // len(train.labels) + 1)[:samples]
    began, cpu_began_s = time.perf_counter(), time.process_time()
    for rows in torch.split(order, task.batch_size):
        optimizer.zero_grad()
        loss = task.loss(model(train.inputs.index_select(0, rows)), train.labels.index_select(0, rows))
        loss.backward()
        optimizer.step()
        loss.item()
    steps_s = time.perf_counter() - began
    for _ in range(rounds):
        evaluate(task.metric, model, evaluation.inputs, evaluation.labels)
    return Run(
        samples=samples,
        rounds=rounds,
        steps_s=steps_s,
        run_s=time.perf_counter() - began,
        cpu_s=time.process_time() - cpu_began_s,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="What the engine costs against plain PyTorch.")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="torch's threads, of both")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    torch.set_num_threads(arguments.threads)
    signer = ephemeral_signers([NAME])[NAME]
    samples, rounds = arguments.epochs * len(fashion.small_samples()[0].labels), arguments.epochs
    in_loop(samples, rounds)  # warm up
    before = in_loop(samples, rounds)
    pairs = []
    for repeat in range(arguments.repeats):
        node = anyio.run(in_node, arguments.epochs, signer)
        after = in_loop(node.samples, node.rounds)
        pairs.append(Ratios.of(node, before, after))
        print(f"{repeat + 1}: {node.samples:,} samples, {node.rounds} rounds; {pairs[-1].text()}", flush=True)
        before = after
    ratios = Ratios(*(statistics.median(column) for column in zip(*map(attrs.astuple, pairs), strict=True)))
    print(f"median of {len(pairs)}: {ratios.text()}; at least {RATIO_MIN} of steps is required")
    print(f"worst lag of all: {max(pair.lag_ms for pair in pairs):.1f} ms")
    return 0 if ratios.steps >= RATIO_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
