"""What the engine costs: training inside a node against the same training in a plain PyTorch loop.

    python examples/benchmarks/bench_overhead.py [TASK ...] [--repeats 5] [--epochs N] [--threads 1]

Tasks are `fashion`, `digits` and `watch`; without any, all of them. Of each three ratios of step rates, node to loop,
1.0 being no cost, all medians with the interval that has the true one in 95 of 100 cases:

* `steps`: the time in steps alone. After each piece of training that a node's processor is given in a run, the loop
  makes as many steps in the same thread; a piece is compared with the loop's before and after it, tens of milliseconds
  away, so that other work on the machine burdens both. The few steps by which a node measures its speed beforehand, one
  to four at a time with a network that is thrown away, are no part of the run.
* `run` and `cpu`: all from the first plan to the last round, merging and digests included, in time and in processor
  time of the whole process. A node, alone, trains; before and after it the loop does as much, and evaluates as often.

While the node trains, a coroutine that sleeps 10 ms at a time measures how late it wakes.
"""

import argparse
import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

import anyio
import attrs
import structlog
import torch

import crowd
from crowd.learning.quality import evaluate
from crowd.learning.samples import materialise
from crowd.learning.work import StepReport
from crowd.ports import Compute, Device, Signer
from crowd.protocol.identity import ephemeral_signers
from crowd.tasks import digits, fashion, watch
from crowd.tasks.partition import Partition
from crowd.units import SECOND_US, device_id
from devices.sensors import MachineSensor
from devices.torch_compute import TorchCompute

T = TypeVar("T")

TASKS = {"fashion": fashion.task, "digits": digits.task, "watch": watch.task}
EPOCHS = {"fashion": 1, "digits": 8, "watch": 1}
"""Of one run, where none are given: a few seconds."""
NAME = device_id("alone")
RATIO_MIN = 0.97
SLEEP_S = 0.01


@attrs.frozen(kw_only=True)
class Run:
    """One training: all of it in time and processor time."""

    samples: int
    rounds: int
    run_s: float
    cpu_s: float
    lag_s_max: float = 0.0


@attrs.frozen
class Ratios:
    """Of step rates, a node's to the mean of the loops' before and after it."""

    run: float
    cpu: float
    lag_ms: float

    @classmethod
    def of(cls, node: Run, before: Run, after: Run) -> Self:
        def loop_s(name: str) -> float:
            """For as many samples as the node's."""
            return sum(float(getattr(run, name)) / run.samples for run in (before, after)) / 2 * node.samples

        return cls(run=loop_s("run_s") / node.run_s, cpu=loop_s("cpu_s") / node.cpu_s, lag_ms=node.lag_s_max * 1000)

    def text(self) -> str:
        return f"run {self.run:.3f}, cpu {self.cpu:.3f}, lag {self.lag_ms:.1f} ms"


@attrs.frozen
class Median:
    """A median, and the interval in which the true one is in 95 of 100 cases, by ranks."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        ranked, count = sorted(values), len(values)
        away = 1.96 * math.sqrt(count) / 2
        low, high = max(0, math.floor(count / 2 - away)), min(count - 1, math.ceil(count / 2 + away))
        return cls(statistics.median(ranked), ranked[low], ranked[high])

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


# --- plain PyTorch ----------------------------------------------------------------------------------------------------


class Loop:
    """The same training without a node, on tensors in memory."""

    def __init__(self, task: crowd.Task) -> None:
        assert task.evaluation is not None
        self._task = task
        self._samples, self._evaluation = materialise(task.data, "data"), materialise(task.evaluation, "evaluation")
        self._model = task.model()
        self._optimizer = task.optimizer(self._model.parameters())
        self._order = torch.empty(0, dtype=torch.int64)

    def steps(self, samples: int, steps: int) -> float:
        """Train so many samples in so many steps; returns the time that it took, in seconds."""
        while len(self._order) < samples:
            self._order = torch.cat([self._order, torch.randperm(len(self._samples))])
        rows, self._order = self._order[:samples], self._order[samples:]
        self._model.train()
        began_s = time.perf_counter()
        for batch in torch.tensor_split(rows, steps):
            self._optimizer.zero_grad()
            inputs, labels = self._samples.inputs.index_select(0, batch), self._samples.labels.index_select(0, batch)
            loss = self._task.loss(self._model(inputs), labels)
            loss.backward()
            self._optimizer.step()
            loss.item()
        return time.perf_counter() - began_s

    def run(self, samples: int, rounds: int) -> Run:
        """As many samples and evaluations."""
        began_s, cpu_began_s = time.perf_counter(), time.process_time()
        self.steps(samples, math.ceil(samples / self._task.batch_size))
        for _ in range(rounds):
            evaluate(self._task.metric, self._model, self._evaluation.inputs, self._evaluation.labels)
        return Run(
            samples=samples,
            rounds=rounds,
            run_s=time.perf_counter() - began_s,
            cpu_s=time.process_time() - cpu_began_s,
        )


# --- a node -----------------------------------------------------------------------------------------------------------


class Alternating(TorchCompute):
    """Makes as many steps in a loop after each piece of training, once the run `has_begun`."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.has_begun = False
        self._loop = loop
        self._pieces: list[tuple[float, float]] = []
        """Seconds for a sample, in the node and then in the loop."""

    async def run(self, work: Callable[[], T], *, flops: int = 0) -> T:
        def both() -> T:
            began_s = time.perf_counter()
            result = work()
            node_s = time.perf_counter() - began_s
            if self.has_begun and isinstance(result, StepReport) and result.steps:
                loop_s = self._loop.steps(result.samples, result.steps)
                self._pieces.append((node_s / result.samples, loop_s / result.samples))
            return result

        return await super().run(both if flops else work, flops=flops)

    @property
    def ratios(self) -> list[float]:
        """Of each piece but the first."""
        pairs = zip(self._pieces, self._pieces[1:], strict=False)
        return [(before_s + after_s) / 2 / node_s for (_, before_s), (node_s, after_s) in pairs]


async def in_node(task: crowd.Task, compute: Compute, signer: Signer) -> Run:
    """A node from its start to the end of its run."""
    lags_s = [0.0]
    cpu_began_s = cpu_s = 0.0
    with tempfile.TemporaryDirectory() as state_dir:
        config = crowd.NodeConfig(
            name=NAME, cluster="bench", broker="memory://bench", members_min=1, state_dir=Path(state_dir)
        )
        device = Device(compute=compute, sensor=MachineSensor())
        async with crowd.Node(config, task=lambda _: task, device=device, signer=signer) as node:
            async with anyio.create_task_group() as tasks:
                async for progress in node.progress():
                    if progress.finished:
                        cpu_s = time.process_time() - cpu_began_s
                    elif not cpu_began_s and progress.plan is not None and progress.plan.has_work:
                        cpu_began_s = time.process_time()
                        if isinstance(compute, Alternating):
                            compute.has_begun = True
                        tasks.start_soon(measure_lag, lags_s)
                tasks.cancel_scope.cancel()
            result = node.results[NAME]
    return Run(
        samples=result.samples_trained,
        rounds=result.progress.round,
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


# --- both -------------------------------------------------------------------------------------------------------------


def measured(name: str, repeats: int, epochs: int, signer: Signer) -> Median:
    """Prints all ratios of a task; returns that of steps."""
    task = attrs.evolve(TASKS[name](NAME, Partition()), target=1.0, epochs_max=epochs)  # whatever it reaches
    loop = Loop(task)
    loop.run(32 * task.batch_size, 1)  # warm up
    steps: list[float] = []
    pairs: list[Ratios] = []
    before: Run | None = None
    for repeat in range(repeats):
        compute = Alternating(loop)
        anyio.run(in_node, task, compute, signer)
        steps.extend(compute.ratios)
        node = anyio.run(in_node, task, TorchCompute(), signer)
        before = before or loop.run(node.samples, node.rounds)
        after = loop.run(node.samples, node.rounds)
        pairs.append(Ratios.of(node, before, after))
        before = after
        print(
            f"{name} {repeat + 1}: {node.samples:,} samples, {node.rounds} rounds; "
            f"steps {statistics.median(compute.ratios):.3f}, {pairs[-1].text()}",
            flush=True,
        )
    found = Median.of(steps)
    print(f"{name}: steps {found} of {len(steps)} pieces; at least {RATIO_MIN} is required")
    print(
        f"{name}: run {Median.of([pair.run for pair in pairs])}, cpu {Median.of([pair.cpu for pair in pairs])} of "
        f"{len(pairs)} runs; worst lag {max(pair.lag_ms for pair in pairs):.1f} ms",
        flush=True,
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="What the engine costs against plain PyTorch.")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="of one run")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads, of both")
    arguments = parser.parse_args()
    if unknown := set(arguments.tasks) - TASKS.keys():
        parser.error(f"no task {min(unknown)}; there are {', '.join(TASKS)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    torch.set_num_threads(arguments.threads)
    signer = ephemeral_signers([NAME])[NAME]
    found = [
        measured(name, arguments.repeats, arguments.epochs or EPOCHS[name], signer) for name in arguments.tasks or TASKS
    ]
    return 0 if min(median.value for median in found) >= RATIO_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
