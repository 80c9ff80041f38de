"""What happens to a device (events) and what it is to do about it (effects): the two ends of `step`."""

from collections.abc import Mapping
from typing import TypeAlias

import attrs

from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.state import Active
from crowd.agreement.suspension import Suspension
from crowd.planning.plan import Plan
from crowd.planning.profile import Profile
from crowd.units import DeviceId, Life

# --- events -----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Tick:
    """Time has passed."""


@attrs.frozen(kw_only=True)
class Connected:
    """A new broker session is up; retained messages must be published anew."""


@attrs.frozen(kw_only=True)
class Disconnected:
    """The broker session has ended."""


@attrs.frozen(kw_only=True)
class OwnProfile:
    """A new measurement of this device; life, revision and `started` are filled in by `step`."""

    profile: Profile


@attrs.frozen(kw_only=True)
class Learned:
    """Profiles, tombstones and suspensions from another device."""

    profiles: tuple[Profile, ...] = ()
    tombstones: Mapping[DeviceId, Life] = attrs.field(factory=dict)
    suspensions: Mapping[DeviceId, Suspension] = attrs.field(factory=dict)
    source: DeviceId | None = None
    """The device that sent them."""


@attrs.frozen(kw_only=True)
class AckHeard:
    """An ack has come, from its device or retained by the broker."""

    ack: Ack


@attrs.frozen(kw_only=True)
class BeatHeard:
    """A heartbeat has come."""

    device: DeviceId
    life: Life
    view_digest: bytes
    generation: int
    rtt_us: int = 0
    """Round-trip time through the broker, if the heartbeat is this device's own."""


@attrs.frozen(kw_only=True)
class StatusHeard:
    """The broker says that a device is online or offline: perhaps stale, and only a reason to probe."""

    device: DeviceId
    online: bool


@attrs.frozen(kw_only=True)
class ProbeAnswered:
    """A message has come that only this life of the device can have signed."""

    device: DeviceId
    life: Life


@attrs.frozen(kw_only=True)
class FormerLifeHeard:
    """A message has come from a life of the device that is older than the one known here: recorded, or its device has
    lost count."""

    device: DeviceId


@attrs.frozen(kw_only=True)
class ViewRequested:
    """A device names the profiles, tombstones and suspensions that it has, and asks for newer ones."""

    device: DeviceId
    versions: Mapping[DeviceId, tuple[Life, int]]
    tombstones: Mapping[DeviceId, Life]
    suspensions: Mapping[DeviceId, Suspension] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class OwnerSilent:
    """A slice of this owner is still missing after three deadlines."""

    device: DeviceId


@attrs.frozen(kw_only=True)
class HeldUp:
    """What this device has in hand waits for these devices. Said again and again for as long as it does."""

    devices: frozenset[DeviceId]
    since_us: int
    links: int = 0
    """How many others they may be waiting for in turn, each of which is to blame first."""


@attrs.frozen(kw_only=True)
class Progressed:
    """The work of this device, which was said to stand still, goes on."""


@attrs.frozen(kw_only=True)
class StateReached:
    """The replicated state was initialised or fetched."""

    progress: StateProgress


@attrs.frozen(kw_only=True)
class RoundReady:
    """All merged slices of the next round are here: may it be completed? Answered by `RoundAccepted` or not at all."""

    generation: int
    progress: StateProgress
    senders: frozenset[DeviceId] = frozenset()
    """The trainers that have contributed to it."""


Event: TypeAlias = (
    Tick
    | Connected
    | Disconnected
    | OwnProfile
    | Learned
    | AckHeard
    | BeatHeard
    | StatusHeard
    | ProbeAnswered
    | FormerLifeHeard
    | ViewRequested
    | OwnerSilent
    | HeldUp
    | Progressed
    | StateReached
    | RoundReady
)


# --- effects ----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class PublishProfile:
    """Publish this device's profile, retained."""

    profile: Profile


@attrs.frozen(kw_only=True)
class PublishAck:
    """Publish this device's ack, retained."""

    ack: Ack


@attrs.frozen(kw_only=True)
class SendAck:
    """Send the last published ack to one device that seems to lack it."""

    device: DeviceId
    ack: Ack


@attrs.frozen(kw_only=True)
class PublishEvictions:
    """Tell all devices that these lives are evicted."""

    lives: Mapping[DeviceId, Life]


@attrs.frozen(kw_only=True)
class PublishSuspensions:
    """Tell all devices who is suspended, or is not any more."""

    suspensions: Mapping[DeviceId, Suspension]


@attrs.frozen(kw_only=True)
class ShowProgress:
    """Find out whether the work of this device goes on; answered by `Progressed` once it does."""


@attrs.frozen(kw_only=True)
class SendBeat:
    """Publish a heartbeat."""

    view_digest: bytes
    generation: int


@attrs.frozen(kw_only=True)
class AskView:
    """Ask `device` for the profiles and tombstones that are newer than those known here."""

    device: DeviceId


@attrs.frozen(kw_only=True)
class SendView:
    """Send `device` the profiles of these devices, the tombstones and the suspensions."""

    device: DeviceId
    profiles: tuple[DeviceId, ...]
    tombstones: Mapping[DeviceId, Life]
    suspensions: Mapping[DeviceId, Suspension] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class SendProbe:
    """Ask `device` for a sign of life."""

    device: DeviceId


@attrs.frozen(kw_only=True)
class Freeze:
    """Neither merge nor complete a round of the active plan any more. Comes before the `PublishAck` that says so."""


@attrs.frozen(kw_only=True)
class Activate:
    """Begin this plan."""

    active: Active


@attrs.frozen(kw_only=True)
class RoundAccepted:
    """Complete the round that was proposed with `RoundReady`."""

    progress: StateProgress


@attrs.frozen(kw_only=True)
class Excluded:
    """Report that the plan of the present view leaves this device out, and that all the others follow it."""

    plan: Plan


@attrs.frozen(kw_only=True)
class Evicted:
    """Report that this device has evicted another one, and why."""

    device: DeviceId
    reason: str


@attrs.frozen(kw_only=True)
class Departed:
    """Report that a device is in the view no longer, as another one said."""

    device: DeviceId
    told_by: DeviceId
    """Who has evicted it, or knows of that; the device itself if it has left."""


@attrs.frozen(kw_only=True)
class Suspended:
    """Report that a device, perhaps this one, is suspended from now on, by whomever."""

    device: DeviceId


@attrs.frozen(kw_only=True)
class Resumed:
    """Report that a device is suspended no longer."""

    device: DeviceId


Effect: TypeAlias = (
    PublishProfile
    | PublishAck
    | SendAck
    | PublishEvictions
    | PublishSuspensions
    | ShowProgress
    | SendBeat
    | AskView
    | SendView
    | SendProbe
    | Freeze
    | Activate
    | RoundAccepted
    | Excluded
    | Evicted
    | Departed
    | Suspended
    | Resumed
)
