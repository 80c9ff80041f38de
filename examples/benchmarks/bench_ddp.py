"""Eight processes of PyTorch's DistributedDataParallel (gloo) train the task `digits` to 95 %.

    python examples/benchmarks/bench_ddp.py [--processes 8] [--alpha 0.3]

For comparison with bench_eight_nodes.py: the same parts of the data, network, optimiser, batch size, target and way of
evaluating (each process its share, twice in a row at the target, once an epoch). DistributedDataParallel needs as many
steps everywhere, so a process with fewer samples begins again with its own, as `DistributedSampler` pads. Prints the
time from the start of the first process, the time of the training in it, and the bytes of the gradients: a ring
all-reduce sends 2 (n - 1) / n times 4 bytes a parameter in each step, and receives as much, on each of n processes.
Counted are the gradients alone: no headers, nor the few bytes by which the processes agree on the accuracy.
"""

import argparse
import math
import tempfile
import time

import torch
import torch.distributed as distributed
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from crowd.learning.ending import Goal, next_streak
from crowd.learning.evaluation import Evaluation
from crowd.learning.quality import Quality, evaluate
from crowd.learning.samples import materialise
from crowd.planning.phase import is_reached
from crowd.tasks import digits
from crowd.tasks.partition import Partition


def train(rank: int, processes: int, alpha: float, began: float, directory: str) -> None:
    """One process; rank 0 prints the figures."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=processes
    )
    task = digits.task(f"rank-{rank}", Partition(kind="dirichlet", alpha=alpha, part=rank, parts=processes))
    assert task.evaluation is not None
    own, evaluation = materialise(task.data, "data"), materialise(task.evaluation, "evaluation")
    share = slice(rank, None, processes)
    model = task.model()
    replica = DistributedDataParallel(model)  # shares the parameters of `model`
    optimizer = task.optimizer(replica.parameters())
    steps_an_epoch = math.ceil(int(most(len(own))) / task.batch_size)
    training_began = time.time()
    epochs = streak = 0
    goal = Goal.of(task)
    label_elements = evaluation.format.label_elements
    value: float | None = None
    while epochs < task.epochs_max and not is_reached(streak):
        order = torch.randperm(len(own)).repeat(math.ceil(steps_an_epoch * task.batch_size / len(own)))
        for step in range(steps_an_epoch):
            rows = order[step * task.batch_size : (step + 1) * task.batch_size]
            optimizer.zero_grad()
            task.loss(replica(own.inputs[rows]), own.labels[rows]).backward()
            optimizer.step()
        epochs += 1
        mine = evaluate(task.metric, model, evaluation.inputs[share], evaluation.labels[share])
        sums = torch.tensor(mine.sums, dtype=torch.float64)
        distributed.all_reduce(sums)
        everybody = Evaluation(sums=tuple(sums.tolist()), samples=len(evaluation))
        value = Quality(metric=task.metric, numbers=len(sums), label_elements=label_elements).value(everybody)
        streak = next_streak(streak, value, len(evaluation), goal)
    if rank == 0:
        steps = epochs * steps_an_epoch
        parameters = sum(parameter.numel() for parameter in model.parameters())
        moved = 2 * processes * steps * 2 * (processes - 1) / processes * 4 * parameters  # up and down, all processes
        print(
            f"{'reached' if is_reached(streak) else 'not reached'}: {value or 0.0:.1%}, {epochs} epochs, {steps} steps"
        )
        print(f"from the start of the first process {time.time() - began:.1f} s", end=", ")
        print(f"of which training {time.time() - training_began:.1f} s")
        print(
            f"gradients over all links, up and down: {moved / 1e6:.1f} MB (4 × {processes - 1} × {steps} steps × "
            f"4 bytes × {parameters:,} parameters)"
        )
    distributed.destroy_process_group()


def most(value: int) -> torch.Tensor:
    """The largest `value` of all processes."""
    largest = torch.tensor(value)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description="The task digits with DistributedDataParallel.")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=0.3, help="of the Dirichlet distribution of the labels")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        began = time.time()
        values = (arguments.processes, arguments.alpha, began, directory)
        spawn(train, args=values, nprocs=arguments.processes)
        print(f"to the end of the last process {time.time() - began:.1f} s")


if __name__ == "__main__":
    main()
