"""What one device trains with: its network and optimiser, and what is left of its earlier deltas: `Learner`."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import structlog
import torch

from crowd.actors.trainer.checkpoint import Checkpoint, kept_inner
from crowd.learning import replica
from crowd.learning.fate import Fate
from crowd.learning.feedback import Feedback
from crowd.learning.placement import Placement
from crowd.learning.replica import ReplicaState
from crowd.learning.task import Task
from crowd.learning.warm_start import WarmStart
from crowd.learning.work import LocalTrainer, Work, starting_model
from crowd.planning.plan import Encoding, SliceOwner
from crowd.ports import Compute

log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class Beginning:
    """How a run begins on a device."""

    run: int
    fresh: bool = False
    """Whether somebody asked for a network that is drawn anew."""
    present: ReplicaState | None = None
    """The state that the device has: of this run, which then goes on; or of an earlier one, whose final model is the
    start of this one."""


class Learner:
    """Makes deltas, round after round. All its methods are for a worker thread."""

    local: LocalTrainer
    """The network and its optimiser; made by `make`, and anew for every run."""
    _feedback: Feedback

    def __init__(self, task: Task, work: Work, compute: Compute, supplied: WarmStart | None) -> None:
        """`supplied`: parameters with which the first run begins, unless this device has a state already."""
        self._task = task
        self._supplied = supplied
        self._start: WarmStart | None = None
        """What this run would begin with, if all goes on from this device's start."""
        self._layout = work.layout
        self._compute = compute
        self._inner: dict[str, Any] = {}
        """The optimiser's state at the last complete round."""
        self.speed_kflops = 0
        """How fast this device trains, by the last measurement."""

    @property
    def residual(self) -> torch.Tensor:
        """What is left of earlier deltas, (elements,) float32; not to be written to."""
        return self._feedback.residual

    def make(self) -> None:
        """Make all that a large network makes slow, before the first run."""
        self._feedback = Feedback(self._layout)
        self._take(self._task.model())

    def begin_run(self, seed: int, beginning: Beginning) -> ReplicaState:
        """Train a new network from now on; returns the state that the run begins with, or goes on from."""
        model = starting_model(self._task, self._layout, seed=seed, run=beginning.run)
        state = self._first_state(model, seed, beginning)
        _ = state.digest  # computed here, away from the event loop
        self._take(model)
        return state

    def _first_state(self, model: torch.nn.Module, seed: int, beginning: Beginning) -> ReplicaState:
        run, present = beginning.run, beginning.present
        supplied, self._supplied, self._start = self._supplied, None, None
        if supplied is not None and present is not None:
            self._not_used(supplied, f"run {present.run} has a state here")
        if present is not None and present.run == run:
            return present
        if beginning.fresh:
            return replica.initial(model, run, self._layout, base=run)
        if present is not None and present.finished:
            return replica.following(present, run)
        if supplied is not None:
            trained = starting_model(
                self._task, self._layout, seed=seed, run=run
            )  # its own: constants are those of the task
            supplied.load_into(trained)
            self._start = supplied
            return replica.initial(trained, run, self._layout, base=run + 1)
        return replica.initial(model, run, self._layout)

    def replaced(self, state: ReplicaState) -> None:
        """Another device's `state` has replaced this one's: say so of parameters that the run does not begin with."""
        start, self._start = self._start, None
        if start is not None and state.base <= state.run:
            self._not_used(start, f"run {state.run} has begun from another device's state")

    def _not_used(self, start: WarmStart, why: str) -> None:
        log.warning("start_not_used", file=str(start.path), why=why)

    def _take(self, model: torch.nn.Module) -> None:
        placement, executes = Placement(self._compute.torch_device), self._compute.executes
        self.local = LocalTrainer(self._task, model, self._layout, placement=placement, executes=executes)
        self._inner = self.local.snapshot()

    def restore(self) -> None:
        """Go back to the optimiser of the last complete round."""
        self.local.restore(self._inner)

    def checkpoint(self, state: ReplicaState) -> Checkpoint:
        """What there is to go on with from `state`, which the last complete round led to."""
        if state.finished:
            return Checkpoint(state=state, residual=None, inner=None)
        return Checkpoint(state=state, residual=self.residual, inner=kept_inner(self._inner["state"]))

    def resume(self, saved: Checkpoint) -> None:
        """Go on with what is left of a former life's deltas, and with its optimiser."""
        if saved.residual is not None:
            self._feedback.resume(saved.residual)
        if saved.inner is not None:
            self._inner |= {"state": saved.inner}

    def contribute(
        self, slices: Sequence[SliceOwner], encoding: Encoding, *, detached: bool
    ) -> tuple[torch.Tensor, list[bytes]]:
        """What was trained since the local steps began: the delta (elements,) float32, and encoded for each slice, with
        what is left of earlier ones. `detached`: some round will take it; which one is all the same to the residual."""
        delta = self.local.delta()
        encoded = [self._feedback.contribute(delta, span.start, span.stop, encoding) for span in slices]
        if detached:
            self.commit(delta, {(span.start, span.stop): Fate.MERGED for span in slices})
        return delta, encoded

    def commit(self, delta: torch.Tensor | None, fates: Mapping[tuple[int, int], Fate], *, apart: bool = False) -> None:
        """A round is complete; see `Feedback.commit`."""
        self._feedback.commit(delta, fates, apart=apart)
        self._inner = self.local.snapshot()

    def abandon(self) -> None:
        """Forget what was sent in the round in hand, as it will be redone."""
        self._feedback.abandon()

    def drop_residual(self) -> None:
        """Another device's state has replaced this one: see `Feedback.drop`."""
        self._feedback.drop()
