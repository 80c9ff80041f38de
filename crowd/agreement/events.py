"""What happens to a device (events) and what it is to do about it (effects): the two ends of `agreement.step`."""

from collections.abc import Mapping
from typing import TypeAlias

import attrs

from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.state import Active
from crowd.planning.plan import Plan
from crowd.planning.profile import Profile
from crowd.units import DeviceId, Life

# --- events -----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Tick:
    """Time has passed."""


@attrs.frozen(kw_only=True)
class Connected:
    """A new broker session is up; retained state must be rebuilt."""


@attrs.frozen(kw_only=True)
class Disconnected:
    pass


@attrs.frozen(kw_only=True)
class OwnProfile:
    """The profiler's news of this device; life, revision and `started` are filled in here."""

    profile: Profile


@attrs.frozen(kw_only=True)
class Learned:
    """Profiles and burials from outside."""

    profiles: tuple[Profile, ...] = ()
    buried: Mapping[DeviceId, Life] = attrs.field(factory=dict)
    source: DeviceId | None = None


@attrs.frozen(kw_only=True)
class AckHeard:
    ack: Ack


@attrs.frozen(kw_only=True)
class BeatHeard:
    device: DeviceId
    life: Life
    view_digest: bytes
    generation: int
    lag_us: int = 0
    """Of this device's own: how long it was under way."""


@attrs.frozen(kw_only=True)
class StatusHeard:
    """`online` or `offline`: for people, and here only a reason to probe. It may be stale."""

    device: DeviceId
    online: bool


@attrs.frozen(kw_only=True)
class ProbeAnswered:
    device: DeviceId
    life: Life


@attrs.frozen(kw_only=True)
class ViewRequested:
    device: DeviceId
    versions: Mapping[DeviceId, tuple[Life, int]]
    buried: Mapping[DeviceId, Life]


@attrs.frozen(kw_only=True)
class OwnerSilent:
    """A slice of this device is still missing after three deadlines."""

    device: DeviceId


@attrs.frozen(kw_only=True)
class StateReached:
    """The state was initialised or fetched."""

    progress: StateProgress


@attrs.frozen(kw_only=True)
class RoundReady:
    """All merged slices of the next round are here: may it be completed? Answered by `RoundAccepted` or not at all."""

    generation: int
    progress: StateProgress


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
    | ViewRequested
    | OwnerSilent
    | StateReached
    | RoundReady
)


# --- effects ----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class PublishProfile:
    profile: Profile


@attrs.frozen(kw_only=True)
class PublishAck:
    ack: Ack


@attrs.frozen(kw_only=True)
class SendAck:
    """The last one that was published, to one device that seems to lack it."""

    device: DeviceId
    ack: Ack


@attrs.frozen(kw_only=True)
class PublishBurials:
    buried: Mapping[DeviceId, Life]


@attrs.frozen(kw_only=True)
class SendBeat:
    view_digest: bytes
    generation: int


@attrs.frozen(kw_only=True)
class AskView:
    device: DeviceId


@attrs.frozen(kw_only=True)
class SendView:
    """Send `device` the profiles of these devices, and the burials."""

    device: DeviceId
    profiles: tuple[DeviceId, ...]
    buried: Mapping[DeviceId, Life]


@attrs.frozen(kw_only=True)
class SendProbe:
    device: DeviceId


@attrs.frozen(kw_only=True)
class Freeze:
    """Neither merge nor complete a round of the active plan any more. Comes before the `PublishAck` that says so."""


@attrs.frozen(kw_only=True)
class Activate:
    active: Active


@attrs.frozen(kw_only=True)
class RoundAccepted:
    progress: StateProgress


@attrs.frozen(kw_only=True)
class Excluded:
    """The plan of the present view leaves this device out."""

    plan: Plan


@attrs.frozen(kw_only=True)
class Buried:
    """For the log: this device has declared a life dead, and why."""

    device: DeviceId
    reason: str


Effect: TypeAlias = (
    PublishProfile
    | PublishAck
    | SendAck
    | PublishBurials
    | SendBeat
    | AskView
    | SendView
    | SendProbe
    | Freeze
    | Activate
    | RoundAccepted
    | Excluded
    | Buried
)
