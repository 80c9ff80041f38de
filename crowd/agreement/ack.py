"""What devices promise each other: `StateProgress` (how far a run is) and `Ack` (the promise to follow one plan)."""

import attrs

from crowd.units import DeviceId, Life


@attrs.frozen(kw_only=True, order=True)
class StateProgress:
    """How far a device's replicated state has come. Compares: the greater is where a generation starts."""

    run: int = 0
    samples: int = 0
    """Merged so far, over all devices."""
    round: int = 0
    """The last complete round."""
    digest: bytes = attrs.field(default=b"", repr=lambda digest: digest.hex()[:8])
    """Of the replicated state after that round."""
    finished: bool = False
    """Whether the run ended with that round."""


@attrs.frozen(kw_only=True)
class Ack:
    """A promise: follow this plan, and neither merge nor complete a round of an earlier generation from now on. One
    life gives at most one ack per generation, and it never changes."""

    device: DeviceId
    life: Life
    generation: int
    view_digest: bytes = attrs.field(repr=lambda digest: digest.hex()[:8])
    plan_digest: bytes = attrs.field(repr=lambda digest: digest.hex()[:8])
    progress: StateProgress
