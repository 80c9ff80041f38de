"""The replicated state: what every device holds bitwise alike, and how a merged delta changes it.

Replicas stay identical because the state is changed only here, and only by separately rounded elementwise float32
operations: one multiplication, then one addition. A fused or scaled-add kernel rounds differently from processor to
processor.
"""

import functools
import hashlib
import struct
from typing import assert_never

import attrs
import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from crowd.agreement.ack import StateProgress
from crowd.errors import MalformedMessage, TrainingDiverged
from crowd.learning.layout import Layout
from crowd.learning.placement import CPU, Placement
from crowd.planning.plan import Outer, OuterKind
from crowd.planning.round_report import RoundReport
from crowd.units import DIGEST_BYTES


@attrs.frozen(kw_only=True, eq=False)
class Best:
    """The best state that a run without a target has evaluated so far. Immutable, and shared like the state itself."""

    value: float
    """Value of the task's metric."""
    exact: bool
    """Whether that is of this very state; else some evaluations were of somewhat earlier ones."""
    vector: Tensor = attrs.field(repr=False)
    """(elements,) float32, as `ReplicaState.vector`."""
    counters: tuple[int, ...] = ()

    @functools.cached_property
    def digest(self) -> bytes:
        """BLAKE2b digest (16 bytes) of all of it."""
        hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
        hasher.update(struct.pack(f"<d?{len(self.counters)}q", self.value, self.exact, *self.counters))
        hasher.update(self.vector.numpy().astype("<f4", copy=False).view(np.uint8).data)
        return hasher.digest()


@attrs.frozen(kw_only=True, eq=False)
class ReplicaState:
    """One state of a run, equal bit by bit on every device. Immutable: nobody writes into its tensors, so snapshots
    share them."""

    layout: Layout = attrs.field(repr=False)
    vector: Tensor = attrs.field(repr=False)
    """(elements,) float32, contiguous, on the CPU, as `layout` says."""
    counters: tuple[int, ...] = ()
    """All integer buffers that training changes, flattened."""
    momentum: Tensor | None = attrs.field(default=None, repr=False)
    """Momentum of the outer optimiser: (elements,) float32; `None` until it has one."""
    run: int = 0
    """Number of the training run of the cluster."""
    base: int = 0
    """From what the run began, by which its starts compare: 0, a network that was drawn for want of another; `n`, the
    model of run `n`; `run`, a network that was drawn anew because somebody asked for that; `run + 1`, a model that was
    supplied."""
    round: int = 0
    """Number of the last complete round."""
    samples: int = 0
    """Samples merged so far, over all devices."""
    epochs_ppb: int = 0
    """Epochs so far, in billionths: each round counts by what was an epoch then, however many devices come and go."""
    streak: int = 0
    """Consecutive evaluations that met the target."""
    report: RoundReport = attrs.field(factory=RoundReport)
    """What the rounds so far have shown."""
    best: Best | None = None
    """The best state so far, where the task has no target; where it has one, that with which a run began that goes on
    with a model; `None` until there is one."""
    waited: int = 0
    """Evaluations since the best one, where the task has no target."""
    closing: bool = False
    """Whether the next round only evaluates this state (see `ending`)."""
    finished: bool = False
    """Whether the run is over."""

    @functools.cached_property
    def digest(self) -> bytes:
        """BLAKE2b digest (16 bytes) of the whole state: of its figures, of `module_digests` and of the best state."""
        hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
        counts = (len(self.counters), self.vector.numel(), self.momentum is not None, self.finished + 2 * self.closing)
        metrics = (self.run, self.base, self.round, self.samples, self.epochs_ppb, self.streak)
        hasher.update(struct.pack(f"<10q{len(self.counters)}q", *counts, *metrics, *self.counters))
        for module in self.module_digests:
            hasher.update(module)
        for device, rate in sorted(self.report.rates.items()):
            hasher.update(struct.pack("<q", rate) + device.encode() + b"\0")
        if self.best is not None or self.waited:
            hasher.update(struct.pack("<q", self.waited) + (b"" if self.best is None else self.best.digest))
        return hasher.digest()

    @functools.cached_property
    def module_digests(self) -> tuple[bytes, ...]:
        """BLAKE2b digest (16 bytes) of each of the layout's modules: its elements of the vector, then of the momentum,
        as little-endian bytes."""
        raw = [
            tensor.numpy().astype("<f4", copy=False).view(np.uint8)
            for tensor in (self.vector, self.momentum)
            if tensor is not None
        ]
        digests = []
        for start, stop in self.layout.modules:
            hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
            for elements in raw:
                hasher.update(elements[4 * start : 4 * stop].data)
            digests.append(hasher.digest())
        return tuple(digests)

    @property
    def progress(self) -> StateProgress:
        """The position of this state in the run, as devices tell each other."""
        return StateProgress(
            run=self.run,
            samples=self.samples,
            round=self.round,
            base=self.base,
            digest=self.digest,
            finished=self.finished,
        )

    @property
    def continues(self) -> bool:
        """Whether the run goes on with a model that was trained before it."""
        return self.base not in (0, self.run)


# --- between a model and its state ------------------------------------------------------------------------------------


def from_model(model: torch.nn.Module, layout: Layout, placement: Placement = CPU) -> tuple[Tensor, tuple[int, ...]]:
    """A copy of the model's state as `(vector, counters)`; the model, which is where `placement` says, must have passed
    `trial.try_out`."""
    vector = placement.here(torch.cat([tensor.detach().reshape(-1) for tensor in layout.tensors(model)]))
    counting = (placement.here(buffer).reshape(-1).tolist() for buffer in layout.counting_tensors(model))
    return vector, tuple(int(value) for values in counting for value in values)


def initial(model: torch.nn.Module, run: int, layout: Layout, *, base: int = 0) -> ReplicaState:
    """Round 0 of `run`, with the model as it is; for `base` see `ReplicaState`."""
    vector, counters = from_model(model, layout)
    state = ReplicaState(layout=layout, vector=vector, counters=counters, run=run, base=base)
    return attrs.evolve(state, closing=state.continues)


def following(final: ReplicaState, run: int) -> ReplicaState:
    """Round 0 of `run`, which goes on with the `final` state of an earlier one: that is evaluated first, as its model
    is kept if none as good is found."""
    return ReplicaState(
        layout=final.layout, vector=final.vector, counters=final.counters, run=run, base=final.run, closing=True
    )


def moved(state: ReplicaState, offset: Tensor | None) -> ReplicaState:
    """`state` with its vector moved by `offset` (elements,) float32; `state` itself without one."""
    return state if offset is None else attrs.evolve(state, vector=state.vector + offset)


@torch.no_grad()
def load(model: torch.nn.Module, state: ReplicaState, placement: Placement = CPU) -> None:
    """Copy the state into the model's own parameters and buffers, which stay the same tensors. The model, which is
    where `placement` says, must be of the state's kind: as many elements and counters."""
    load_vector(model, state.vector, state.layout, placement)
    start = 0
    for buffer in state.layout.counting_tensors(model):
        counts = torch.tensor(state.counters[start : start + buffer.numel()])
        buffer.copy_(placement.there(counts).view(buffer.shape))
        start += buffer.numel()


@torch.no_grad()
def load_vector(model: torch.nn.Module, vector: Tensor, layout: Layout, placement: Placement = CPU) -> None:
    """Copy parameters and statistics (elements,) alone into the model, which is where `placement` says."""
    vector = placement.there(vector)
    for slot, tensor in zip(layout.slots, layout.tensors(model), strict=True):
        tensor.copy_(vector[slot.start : slot.stop].view(tensor.shape))


def named_tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """The tensors of the model's own `state_dict`, by their names; not copied."""
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def trained_model_bytes(model: torch.nn.Module, state: ReplicaState) -> bytes:
    """The state as a safetensors file with the names of the model's own `state_dict`; `model` then holds the state."""
    load(model, state)
    # The file format knows neither tied parameters, which share memory, nor another order than the plain one in it.
    tensors = {name: value.clone(memory_format=torch.contiguous_format) for name, value in named_tensors(model).items()}
    return safetensors.torch.save(tensors, metadata={"format": "pt"})


# --- a merged round ---------------------------------------------------------------------------------------------------


def apply(
    state: ReplicaState,
    outer: Outer,
    mean_delta: Tensor,
    *,
    samples: int,
    epochs_ppb: int,
    counters: tuple[int, ...],
    streak: int,
    report: RoundReport | None = None,
    best: Best | None = None,
    waited: int = 0,
    closing: bool = False,
    finished: bool = False,
) -> ReplicaState:
    """The state after one more round, in which `samples` were trained, `epochs_ppb` of an epoch, and the merged delta
    is `mean_delta`. The outer optimiser moves the parameters; statistics are no parameters, and take the plain mean.

    `counters` are the largest over the senders; the state's own are never lowered. `report`: what all rounds have
    shown, if this one has shown anything. Bitwise the same on every processor.
    Raises `MalformedMessage` if lengths differ from the state's, `TrainingDiverged` if the new state is not finite.
    """
    if mean_delta.shape != state.vector.shape or len(counters) != len(state.counters):
        raise MalformedMessage(
            f"a merged delta of {mean_delta.numel()} elements and {len(counters)} counters does not fit a state of "
            f"{state.vector.numel()} and {len(state.counters)}"
        )
    vector, momentum = _stepped(state, outer, mean_delta)
    if not is_finite(vector) or not (momentum is None or is_finite(momentum)):
        raise TrainingDiverged(f"the merged state is no longer finite after round {state.round + 1}: lower the rate")
    return ReplicaState(
        layout=state.layout,
        vector=vector,
        counters=tuple(map(max, state.counters, counters)),
        momentum=momentum,
        run=state.run,
        base=state.base,
        round=state.round + 1,
        samples=state.samples + samples,
        epochs_ppb=state.epochs_ppb + epochs_ppb,
        streak=streak,
        report=state.report if report is None else report,
        best=best,
        waited=waited,
        closing=closing,
        finished=finished,
    )


def unchanged(
    state: ReplicaState,
    *,
    streak: int,
    finished: bool,
    closing: bool = False,
    best: Best | None = None,
    waited: int = 0,
    returns: bool = False,
) -> ReplicaState:
    """The state after one more round that has only evaluated it, or whose deltas are not taken. If it `returns`, it is
    that of `best` from now on."""
    after = attrs.evolve(
        state, round=state.round + 1, streak=streak, best=best, waited=waited, closing=closing, finished=finished
    )
    return attrs.evolve(after, vector=best.vector, counters=best.counters) if returns and best is not None else after


def _stepped(state: ReplicaState, outer: Outer, mean_delta: Tensor) -> tuple[Tensor, Tensor | None]:
    """The vector and the outer optimiser's momentum after this merged delta; all (elements,) float32."""
    match outer.kind:
        case OuterKind.PLAIN:
            momentum = None
            step = mean_delta
        case OuterKind.NESTEROV:
            decay = _float32(outer.momentum_ppm)
            previous = torch.zeros_like(mean_delta) if state.momentum is None else state.momentum
            momentum = decay * previous + mean_delta
            step = mean_delta + decay * momentum
        case _:
            assert_never(outer.kind)
    vector = state.vector + _float32(outer.rate_ppm) * step
    for start, stop in state.layout.statistics:
        vector[start:stop] = state.vector[start:stop] + mean_delta[start:stop]
        if momentum is not None:
            momentum[start:stop] = 0.0
    for start, stop in state.layout.variances:  # weighted or late contributions may add up to a hair below 0
        vector[start:stop].clamp_(min=0.0)
    return vector, momentum


def _float32(ppm: int) -> Tensor:
    return torch.tensor(ppm / 1_000_000, dtype=torch.float32)


def is_finite(vector: Tensor) -> bool:
    """Whether no element is infinite or not a number; one pass, no copy."""
    return vector.numel() == 0 or all(bool(torch.isfinite(bound)) for bound in torch.aminmax(vector))
