"""Whether a task's network, loss, metric, optimiser and data fit together, found out before anything is trained:
`made`, `try_out` and `check_new`."""

import math
from collections.abc import Callable, Mapping

import attrs
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from crowd.errors import BadConfig
from crowd.learning.augment import augmented
from crowd.learning.flops import FlopCounter
from crowd.learning.module_facts import ModuleCounter, ModuleWork
from crowd.learning.samples import SampleSet, repeated
from crowd.learning.schedule import Rates
from crowd.learning.task import Task
from crowd.metrics import NUMBERS_MAX, Accuracy, ignored_label
from crowd.user_code import blamed_on, place_and_cause

_FLOAT64 = "; networks are float32: convert the inputs, as by .float() or numpy's .astype('float32')"
_NO_GRADIENT = (
    "no parameter of the network gets a gradient from the loss: look for detach(), item() or no_grad() in forward and "
    "in the loss"
)
_HOW_TO_IGNORE = "; if the loss ignores a label, it must say which: by its attribute ignore_index"


@attrs.frozen(kw_only=True)
class Trial:
    """What a few batches have shown."""

    changed: frozenset[str]
    """Names of the network's buffers that training changes."""
    flops_per_sample: int
    """Work of a forward and backward pass of one sample, in FLOP, at least 1."""
    module_work: ModuleWork
    """What one batch took, module by module."""
    metric_numbers: int
    """Numbers that the sums of the task's metric consist of."""


def made(task: Task) -> torch.nn.Module:
    """A network of the task's. Raises `BadConfig` if its function fails, or makes something else."""
    with blamed_on("the task's model() failed"):
        model = task.model()
    if not isinstance(model, torch.nn.Module):
        raise BadConfig(f"the task's model() returned a {type(model).__name__}; expected a torch.nn.Module")
    return model


def made_optimizer(task: Task, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The task's optimiser of the model's parameters. Raises `BadConfig` like `made`."""
    with blamed_on("the task's optimizer() failed"):
        optimizer = task.optimizer(model.parameters())
    if not isinstance(optimizer, torch.optim.Optimizer):
        found = type(optimizer).__name__
        raise BadConfig(f"the task's optimizer() returned a {found}; expected a torch.optim.Optimizer")
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if held.isdisjoint(map(id, model.parameters())):
        raise BadConfig("the task's optimizer() has none of the network's parameters: make it of those it is given")
    return optimizer


def try_out(task: Task, model: torch.nn.Module, sets: Mapping[str, SampleSet], typical: SampleSet) -> Trial:
    """Train and evaluate `model`, which is not to be used afterwards, on a batch of each of `sets`, by what they are,
    and on a whole batch of `typical` samples, however many of them are here. Raises `BadConfig`, in one line, unless
    all fit together."""
    _check_tensors(model)
    _check_loss(task.loss)
    _check_batches(model, task.batch_size)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    kinds, parameters = _kinds(model), dict(model.named_parameters())
    optimizer = made_optimizer(task, model)
    Rates(task, optimizer).follow(0)
    passes = _Passes(task, model)
    numbers = {_try(passes, samples, what) for what, samples in sets.items() if len(samples)}
    if len(numbers) > 1:
        raise BadConfig(f"the metric {task.metric.name} must have the same number of sums for every batch")
    batch = repeated(typical, task.batch_size)
    with FlopCounter() as counter, ModuleCounter(model, lambda: counter.total) as modules:
        passes.train(batch.inputs, batch.labels, "samples")
    with blamed_on(f"the optimiser {type(optimizer).__name__} cannot step"):
        optimizer.step()
    _check_kinds(kinds, _kinds(model))
    for name, parameter in model.named_parameters():
        if parameter is not parameters[name]:
            raise BadConfig(f"{name} of the network is another tensor after a forward pass, which no optimiser trains")
    changed = (name for name, buffer in model.named_buffers() if not _is_same(before[name], buffer))
    return Trial(
        changed=frozenset(changed),
        flops_per_sample=counter.flops_per_sample(task.batch_size, model),
        module_work=modules.work(task.batch_size),
        metric_numbers=numbers.pop(),
    )


def check_new(first: torch.nn.Module, second: torch.nn.Module, changed: frozenset[str]) -> dict[str, Tensor]:
    """The constants of two networks of a task, made with the same random numbers: the buffers that are not `changed` by
    training, and tensors that are plain attributes, by name.

    Raises `BadConfig` if they differ, or if the two networks, which training changes apart from one another, share what
    it changes: their trainable parameters, and the buffers called `changed`.
    """

    def places(model: torch.nn.Module) -> dict[int, str]:
        trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        buffers = [(name, buffer) for name, buffer in model.named_buffers() if name in changed]
        return {tensor.data_ptr(): name for name, tensor in (*trained, *buffers) if tensor.numel()}

    earlier = places(first)
    shared = [name for place, name in places(second).items() if place in earlier]
    if shared:
        raise BadConfig(f"the task's model() returned the same {shared[0]} twice: make a new network each time")
    constants, others = _constants(first, changed), _constants(second, changed)
    constants = {name: tensor for name, tensor in constants.items() if name in others}
    for name, tensor in constants.items():
        if tensor.shape != others[name].shape or not _is_same(tensor, others[name]):
            raise BadConfig(
                f"{name} of the network, which training leaves as it is, is another whenever the network is made, and "
                "so would be on each device: draw it with torch's own random numbers, which are alike everywhere, or "
                "read it from a file"
            )
    return constants


def _constants(model: torch.nn.Module, changed: frozenset[str]) -> dict[str, Tensor]:
    """By name; not what is worked out of parameters, as normalised weights are."""
    attributes = (
        (f"{name}.{attribute}".lstrip("."), value)
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, Tensor) and not value.requires_grad
    )
    return dict(attributes) | {name: buffer for name, buffer in model.named_buffers() if name not in changed}


def rest_batch_norm(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Switch batch normalisation to its running statistics, as one sample has none; returns what was switched."""
    resting: list[torch.nn.Module] = [
        module for module in model.modules() if isinstance(module, _BatchNorm) and module.training
    ]
    for module in resting:
        module.eval()
    return resting


# --- the network ------------------------------------------------------------------------------------------------------


def _check_tensors(model: torch.nn.Module) -> None:
    """Raise `BadConfig` unless the model has something to train, all of it float32 on the CPU."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise BadConfig("the network has no parameters to train")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise BadConfig(f"{name} of the network has no shape yet: run a batch through it in the task's model()")
        if tensor.device.type != "cpu" or (tensor.is_floating_point() or tensor.is_complex()) != (
            tensor.dtype == torch.float32
        ):
            raise BadConfig(f"{name} of the network is {tensor.dtype} on {tensor.device}; expected float32 on the CPU")


def _check_batches(model: torch.nn.Module, batch_size: int) -> None:
    """Raise `BadConfig` if no batch is large enough to be normalised."""
    normalising = (name for name, module in model.named_modules() if isinstance(module, _BatchNorm))
    if batch_size == 1 and (name := next(normalising, None)) is not None:
        raise BadConfig(f"batch_size is 1, but layer {name} normalises over a batch: expected 2 or more")


def _kinds(model: torch.nn.Module) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors}


def _check_kinds(
    before: Mapping[str, tuple[tuple[int, ...], torch.dtype]], after: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
) -> None:
    """Raise `BadConfig` unless the network has the same tensors as before it was used."""
    for name in sorted({*before, *after}):
        if name not in before:
            raise BadConfig(f"{name} of the network is made by its first forward pass: make it in __init__")
        if name not in after:
            raise BadConfig(f"{name} of the network is gone after a forward pass: leave its tensors as they are")
        if before[name] != after[name]:
            (shape, dtype), (other_shape, other_dtype) = before[name], after[name]
            raise BadConfig(
                f"{name} of the network changes from {shape} {dtype} to {other_shape} {other_dtype} in a forward pass: "
                "leave shapes and dtypes as they are"
            )


def _is_same(before: Tensor, after: Tensor) -> bool:
    return bool(((before == after) | (before.isnan() & after.isnan())).all())


# --- the loss ---------------------------------------------------------------------------------------------------------


def _check_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Raise `BadConfig` if the loss has something to train, which no optimiser would get."""
    if isinstance(loss, torch.nn.Module):
        for name, parameter in loss.named_parameters():
            if parameter.requires_grad:
                raise BadConfig(
                    f"{name} of the loss would be trained by nobody: make it a part of the network, or a constant by "
                    "requires_grad_(False)"
                )


def _check_value(loss: object) -> None:
    """Raise `BadConfig` unless this, of a batch, can be trained with."""
    if not isinstance(loss, Tensor):
        raise BadConfig(f"the loss is a {type(loss).__name__}; expected one number, as a tensor")
    if loss.numel() != 1:
        raise BadConfig(f"the loss is a tensor of shape {tuple(loss.shape)}; expected one number, as by .mean()")
    if not loss.requires_grad:
        raise BadConfig(_NO_GRADIENT)


# --- forward and backward ---------------------------------------------------------------------------------------------


class _Passes:
    """Passes of some samples through a network. `BadConfig` names the layer that fails."""

    def __init__(self, task: Task, model: torch.nn.Module) -> None:
        self.task = task
        self._model = model
        self._entered = ""
        for name, layer in model.named_modules():
            if not list(layer.children()) and not isinstance(layer, torch.jit.ScriptModule):  # which takes no hooks
                layer.register_forward_pre_hook(lambda layer, _, name=name: self._enter(name, layer))

    def _enter(self, name: str, layer: torch.nn.Module) -> None:
        self._entered = f": layer {name} ({type(layer).__name__})" if name else ""

    def forward(self, inputs: Tensor, what: str) -> Tensor:
        """The outputs (batch, …) for some `inputs`, of `what`."""
        self._entered = ""
        try:
            outputs = self._model(inputs)
        except Exception as error:  # whatever a user's network raises, it does not fit the data
            sample = f"{what} of shape {tuple(inputs.shape[1:])} and {inputs.dtype}"
            hint = _FLOAT64 if inputs.dtype == torch.float64 else ""
            raise BadConfig(
                f"the network cannot take {sample}{self._entered}: {place_and_cause(error)}{hint}"
            ) from error
        if not isinstance(outputs, Tensor):
            raise BadConfig(f"the network's output is a {type(outputs).__name__}; expected one tensor (batch, …)")
        return outputs

    def train(self, inputs: Tensor, labels: Tensor, what: str) -> float:
        """Train as far as the gradient; returns the loss."""
        self._model.train()
        resting = rest_batch_norm(self._model) if len(inputs) == 1 else []
        outputs = self.forward(inputs, what)
        try:
            loss = self.task.loss(outputs, labels)
            _check_value(loss)
            loss.backward()
        except BadConfig:
            raise
        except Exception as error:  # as above, for the loss
            raise BadConfig(
                f"the loss cannot take outputs of shape {tuple(outputs.shape)} and {what} labels of shape "
                f"{tuple(labels.shape)} and {labels.dtype}: {place_and_cause(error)}"
            ) from error
        for module in resting:
            module.train()
        if all(parameter.grad is None for parameter in self._model.parameters()):
            raise BadConfig(_NO_GRADIENT)
        return loss.item()

    @torch.no_grad()
    def evaluate(self, inputs: Tensor, what: str) -> Tensor:
        """The outputs (batch, …) in evaluation mode."""
        self._model.eval()
        return self.forward(inputs, what)


def _try(passes: _Passes, samples: SampleSet, what: str) -> int:
    """Try a batch of `samples`, of which there are some; returns how many numbers the metric's sums have."""
    # With the largest label, or the loss would refuse it only in the middle of the training.
    largest = int(samples.labels.reshape(len(samples), -1)[:, 0].argmax())
    others = [row for row in range(min(len(samples), passes.task.batch_size)) if row != largest]
    rows = [largest, *others[: passes.task.batch_size - 1]]
    batch = SampleSet(samples.inputs[rows], samples.labels[rows])
    loss = passes.train(*augmented(passes.task, batch.inputs.clone(), batch.labels.clone(), torch.Generator()), what)
    numbers = _try_metric(passes.task, passes.evaluate(batch.inputs, what), samples, batch.labels, what)
    if len(rows) > 1 and not math.isfinite(loss):  # of one sample there is no deviation, by which a network may divide
        raise BadConfig(
            f"the loss of the untrained network on {what} is {loss}: look for a division by zero or a logarithm of "
            "zero in the network or the loss"
        )
    return numbers


@torch.no_grad()
def _try_metric(task: Task, outputs: Tensor, samples: SampleSet, labels: Tensor, what: str) -> int:
    """Measure `outputs`, for samples with these `labels`, by the task's metric; returns how many numbers its sums have.
    Raises `BadConfig` if it cannot, or if some of all `samples` have labels that no output stands for."""
    metric = task.metric.with_loss(task.loss)
    try:
        sums = metric.sums(outputs, labels)
        if sums.dim() != 1 or not 0 < len(sums) <= NUMBERS_MAX:
            raise BadConfig(
                f"its sums are of shape {tuple(sums.shape)}; expected 1 to {NUMBERS_MAX} numbers, which travel in "
                "every round: choose a metric with fewer"
            )
        if len(labels) > 1:
            float(metric.value(sums.double()))
    except BadConfig as error:
        hint = "" if metric.name != Accuracy.name else "; without classes choose another metric, Task(metric=…)"
        raise BadConfig(f"the metric {metric.name} cannot take {what}: {error}{hint}") from error
    except Exception as error:  # whatever a user's metric raises, it does not fit outputs and labels
        raise BadConfig(
            f"the metric {metric.name} cannot take outputs of shape {tuple(outputs.shape)} and {what} labels of shape "
            f"{tuple(labels.shape)} and {labels.dtype}: {place_and_cause(error)}"
        ) from error
    classes = metric.classes(outputs, labels)
    if classes is not None:
        _check_classes(samples, classes, what, ignored_label(task.loss))
    return len(sums)


def _check_classes(samples: SampleSet, classes: int, what: str, ignored: int | None) -> None:
    """Raise `BadConfig` if some labels are no classes; but of several of one sample some may be `ignored`."""
    is_ignored = torch.zeros_like(samples.labels, dtype=torch.bool) if ignored is None else samples.labels == ignored
    useless = is_ignored.reshape(len(samples), -1).all(dim=1)
    if bool(useless.any()):
        row = int(useless.nonzero()[0])
        raise BadConfig(
            f"label of {what}[{row}] is {samples.labels[row].tolist()}, which the loss ignores (ignore_index): leave "
            "such samples out"
        )
    outside = ((samples.labels < 0) | (samples.labels >= classes)) & ~is_ignored
    outside = outside.reshape(len(samples), -1).any(dim=1)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        hint = "" if ignored is not None or samples.labels.dim() == 1 else _HOW_TO_IGNORE
        raise BadConfig(
            f"label of {what}[{row}] is {samples.labels[row].tolist()}, but the network has {classes} outputs: "
            f"expected 0 to {classes - 1}{hint}"
        )
