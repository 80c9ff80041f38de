"""The work of one device: `prepare` turns a user's task into data and facts, `LocalTrainer` does the local steps."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from crowd.errors import BadConfig, TrainingDiverged
from crowd.learning import replica
from crowd.learning.description import described
from crowd.learning.evaluation import evaluate
from crowd.learning.fingerprint import fingerprint
from crowd.learning.importance import draw, losses
from crowd.learning.pool import EpochSampler, TrainingPool
from crowd.learning.replica import Layout
from crowd.learning.samples import SampleSet, holdout, materialise, plausible, repeated, seeded
from crowd.learning.shards import SampleStore
from crowd.learning.task import Task
from crowd.planning.plan import GROUP_BATCHES
from crowd.planning.profile import TaskFacts
from crowd.units import DeviceId, ceil_div


@attrs.frozen(kw_only=True, eq=False)
class Work:
    """A task on this device, with its data in memory."""

    store: SampleStore
    """This device's own training samples."""
    evaluation: SampleSet
    """The common evaluation set; without one, what this device held out of its own."""
    trial: SampleSet
    """Samples to try the network on: this device's own, where it has any; they may be fewer than a batch."""
    layout: Layout
    facts: TaskFacts
    """The facts about the task that planning needs."""


def prepare(task: Task, *, device: DeviceId, data_epoch: int) -> Work:
    """Read the task's data, hold out a tenth where it has no evaluation set, and check that everything fits together.
    Raises `BadConfig`, in one line, if something does not."""
    loss = described(task.loss)  # before anything is tried with it
    common = None if task.evaluation is None else materialise(task.evaluation, "evaluation")
    own = materialise(task.data, "data", like=None if common is None else common.format)
    training, evaluation = (own, common) if common is not None else holdout(own, device=device, data_epoch=data_epoch)
    model = task.model()
    for what, samples in (("data", own), ("evaluation", evaluation)):
        if len(samples):
            check_model(task, model, samples, what)
    trial = next((samples for samples in (own, evaluation) if len(samples)), plausible(own.format, task.batch_size))
    changed, flops_per_sample = _tried(task, model, trial)
    layout = Layout.of(model, changed)
    return Work(
        store=SampleStore(training, device=device, data_epoch=data_epoch),
        evaluation=evaluation,
        trial=trial,
        layout=layout,
        facts=TaskFacts(
            fingerprint=fingerprint(task, model, own.format, common, layout, loss),
            state_elements=layout.elements,
            flops_per_sample=flops_per_sample,
            sample_bytes=own.format.sample_bytes,
            batch_size=task.batch_size,
            evaluation_samples=0 if common is None else len(common),
            epochs_max=task.epochs_max,
        ),
    )


def starting_model(task: Task, *, seed: int, run: int) -> torch.nn.Module:
    """The task's network as `run` begins with it: where `seed` and the processors are alike, the same on every device,
    so that none has to send it. The process's own random numbers go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seeded("model", seed, run).integers(1 << 63)))
        return task.model()


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
    _forward_and_backward(task, model, samples.inputs[rows], samples.labels[rows], what)


def _forward_and_backward(
    task: Task, model: torch.nn.Module, inputs: Tensor, labels: Tensor, what: str
) -> torch.nn.Module:
    """Train on these samples as far as the gradient, on a copy of the model, which is returned; `BadConfig` names the
    layer that fails."""
    tried = copy.deepcopy(model).train()
    if len(inputs) == 1:
        _rest_batch_norm(tried)
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


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _tried(task: Task, model: torch.nn.Module, trial: SampleSet) -> tuple[frozenset[str], int]:
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


def _rest_batch_norm(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Switch batch normalisation to its running statistics, as one sample has none; returns what was switched."""
    resting: list[torch.nn.Module] = [
        module for module in model.modules() if isinstance(module, _BatchNorm) and module.training
    ]
    for module in resting:
        module.eval()
    return resting


# --- local steps ------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class StepReport:
    """The outcome of a piece of local training."""

    samples: int
    """Samples trained."""
    steps: int
    """Optimiser steps made."""
    loss_sum: float
    """Sum over the steps of the mean loss of the batch."""


@attrs.frozen(kw_only=True)
class StepConfig:
    """The settings of a local step."""

    batch_size: int
    """Samples of one step."""
    proximal: float = 0.0
    """Factor of the distance from the start that is added to the gradient (FedProx, arXiv 1812.06127, equation 2)."""
    chance: np.random.Generator | None = None
    """Generator that draws each batch by importance from a group of `GROUP_BATCHES`; `None`: batches are taken as they
    come."""


class LocalTrainer:
    """A model and its (inner) optimiser; nothing else changes them. The optimiser must step without a closure. Without
    `executes` (see `Compute`) samples are dealt out and none is trained."""

    def __init__(self, task: Task, model: torch.nn.Module, layout: Layout, *, executes: bool = True) -> None:
        self._task = task
        self._layout = layout
        self.executes = executes
        self.model = model
        self._optimizer = task.optimizer(model.parameters())
        self._normalises = any(isinstance(module, _BatchNorm) for module in model.modules())
        self._step_config = StepConfig(batch_size=task.batch_size)
        self._start, _ = replica.from_model(model, layout)

    def load(self, state: replica.ReplicaState, step_config: StepConfig | None = None) -> None:
        """Start from `state`, and step by `step_config` (`None`: plainly, in the task's batches); the optimiser's own
        state stays."""
        replica.load(self.model, state)
        self._start = state.vector
        self._step_config = step_config or StepConfig(batch_size=self._task.batch_size)

    def steps(
        self,
        pool: TrainingPool,
        sampler: EpochSampler,
        samples_quota: int,
        stop: Callable[[], bool],
        *,
        steps_max: int | None = None,
    ) -> StepReport:
        """Train the samples of `pool`, which must be ready, until the quota is met, `steps_max` steps are made, or
        `stop()` says so between two steps.

        Raises `TrainingDiverged` when a loss is not finite; the model is then not to be used.
        """
        samples = steps = 0
        loss_sum = 0.0
        step_config = self._step_config
        group = 1 if step_config.chance is None else GROUP_BATCHES
        self.model.train()
        while samples < samples_quota and steps != steps_max and not stop():
            size = min(step_config.batch_size, samples_quota - samples)
            rows = sampler.take(group * size)
            size = ceil_div(len(rows), group)
            value = self._step(size, *pool.batch(rows)) if self.executes else 0.0
            if not math.isfinite(value):
                raise TrainingDiverged(
                    f"the loss became {value} in step {steps + 1} of this round: lower the learning rate"
                )
            samples += size
            steps += 1
            loss_sum += value
        return StepReport(samples=samples, steps=steps, loss_sum=loss_sum)

    def _step(self, size: int, inputs: Tensor, labels: Tensor) -> float:
        """Make one optimiser step on `size` of these samples; returns the batch's mean loss."""
        weights: Tensor | None = None
        if self._step_config.chance is not None:
            drawn, weights = self._draw(size, inputs, labels, self._step_config.chance)
            inputs, labels = inputs[drawn], labels[drawn]
        resting = _rest_batch_norm(self.model) if len(inputs) == 1 and self._normalises else []
        self._optimizer.zero_grad()
        outputs = self.model(inputs)
        if weights is None:
            loss = self._task.loss(outputs, labels)
        else:
            loss = (weights * losses(self._task, outputs, labels)).mean()
        loss.backward()
        if self._step_config.proximal:
            self._pull_back(self._step_config.proximal)
        self._optimizer.step()
        for module in resting:
            module.train()
        return loss.item()

    @torch.no_grad()
    def _draw(self, size: int, inputs: Tensor, labels: Tensor, chance: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw `size` samples by importance, as the model is now, without batch normalisation noticing."""
        self.model.eval()
        values = losses(self._task, self.model(inputs), labels)
        self.model.train()
        return draw(values, size, chance)

    @torch.no_grad()
    def _pull_back(self, proximal: float) -> None:
        place = 0
        for parameter in self.model.parameters():
            start = self._start[place : place + parameter.numel()].view(parameter.shape)
            place += parameter.numel()
            if parameter.grad is not None:
                parameter.grad += proximal * (parameter - start)

    def evaluate(self, samples: SampleSet) -> tuple[int, int]:
        """Evaluate the model on `samples`: `(correct, evaluated)`, both 0 without `executes`. Raises `BadConfig` like
        `evaluation.evaluate`."""
        if not self.executes or not len(samples):
            return 0, 0
        return evaluate(self.model, samples.inputs, samples.labels), len(samples)

    def delta(self) -> Tensor:
        """What was trained since `load`: (elements,) float32, its own memory."""
        return replica.from_model(self.model, self._layout)[0].sub_(self._start)

    def parameters(self) -> Tensor:
        """As they are now, statistics included: (elements,) float32, its own memory."""
        return replica.from_model(self.model, self._layout)[0]

    def mix(self, others: Iterable[tuple[Tensor, float]]) -> None:
        """Take in the parameters (elements,) float32 of others, each with its weight; the own ones keep the rest of
        1."""
        own = self.parameters()
        mixed, rest = torch.zeros_like(own), 1.0
        for theirs, weight in others:
            mixed += weight * theirs
            rest -= weight
        replica.load_vector(self.model, mixed.add_(rest * own), self._layout)

    def counters(self) -> tuple[int, ...]:
        """The model's integer buffers as they are now."""
        return replica.from_model(self.model, self._layout)[1]

    def snapshot(self) -> dict[str, Any]:
        """A deep copy of the optimiser's state."""
        return copy.deepcopy(self._optimizer.state_dict())

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Return the optimiser to `snapshot`, which stays as it is and may be restored again."""
        self._optimizer.load_state_dict(copy.deepcopy(snapshot))
