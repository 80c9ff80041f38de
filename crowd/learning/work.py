"""The work of one device: `prepare` turns a user's task into data and facts, `LocalTrainer` does the local steps."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from crowd.errors import TrainingDiverged
from crowd.learning import replica
from crowd.learning.augment import augmented
from crowd.learning.description import described
from crowd.learning.evaluation import NOTHING, Evaluation
from crowd.learning.fingerprint import fingerprint
from crowd.learning.importance import draw, losses, shares
from crowd.learning.layout import Layout, Role
from crowd.learning.module_facts import module_facts
from crowd.learning.own_data import DataSet, OwnData
from crowd.learning.placement import CPU, Placement
from crowd.learning.pool import EpochSampler, TrainingPool
from crowd.learning.quality import Quality, evaluate
from crowd.learning.samples import SampleSet, materialise, seeded
from crowd.learning.schedule import Rates
from crowd.learning.task import Task
from crowd.learning.trial import check_new, made, made_optimizer, rest_batch_norm, try_out
from crowd.planning.plan import GROUP_BATCHES
from crowd.planning.profile import TaskFacts
from crowd.units import ceil_div
from crowd.user_code import blamed_on


@attrs.frozen(kw_only=True, eq=False)
class Work:
    """A task on this device, with its data in memory."""

    own: OwnData
    """This device's data."""
    layout: Layout
    counters: int
    """Integers that training changes in the network's buffers."""
    quality: Quality
    facts: TaskFacts
    """The facts about the task that planning needs."""


def prepare(task: Task, *, memory_bytes: int | None = None) -> Work:
    """Read the task's data, hold out about a tenth where it has no evaluation set, and check that everything fits
    together, the data into `memory_bytes` (`None`: whatever there is). Raises `BadConfig`, in one line, if something
    does not."""
    loss = described(task.loss)  # before anything is tried with it
    common = None
    if task.evaluation is not None:
        common = materialise(task.evaluation, "evaluation", memory_bytes=memory_bytes)
        memory_bytes = None if memory_bytes is None else memory_bytes - len(common) * common.format.sample_bytes
    like = None if common is None else common.format
    # what is held out is copied, and so is the rest
    own = materialise(task.data, "data", like=like, memory_bytes=memory_bytes, copies=2 if common is None else 1)
    first = DataSet.of(own, common, task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = made(task)
        # what is common to all devices shows the same on all of them
        sets = {"data": own, "evaluation": first.evaluation}
        shown = try_out(task, model, sets, first.trial if common is None else common)
        torch.manual_seed(0)
        new = made(task)
        constants = check_new(model, new, shown.changed)
    layout = Layout.of(model, shown.changed)
    return Work(
        own=OwnData(first),
        layout=layout,
        counters=sum(buffer.numel() for buffer in layout.counting_tensors(model)),
        quality=Quality(
            metric=task.metric.with_loss(task.loss),
            numbers=shown.metric_numbers,
            label_elements=own.format.label_elements,
        ),
        facts=TaskFacts(
            fingerprint=fingerprint(task, new, own.format, common, layout, constants, loss),
            state_elements=layout.elements,
            statistics=layout.pieces(0, layout.elements).statistics_elements,
            flops_per_sample=shown.flops_per_sample,
            sample_bytes=own.format.sample_bytes,
            batch_size=task.batch_size,
            evaluation_samples=0 if common is None else len(common),
            epochs_max=task.epochs_max,
            modules=module_facts(layout, shown.module_work, shown.flops_per_sample),
        ),
    )


def network_of(task: Task) -> torch.nn.Module:
    """The task's network with the constants that all devices have in common, whatever their seeds: the fingerprint
    tells of these. The process's own random numbers go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return made(task)


def starting_model(task: Task, layout: Layout, *, seed: int, run: int) -> torch.nn.Module:
    """The task's network as `run` begins with it: where `seed` and the processors are alike, the same on every device,
    so that none has to send it. Its constants are those of `network_of`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seeded("model", seed, run).integers(1 << 63)))
        drawn = made(task)
    model = network_of(task)
    replica.load(model, replica.initial(drawn, run, layout))
    return model


# --- local steps ------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class StepReport:
    """The outcome of a piece of local training."""

    samples: int
    """Samples trained."""
    steps: int
    """Optimiser steps made."""
    loss_sum: float
    """Sum over the steps of the mean loss of the batch, times its samples."""


@attrs.frozen(kw_only=True)
class StepConfig:
    """The settings of a local step."""

    proximal: float = 0.0
    """Factor of the distance from the start that is added to the gradient (FedProx, arXiv 1812.06127, equation 2)."""
    chance: np.random.Generator | None = None
    """Generator that draws each batch by importance from a group of `GROUP_BATCHES`; `None`: batches are taken as they
    come."""

    @property
    def group(self) -> int:
        """Samples among which each sample of a step is drawn."""
        return 1 if self.chance is None else GROUP_BATCHES


class LocalTrainer:
    """A model and its (inner) optimiser, which are where `placement` says; nothing else changes them. Without
    `executes` (see `Compute`) samples are dealt out and none is trained; `measuring`, only the time that steps take
    matters, and no loss is wrong."""

    def __init__(
        self,
        task: Task,
        model: torch.nn.Module,
        layout: Layout,
        *,
        placement: Placement = CPU,
        executes: bool = True,
        measuring: bool = False,
    ) -> None:
        self._task = task
        self._metric = task.metric.with_loss(task.loss)
        self._layout = layout
        self._placement = placement
        self.executes = executes
        self._measuring = measuring
        self.model = placement.place(model)
        self._optimizer = made_optimizer(task, self.model)
        self._rates = Rates(task, self._optimizer)
        self._normalises = any(isinstance(module, _BatchNorm) for module in model.modules())
        self._step_config = StepConfig()
        self._start, _ = replica.from_model(self.model, layout, placement)
        self._anchor: Tensor | None = None
        """The start, (elements,) float32, where the model is; `None`: nothing pulls towards it."""

    def load(self, state: replica.ReplicaState, step_config: StepConfig | None = None) -> None:
        """Start from `state`, and step by `step_config` (`None`: plainly); the optimiser's own state stays, but for
        the learning rate, if that follows a schedule."""
        replica.load(self.model, state, self._placement)
        self._rates.follow(state.epochs_ppb)
        self._start = state.vector
        self._step_config = step_config or StepConfig()
        self._anchor = self._placement.there(state.vector) if self._step_config.proximal else None

    def steps(
        self, pool: TrainingPool, sampler: EpochSampler, batches: Sequence[int], stop: Callable[[], bool]
    ) -> StepReport:
        """Make a step for each of `batches`, the sizes of what `sampler` deals out of `pool`, which must be ready; or
        fewer if `stop()` says so between two steps.

        Raises `TrainingDiverged` when a loss is not finite; the model is then not to be used.
        """
        samples = steps = 0
        loss_sum = 0.0
        group = self._step_config.group
        sizes = [group * size for size in batches]
        if not self.executes:
            for size in sizes:
                if stop():
                    break
                samples += ceil_div(len(sampler.take(size)), group)
                steps += 1
            return StepReport(samples=samples, steps=steps, loss_sum=0.0)
        dealt = pool.deal(sampler, sizes)
        self.model.train()
        with blamed_on("a training step failed"):
            while not stop() and (batch := next(dealt, None)) is not None:
                inputs, labels = batch
                size = ceil_div(labels.shape[0], group)
                value = self._step(size, inputs, labels, sampler)
                if not math.isfinite(value) and not self._measuring:
                    raise TrainingDiverged(
                        f"the loss became {value} in step {steps + 1} of this round: lower the learning rate"
                    )
                samples += size
                steps += 1
                loss_sum += value * size
        return StepReport(samples=samples, steps=steps, loss_sum=loss_sum)

    def _step(self, size: int, inputs: Tensor, labels: Tensor, sampler: EpochSampler) -> float:
        """Make one optimiser step on `size` of these samples, which `sampler` dealt last; returns the batch's mean
        loss."""
        if self._task.augment is not None:
            inputs, labels = augmented(self._task, inputs, labels, sampler.generator())
        known, chance = labels, self._step_config.chance
        inputs, labels = self._placement.there(inputs), self._placement.there(labels)
        weights: Tensor | None = None
        if chance is not None:
            drawn, weights = self._draw(size, inputs, labels, shares(self._task.loss, known), chance)
            inputs, labels = inputs[drawn], labels[drawn]
        resting = rest_batch_norm(self.model) if size == 1 and self._normalises else []
        self._optimizer.zero_grad()
        outputs = self.model(inputs)
        if weights is None:
            loss = self._task.loss(outputs, labels)
        else:
            loss = (weights * losses(self._task, outputs, labels)).mean()
        loss.backward()
        if self._anchor is not None:
            self._pull_back(self._anchor, self._step_config.proximal)
        self._optimizer.step()
        for module in resting:
            module.train()
        return self._placement.here(loss).item()

    @torch.no_grad()
    def _draw(
        self, size: int, inputs: Tensor, labels: Tensor, counts: Tensor, chance: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw `size` samples by importance, as the model is now, without batch normalisation noticing: indices and
        weights, where the model is. `counts` are the samples' `shares` in the loss, (batch,) on the CPU."""
        self.model.eval()
        with blamed_on("a sample's loss cannot be told"):
            values = losses(self._task, self.model(inputs), labels)
        self.model.train()
        rows = counts.nonzero().flatten()  # what counts for nothing has no loss of its own
        counts = counts[rows] * (len(rows) / len(counts))
        drawn, weights = draw(self._placement.here(values)[rows] * counts, size, chance)
        return self._placement.there(rows[drawn]), self._placement.there(weights * counts[drawn])

    @torch.no_grad()
    def _pull_back(self, anchor: Tensor, proximal: float) -> None:
        for slot, parameter in zip(self._layout.slots, self._layout.tensors(self.model), strict=True):
            if slot.role is Role.PARAMETER and parameter.grad is not None:
                start = anchor[slot.start : slot.stop].view(parameter.shape)
                parameter.grad += proximal * (parameter - start)

    def evaluate(self, samples: SampleSet) -> Evaluation:
        """Evaluate the model on `samples`; nothing without `executes`. Raises `BadConfig` like
        `quality.evaluate`."""
        if not self.executes or not len(samples):
            return NOTHING
        with blamed_on("an evaluation failed"):
            return evaluate(self._metric, self.model, samples.inputs, samples.labels, self._placement)

    def delta(self) -> Tensor:
        """What was trained since `load`: (elements,) float32, its own memory."""
        return self.parameters().sub_(self._start)

    def parameters(self) -> Tensor:
        """As they are now, statistics included: (elements,) float32, its own memory."""
        return replica.from_model(self.model, self._layout, self._placement)[0]

    def mix(self, others: Iterable[tuple[Tensor, float]]) -> None:
        """Take in the parameters (elements,) float32 of others, each with its weight; the own ones keep the rest of
        1."""
        own = self.parameters()
        mixed, rest = torch.zeros_like(own), 1.0
        for theirs, weight in others:
            mixed += weight * theirs
            rest -= weight
        replica.load_vector(self.model, mixed.add_(rest * own), self._layout, self._placement)

    def counters(self) -> tuple[int, ...]:
        """The model's integer buffers as they are now."""
        return replica.from_model(self.model, self._layout, self._placement)[1]

    def snapshot(self) -> dict[str, Any]:
        """A deep copy of the optimiser's state."""
        return copy.deepcopy(self._optimizer.state_dict())

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Return the optimiser to `snapshot`, which stays as it is and may be restored again."""
        self._optimizer.load_state_dict(copy.deepcopy(snapshot))
