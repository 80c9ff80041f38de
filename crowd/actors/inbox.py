"""The messages between the four actors. No actor waits for another's answer, but the profiler once for the trainer's.

Layout: to the planner, to the trainer, to the data mover, to the profiler.
"""

from collections.abc import Mapping
from typing import TypeAlias

import attrs

from crowd.agreement.ack import StateProgress
from crowd.agreement.state import Active
from crowd.planning.profile import Profile
from crowd.ports import Delivery
from crowd.protocol.messages import (
    AskSamples,
    AskSlice,
    AskState,
    Cargo,
    Contribution,
    Done,
    MergedSlice,
    Message,
    NoSlice,
    Offer,
    Parameters,
    ResultMessage,
    Revoke,
    Samples,
    SliceKey,
    Want,
    WholeState,
)
from crowd.runtime import Ask
from crowd.units import Address, DeviceId, Life


def _size(data: bytes) -> str:
    return f"<{len(data)} bytes>"


# --- to the planner, and the first to the trainer too -----------------------------------------------------------------


@attrs.frozen(kw_only=True)
class LinkUp:
    """A broker session is open and subscribed."""


@attrs.frozen(kw_only=True)
class LinkDown:
    pass


@attrs.frozen(kw_only=True)
class AgreementMessage:
    """A verified message about agreement."""

    sender: DeviceId
    life: Life
    message: Message
    envelope: bytes = attrs.field(repr=_size)
    rtt_us: int = 0
    """Round-trip time through the broker, if the message is an own heartbeat."""


@attrs.frozen(kw_only=True)
class StatusSeen:
    device: DeviceId
    online: bool


@attrs.frozen(kw_only=True)
class Alive:
    """A sign of life: something that only this life of this device can have signed has come."""

    device: DeviceId
    life: Life


@attrs.frozen(kw_only=True)
class MeasuredProfile:
    """The profile of this device as the profiler has measured it."""

    profile: Profile


@attrs.frozen(kw_only=True)
class RoundReady:
    """A proposal to complete this round, for the agreement to decide."""

    generation: int
    progress: StateProgress
    senders: frozenset[DeviceId]
    """The trainers that have contributed to it."""


@attrs.frozen(kw_only=True)
class StateReached:
    """The trainer holds this state now, by fetching or by starting a run."""

    progress: StateProgress


@attrs.frozen(kw_only=True)
class OwnerSilent:
    device: DeviceId


@attrs.frozen(kw_only=True)
class HeldUp:
    """What the trainer has in hand waits for these devices (`events.HeldUp`)."""

    devices: frozenset[DeviceId]
    since_us: int
    links: int


@attrs.frozen(kw_only=True)
class Progressed:
    """The trainer answers `ShowProgress`: no local steps stand still."""


@attrs.frozen(kw_only=True)
class OwnResult:
    result: ResultMessage


PlannerMessage: TypeAlias = (
    LinkUp
    | LinkDown
    | AgreementMessage
    | StatusSeen
    | Alive
    | MeasuredProfile
    | RoundReady
    | StateReached
    | OwnerSilent
    | HeldUp
    | Progressed
    | OwnResult
)


# --- to the trainer ---------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class MeasureSpeed(Ask[int]):
    """Time some training steps; the answer is in kFLOP/s."""


@attrs.frozen(kw_only=True)
class BeginRun:
    """Start the run from a fresh state."""

    run: int


@attrs.frozen(kw_only=True)
class Frozen:
    """A plan of a later generation is acked."""


@attrs.frozen(kw_only=True)
class ShowProgress:
    """Say `Progressed` once the local steps in hand, which were found to stand still, have ended."""


@attrs.frozen(kw_only=True)
class Activated:
    active: Active
    rtt_us: int
    """Round-trip time of this device's last heartbeat."""


@attrs.frozen(kw_only=True)
class RoundAccepted:
    progress: StateProgress


@attrs.frozen(kw_only=True)
class SliceNotHere:
    """The owner's answer about a missing slice: it lives, and waits for contributions itself, or (`over`) keeps the
    slice no longer."""

    owner: DeviceId
    key: SliceKey
    over: bool


@attrs.frozen(kw_only=True)
class FinishedElsewhere:
    """The devices that hold the final state of the run, which this device has not reached."""

    progress: StateProgress
    holders: tuple[DeviceId, ...]


@attrs.frozen(kw_only=True)
class ContributionArrived:
    sender: DeviceId
    header: Contribution
    data: bytes = attrs.field(repr=_size)


@attrs.frozen(kw_only=True)
class MergedArrived:
    sender: DeviceId
    header: MergedSlice
    data: bytes = attrs.field(repr=_size)


@attrs.frozen(kw_only=True)
class ParametersArrived:
    """Parameters of a neighbour, to be mixed with this device's own."""

    sender: DeviceId
    header: Parameters
    data: bytes = attrs.field(repr=_size)


@attrs.frozen(kw_only=True)
class ContributionEnded:
    """A contribution of this device has arrived at its owner, or will not any more."""

    key: SliceKey


@attrs.frozen(kw_only=True)
class SamplesArrived:
    sender: DeviceId
    header: Samples
    data: bytes = attrs.field(repr=_size)


@attrs.frozen(kw_only=True)
class StateArrived:
    sender: DeviceId
    header: WholeState
    data: bytes = attrs.field(repr=_size)


@attrs.frozen(kw_only=True)
class SamplesAsked:
    borrower: DeviceId
    ask: AskSamples


@attrs.frozen(kw_only=True)
class StateAsked:
    device: DeviceId
    digest: bytes


@attrs.frozen(kw_only=True)
class Revoked:
    lender: DeviceId


@attrs.frozen(kw_only=True)
class Trained:
    """The trainer's own local steps have ended: the quota was reached, or the round was over before."""

    generation: int
    round: int


@attrs.frozen(kw_only=True)
class Appraised:
    """The trainer's own evaluation beside the rounds has ended."""


TrainerMessage: TypeAlias = (
    LinkUp
    | MeasureSpeed
    | BeginRun
    | Frozen
    | ShowProgress
    | Activated
    | RoundAccepted
    | SliceNotHere
    | FinishedElsewhere
    | ContributionArrived
    | MergedArrived
    | ParametersArrived
    | ContributionEnded
    | SamplesArrived
    | StateArrived
    | SamplesAsked
    | StateAsked
    | Revoked
    | Trained
    | Appraised
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
class TransferMessage:
    """A verified message about transfers, lent samples, states or slices."""

    sender: DeviceId
    message: Offer | Want | Done | AskSamples | AskState | AskSlice | NoSlice | Revoke
    to_all: bool


@attrs.frozen(kw_only=True)
class Linked:
    """The connection's task reports a new session (`up`) or its end."""

    up: bool


DataMoverMessage: TypeAlias = (
    Send | NewLife | WatchBeats | PlanBegun | SendCargo | Forget | Inbound | TransferMessage | Linked
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


ProfilerMessage: TypeAlias = StepsTimed | LinkTimed
