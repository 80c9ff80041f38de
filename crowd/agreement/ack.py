"""What a device says of a plan to all others: `StateProgress` (how far its replica has come) and `Ack`."""

from typing import Protocol

import attrs

from crowd.units import DeviceId, Life


@attrs.frozen(kw_only=True, order=True)
class StateProgress:
    """How far a device's replicated state has come. Compares: a generation starts from the greatest."""

    run: int = 0
    samples: int = 0
    """Samples merged so far, over all devices."""
    round: int = 0
    """The last complete round."""
    base: int = 0
    """From what the run began: see `ReplicaState.base`. Of starts of one run the greatest is taken."""
    digest: bytes = attrs.field(default=b"", repr=lambda digest: digest.hex()[:8])
    """Digest of the replicated state after `round`."""
    finished: bool = False
    """Whether the run ended with `round`."""


@attrs.frozen(kw_only=True)
class Ack:
    """A device's acknowledgement of a plan, and a promise: from now on it follows this plan, and neither merges nor
    completes a round of an earlier generation. One life gives at most one ack per generation, and it never changes."""

    device: DeviceId
    life: Life
    generation: int
    view_digest: bytes = attrs.field(repr=lambda digest: digest.hex()[:8])
    plan_digest: bytes = attrs.field(repr=lambda digest: digest.hex()[:8])
    progress: StateProgress


class UnderPlan(Protocol):
    """What was said under a plan, by generation and digest."""

    @property
    def generation(self) -> int: ...

    @property
    def plan_digest(self) -> bytes: ...
