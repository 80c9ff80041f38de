"""What the trainer tells the node's observers; read without torch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import attrs

from crowd.agreement.ack import StateProgress
from crowd.progress import Progress
from crowd.protocol.messages import CurvePoint, ResultMessage
from crowd.units import SECOND_US

if TYPE_CHECKING:
    from crowd.learning.replica import ReplicaState


@attrs.frozen(kw_only=True)
class RoundDone:
    """The node's observers are told that a round was completed here."""

    progress: StateProgress
    point: CurvePoint
    """Measurements of the round; the evaluation is of the state before it."""
    samples_trained: int
    """Samples that this device has trained in this run."""
    generations: int
    """Plans that this device has followed in this run."""
    hardly_trained: Mapping[str, tuple[int, str]] | None
    """By device, how many of its samples were to be trained and hardly were, and why; `None`: not known here."""

    def after(self, last: Progress) -> Progress:
        """The report of this round, where that of the one before was `last`."""
        return Progress(
            round=self.progress.round,
            value=self.point.value if self.point.evaluated else last.value,
            loss=self.point.loss,
            bytes_up=self.point.bytes_up,
            bytes_down=self.point.bytes_down,
            elapsed_s=self.point.elapsed_us / SECOND_US,
            plan=last.plan,
            finished=self.progress.finished,
            digest=self.progress.digest.hex(),
            samples_trained=self.samples_trained,
            generations=self.generations,
            hardly_trained=self.hardly_trained,
        )


@attrs.frozen(kw_only=True)
class StateHeld:
    """The node's observers are told that this is the device's state now: a round has led to it, or it was fetched, or
    a run begins with it. The trainer's own, not a copy."""

    state: "ReplicaState"


@attrs.frozen(kw_only=True)
class RunFinished:
    """The node's observers are told that this device holds the final state of the run."""

    state: "ReplicaState"
    result: ResultMessage


Observation: TypeAlias = RoundDone | StateHeld | RunFinished
