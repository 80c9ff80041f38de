"""The messages between the four actors. No actor waits for another's answer, but the profiler once for the trainer's.

What the agreement takes in and gives out (`crowd.agreement.events`) goes to the planner and the trainer as it is.

Layout: to the planner, to the trainer, to the data mover, to the profiler.
"""

from collections.abc import Mapping
from typing import Generic, TypeAlias, TypeVar

import attrs

from crowd.agreement import events
from crowd.agreement.ack import StateProgress
from crowd.agreement.state import Active
from crowd.ports import Delivery
from crowd.protocol.messages import (
    Cargo,
    ForDataMover,
    ForPlanner,
    ForTrainer,
    Message,
    ResultMessage,
    SliceKey,
)
from crowd.runtime import Ask
from crowd.units import Address, DeviceId, Life

Word = TypeVar("Word")


def _size(data: bytes) -> str:
    return f"<{len(data)} bytes>"


@attrs.frozen(kw_only=True)
class Heard(Generic[Word]):
    """A verified message of another device, for the data mover or the trainer."""

    sender: DeviceId
    life: Life
    """The sender's, in which it said so."""
    message: Word
    to_all: bool = False


# --- to the planner ---------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class AgreementMessage:
    """A verified message about agreement."""

    sender: DeviceId
    life: Life
    message: ForPlanner
    envelope: bytes = attrs.field(repr=_size)
    rtt_us: int = 0
    """Round-trip time through the broker, if the message is an own heartbeat."""


@attrs.frozen(kw_only=True)
class OwnResult:
    result: ResultMessage


@attrs.frozen(kw_only=True)
class RunAsked:
    """The number of the run that a request has begun, or had been begun before, or why there is none."""

    run: int | None
    why: str = ""


@attrs.frozen(kw_only=True)
class BeginNextRun(Ask[RunAsked]):
    """Begin the run after the one that is over, on all devices. Void where a later one has begun."""

    follows: int | None = None
    """The run that it is to follow; `None`: whichever is over."""
    fresh: bool = False
    """Whether it begins with a network that is drawn anew; else with the present model."""


PlannerMessage: TypeAlias = (
    AgreementMessage
    | OwnResult
    | BeginNextRun
    | events.Connected
    | events.Disconnected
    | events.OwnProfile
    | events.StatusHeard
    | events.ProbeAnswered
    | events.OwnerSilent
    | events.HeldUp
    | events.Progressed
    | events.StateReached
    | events.RoundReady
)


# --- to the trainer ---------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class LinkUp:
    """A broker session is open and subscribed."""


@attrs.frozen(kw_only=True)
class MeasureSpeed(Ask[int]):
    """Time some training steps; the answer is in kFLOP/s."""


@attrs.frozen(kw_only=True)
class BeginRun:
    """Make the state with which the run begins here, or from which it goes on."""

    run: int
    fresh: bool = False
    """Whether somebody asked for a network that is drawn anew."""


@attrs.frozen(kw_only=True)
class Activated:
    active: Active
    rtt_us: int
    """Round-trip time of this device's last heartbeat."""
    memory_bytes: int
    """This device's memory budget."""


@attrs.frozen(kw_only=True)
class FinishedElsewhere:
    """The devices that hold the final state of the run, which this device has not reached."""

    progress: StateProgress
    holders: tuple[DeviceId, ...]


@attrs.frozen(kw_only=True)
class Arrived:
    """A transfer of another device is complete."""

    sender: DeviceId
    cargo: Cargo
    data: bytes = attrs.field(repr=_size)


@attrs.frozen(kw_only=True)
class ContributionEnded:
    """A contribution of this device has arrived at its owner, or will not any more."""

    key: SliceKey


@attrs.frozen(kw_only=True)
class Trained:
    """The trainer's own local steps have ended: the quota was reached, or the round was over before."""

    generation: int
    round: int


@attrs.frozen(kw_only=True)
class Appraised:
    """The trainer's own evaluation beside the rounds has ended."""


@attrs.frozen(kw_only=True)
class MeasureUnused:
    """Measure the speed again, if this device has no part in the training."""


TrainerMessage: TypeAlias = (
    LinkUp
    | MeasureSpeed
    | MeasureUnused
    | BeginRun
    | Activated
    | FinishedElsewhere
    | Heard[ForTrainer]
    | Arrived
    | ContributionEnded
    | Trained
    | Appraised
    | events.Freeze
    | events.ShowProgress
    | events.RoundAccepted
)


# --- to the data mover ------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Send:
    """Seal and publish a message."""

    address: Address
    message: Message
    retain: bool = False


@attrs.frozen(kw_only=True)
class NewLife:
    """Seal in the name of this life from now on."""

    life: Life


@attrs.frozen(kw_only=True)
class WatchBeats:
    """Read the heartbeats of these devices, and no others."""

    devices: tuple[DeviceId, ...]


@attrs.frozen(kw_only=True)
class PlanBegun:
    """The links of a plan's members, as they publish them, and the planned time of a round."""

    uplink_bytes_s: int
    """Uplink of this device."""
    downlinks_bytes_s: Mapping[DeviceId, int]
    round_us: int


@attrs.frozen(kw_only=True)
class SendCargo:
    """Transfer bulk bytes to one device, or to all (`destination` is `None`)."""

    destination: DeviceId | None
    cargo: Cargo
    data: bytes = attrs.field(repr=_size)


@attrs.frozen(kw_only=True)
class Forget:
    """Drop transfers of rounds before this generation."""

    generation: int


@attrs.frozen(kw_only=True)
class Inbound:
    """A chunk as it came from the broker."""

    delivery: Delivery


@attrs.frozen(kw_only=True)
class Linked:
    """The connection's task reports a new session (`up`) or its end."""

    up: bool


DataMoverMessage: TypeAlias = (
    Send | NewLife | WatchBeats | PlanBegun | SendCargo | Forget | Inbound | Heard[ForDataMover | ForTrainer] | Linked
)


# --- to the profiler --------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class StepsTimed:
    """A piece of training that was done anyway, and the time that it took."""

    flops: int
    elapsed_us: int


@attrs.frozen(kw_only=True)
class LinkTimed:
    """Bulk bytes that crossed the link in one direction without a pause."""

    up: bool
    size_bytes: int
    elapsed_us: int


@attrs.frozen(kw_only=True)
class SpeedMeasured:
    """The answer to `MeasureUnused`, if nothing was in the way."""

    speed_kflops: int


@attrs.frozen(kw_only=True)
class HeldData:
    """What a profile says of the device's data; see there."""

    data_epoch: int
    label_counts: tuple[int, ...]
    held_out: int


@attrs.frozen(kw_only=True)
class DataRead(Ask[None]):
    """The device has other data from now on. Answered when the planner has been told, or will be with the first
    profile."""

    data: HeldData


ProfilerMessage: TypeAlias = StepsTimed | LinkTimed | SpeedMeasured | DataRead
