"""Measures what the targets of the built-in tasks are set by (docs/targets.md).

    python examples/maintenance/measure_targets.py watch --epochs 15

One device with all the data, local training with the task's own optimiser and batch size; prints the accuracy after
every epoch for each seed, then the median of the last ones.
"""

import argparse
import statistics

import torch

from crowd.learning.task import Task
from crowd.tasks import deep, digits, fashion, watch, wide
from crowd.tasks.partition import Partition

TASKS = {
    "deep": deep.task,
    "digits": digits.task,
    "fashion": fashion.task,
    "fashion-full": fashion.full_task,
    "watch": watch.task,
    "wide": wide.task,
}


def accuracies(task: Task, epochs: int, seed: int) -> list[float]:
    """The accuracy on the evaluation set after each epoch."""
    torch.manual_seed(seed)
    network = task.model()
    optimizer = task.optimizer(network.parameters())
    curve = []
    for _ in range(epochs):
        for inputs, labels in torch.utils.data.DataLoader(task.data, batch_size=task.batch_size, shuffle=True):
            optimizer.zero_grad()
            task.loss(network(inputs), labels).backward()
            optimizer.step()
        curve.append(accuracy(network, task))
    return curve


@torch.no_grad()
def accuracy(network: torch.nn.Module, task: Task) -> float:
    assert task.evaluation is not None, "the built-in tasks have a common evaluation set"
    inputs, labels = task.evaluation[:]
    return int((network(inputs).argmax(dim=1) == labels).sum()) / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=tuple(TASKS))
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = TASKS[arguments.task]("all", Partition())
    finals = []
    for seed in range(arguments.seeds):
        curve = accuracies(task, arguments.epochs, seed)
        finals.append(curve[-1])
        print(f"seed {seed}:", *(f"{100 * value:.2f}" for value in curve), flush=True)
    print(f"median after {arguments.epochs} epochs: {100 * statistics.median(finals):.2f} %")


if __name__ == "__main__":
    main()
