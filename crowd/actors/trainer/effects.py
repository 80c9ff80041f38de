"""What the bookkeeping of rounds wants done: `Effect`. Pure."""

from typing import TYPE_CHECKING, TypeAlias

import attrs

from crowd.agreement.ack import StateProgress
from crowd.learning.evaluation import Evaluation
from crowd.protocol.messages import MergedSlice, SliceKey

if TYPE_CHECKING:
    from crowd.learning.merge import SliceMerge
from crowd.units import DeviceId


@attrs.frozen(kw_only=True)
class Begin:
    """Start the local steps of this round from the present state."""

    round: int


@attrs.frozen(kw_only=True)
class Fetch:
    """Get this state, or a later one of the same generation, from one of these devices."""

    progress: StateProgress
    holders: tuple[DeviceId, ...]


@attrs.frozen(kw_only=True)
class Merge:
    """Average the contributions to one of this device's slices and publish the mean under this key."""

    key: SliceKey
    merge: "SliceMerge"
    evaluation: Evaluation | None = None
    """What the members say who have no common evaluation set; `None`: what the contributions say."""


@attrs.frozen(kw_only=True)
class MergedPart:
    """One merged slice as it was published."""

    header: MergedSlice
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


@attrs.frozen(kw_only=True)
class Complete:
    """All merged slices of the next round are here, in the order of the plan's slices."""

    generation: int
    round: int
    parts: tuple[MergedPart, ...]


@attrs.frozen(kw_only=True)
class AskForSlice:
    owner: DeviceId
    key: SliceKey


@attrs.frozen(kw_only=True)
class ReportSilence:
    """Report that this owner's slice has not come for several deadlines, and that it says nothing to that."""

    device: DeviceId


@attrs.frozen(kw_only=True)
class ReportHeldUp:
    """Report for whom the round in hand waits, since when, and how many others those may be waiting for in turn."""

    devices: frozenset[DeviceId]
    since_us: int
    links: int


Effect: TypeAlias = Begin | Fetch | Merge | Complete | AskForSlice | ReportSilence | ReportHeldUp
