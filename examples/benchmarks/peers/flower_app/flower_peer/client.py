"""The ClientApp: one epoch of this device's own samples, from the parameters that the server sent.

Flower calls it in a new process for each round; what the optimiser remembers lives on in its `Context.state`.
"""

import time

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from crowd.experiment.metering import Span
from crowd.learning.samples import SampleSet, materialise, seeded
from crowd.learning.task import Task
from devices.lab.messages import Computed
from flower_peer.part import (
    ARRAYS,
    CONFIG,
    FLOPS,
    KEEP,
    METRICS,
    ROUND,
    SAMPLES,
    await_orders,
    read_config,
    say,
    task_of,
)

OPTIMIZER = "optimizer"

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answers with the parameters after the epoch and the number of samples in it."""
    torch.set_num_threads(1)
    arrays, config = message.content[ARRAYS], message.content[CONFIG]
    assert isinstance(arrays, ArrayRecord)
    assert isinstance(config, ConfigRecord)
    device = read_config(context.node_config)
    task = task_of(device)
    samples = materialise(task.data, "data")
    model = task.model()
    model.load_state_dict(arrays.to_torch_state_dict())
    order = torch.from_numpy(seeded(device.seed, device.name, config[ROUND]).permutation(len(samples)))
    optimizer = task.optimizer(model.parameters())
    if context.run_config[KEEP]:
        restore(optimizer, context.state)
    await_orders(context.node_config)
    began_s = time.monotonic()
    train_epoch(task, model, optimizer, samples, order)
    span = Span(began_s=began_s, ended_s=time.monotonic(), flops=len(samples) * int(str(config[FLOPS])))
    if context.run_config[KEEP]:
        context.state[OPTIMIZER] = saved(optimizer)
    say(context.node_config, Computed(spans=(span,)))
    content = {ARRAYS: ArrayRecord(model.state_dict()), METRICS: MetricRecord({SAMPLES: len(samples)})}
    return Message(content=RecordDict(content), reply_to=message)


def train_epoch(
    task: Task, model: torch.nn.Module, optimizer: torch.optim.Optimizer, samples: SampleSet, order: torch.Tensor
) -> None:
    """One pass over `samples` in this `order` of their indices."""
    model.train()
    for rows in torch.split(order, task.batch_size):
        optimizer.zero_grad()
        task.loss(model(samples.inputs[rows]), samples.labels[rows]).backward()
        optimizer.step()


def saved(optimizer: torch.optim.Optimizer) -> ArrayRecord:
    """What the optimiser remembers of its parameters, as "parameter/name": momentum, step counts."""
    state = optimizer.state_dict()["state"]
    tensors = {f"{index}/{name}": value for index, of in state.items() for name, value in of.items()}
    return ArrayRecord({name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)})


def restore(optimizer: torch.optim.Optimizer, state: RecordDict) -> None:
    """Take up what `saved` gave at the end of the last round, if there was one."""
    if OPTIMIZER not in state:
        return
    record = state[OPTIMIZER]
    assert isinstance(record, ArrayRecord)
    remembered: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in record.to_torch_state_dict().items():
        index, _, name = key.partition("/")
        remembered.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": remembered})
