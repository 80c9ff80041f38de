"""Whether a task's network, loss and data fit together, found out before anything is trained: `check_model` and
`tried`."""

import copy

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from crowd.errors import BadConfig
from crowd.learning.samples import SampleSet, repeated
from crowd.learning.task import Task


def check_model(task: Task, model: torch.nn.Module, samples: SampleSet, what: str) -> None:
    """Raise `BadConfig` unless the model is a float32 one on the CPU that takes a batch of `samples`, which `what`
    names. `model` is left as it is."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise BadConfig("the network has no parameters to train")
    for name, tensor in tensors:
        if is_lazy(tensor):
            raise BadConfig(f"{name} of the network has no shape yet: run a batch through it in the task's model()")
        if tensor.device.type != "cpu" or (tensor.is_floating_point() or tensor.is_complex()) != (
            tensor.dtype == torch.float32
        ):
            raise BadConfig(f"{name} of the network is {tensor.dtype} on {tensor.device}; expected float32 on the CPU")
    # With the largest label, or the loss would refuse it only in the middle of the training.
    rows = [
        *range(min(len(samples), task.batch_size) - 1),
        int(samples.labels.reshape(len(samples), -1)[:, 0].argmax()),
    ]
    trained = _forward_and_backward(task, model, samples.inputs[rows], samples.labels[rows], what)
    _check_accuracy(trained, samples, rows, what)


def _forward_and_backward(
    task: Task, model: torch.nn.Module, inputs: Tensor, labels: Tensor, what: str
) -> torch.nn.Module:
    """Train on these samples as far as the gradient, on a copy of the model, which is returned; `BadConfig` names the
    layer that fails."""
    tried = copy.deepcopy(model).train()
    if len(inputs) == 1:
        rest_batch_norm(tried)
    entered = [""]
    for name, layer in tried.named_modules():
        if not list(layer.children()):
            layer.register_forward_pre_hook(
                lambda layer, _, name=name: entered.append(f"{name} ({type(layer).__name__})")
            )
    sample = f"{what} of shape {tuple(inputs.shape[1:])} and {inputs.dtype}"
    try:
        outputs = tried(inputs)
    except Exception as error:  # whatever a user's network raises, it does not fit the data
        raise BadConfig(f"the network cannot take {sample}: layer {entered[-1]}: {_first_line(error)}") from error
    try:
        loss = task.loss(outputs, labels)
        loss.backward()
    except Exception as error:  # as above, for the loss
        raise BadConfig(
            f"the loss cannot take outputs of shape {tuple(outputs.shape)} and {what} labels of shape "
            f"{tuple(labels.shape)} and {labels.dtype}: {_first_line(error)}"
        ) from error
    return tried


@torch.no_grad()
def _check_accuracy(model: torch.nn.Module, samples: SampleSet, rows: list[int], what: str) -> None:
    """Raise `BadConfig` unless `evaluation.evaluate` can tell how many of such samples the model gets right, and any of
    them could be."""
    outputs, labels = model.eval()(samples.inputs[rows]), samples.labels[rows]
    shape, classes = tuple(outputs.shape), outputs.shape[-1] if outputs.dim() else 0
    if classes < 2 or shape[:-1] != tuple(labels.shape) or labels.is_floating_point():
        raise BadConfig(
            "only classification can be trained: expected outputs (batch, ..., classes) of 2 classes or more and class "
            f"numbers (batch, ...) as labels, found outputs {shape} and {what} labels {tuple(labels.shape)} "
            f"{labels.dtype}{_for_two_classes(classes)}"
        )
    outside = ((samples.labels < 0) | (samples.labels >= classes)).reshape(len(samples), -1).any(dim=1)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise BadConfig(
            f"label of {what}[{row}] is {samples.labels[row].tolist()}, but the network has {classes} outputs: "
            f"expected 0 to {classes - 1}"
        )


def _for_two_classes(outputs: int) -> str:
    return "; for two classes let the network have 2 outputs and use cross_entropy as the loss" if outputs == 1 else ""


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def tried(task: Task, model: torch.nn.Module, trial: SampleSet) -> tuple[frozenset[str], int]:
    """What one whole batch shows, however many samples are here: the names of the buffers that training changes, and
    the FLOP of a forward and backward pass of one sample, at least 1."""
    batch = repeated(trial, task.batch_size)
    with FlopCounterMode(display=False) as counter:
        trained = _forward_and_backward(task, model, batch.inputs, batch.labels, "samples")
    after = dict(trained.named_buffers())
    changed = (name for name, buffer in model.named_buffers() if not _is_same(buffer, after[name]))
    return frozenset(changed), max(1, int(counter.get_total_flops()) // task.batch_size)


def _is_same(before: Tensor, after: Tensor) -> bool:
    return before.shape == after.shape and bool(((before == after) | (before.isnan() & after.isnan())).all())


def rest_batch_norm(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Switch batch normalisation to its running statistics, as one sample has none; returns what was switched."""
    resting: list[torch.nn.Module] = [
        module for module in model.modules() if isinstance(module, _BatchNorm) and module.training
    ]
    for module in resting:
        module.eval()
    return resting
