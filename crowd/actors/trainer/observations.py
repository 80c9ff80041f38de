"""What the trainer tells the node's observers; read without torch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import attrs

from crowd.agreement.ack import StateProgress
from crowd.protocol.messages import CurvePoint, ResultMessage

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


@attrs.frozen(kw_only=True)
class RunFinished:
    """The node's observers are told that this device holds the final state of the run."""

    state: "ReplicaState"
    result: ResultMessage


Observation: TypeAlias = RoundDone | RunFinished
