"""What server and clients have in common: the names of what they send, the task by a device's `node.toml`, and a pipe
for news."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crowd import plugins
from crowd.config.node_file import NodeConfig, read_node_config
from crowd.learning.task import Task
from crowd.metric_facts import ACCURACY
from crowd.run_record import RunGoal
from devices.lab import messages
from devices.lab.messages import Go, Ready, WorkerReport

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
SAMPLES = "num-examples"
"""Where Flower's FedAvg looks for the weight of a client."""
ROUND = "server-round"
"""Where it puts the number of the round."""
FLOPS = "flops-per-sample"
NEWS, ORDERS = "news", "orders"
GOAL = RunGoal(metric=ACCURACY.name, better=ACCURACY.better, target=None)
"""Stands for the goal, of which Flower's server alone knows."""
KEEP = "keep-optimizer"
"""Whether a client's momentum outlives the round, as with the policy `fedavg`. Most clients that are written for Flower
begin with a new optimiser."""


def read_config(config: Mapping[str, Any]) -> NodeConfig:
    """The `node.toml` that `config` names: which task, and which part of its data."""
    return read_node_config(Path(config["file"]))


def task_of(config: NodeConfig) -> Task:
    return plugins.make_task(config.task, config.name, config.data)


def await_orders(config: Mapping[str, Any]) -> None:
    """Say that this device is about to train, and wait until it may, if `config` names a pipe for that: so the lab
    slows the training, and not what Flower itself does."""
    if ORDERS in config:
        say(config, Ready(goal=GOAL))
        with Path(config[ORDERS]).open(encoding="utf-8") as pipe:
            assert messages.ORDERS.from_line(pipe.readline()) == Go()


def say(config: Mapping[str, Any], news: WorkerReport) -> None:
    """Into the pipe that `config` names, to the one who started the run. A line is short enough to be written at
    once."""
    with Path(config[NEWS]).open("a", encoding="utf-8") as pipe:
        pipe.write(messages.REPORTS.to_line(news) + "\n")
