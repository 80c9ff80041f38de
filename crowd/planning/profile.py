"""What one device can do and holds, in integers only: the planner's whole knowledge of it."""

import enum
import functools

import attrs

from crowd.planning.canonical import canonical
from crowd.units import DeviceId, Life


class Share(enum.Enum):
    """What of a device's data may leave it."""

    RAW = "raw"
    FEATURES = "features"
    """Activations and labels."""
    NEVER = "never"
    """Only parameter deltas."""


class Prefer(enum.Enum):
    """What a plan should save first."""

    TIME = "time"
    BYTES = "bytes"
    ENERGY = "energy"


@attrs.frozen(kw_only=True)
class TaskFacts:
    """What planning needs to know of the work; equal on all devices with the same fingerprint."""

    fingerprint: bytes = attrs.field(repr=lambda digest: digest.hex()[:8])
    """Digest of everything that replicas must have in common (docs/protocol.md#rules: fitness)."""
    state_elements: int
    """Length of the flat state vector: parameters and floating-point buffers."""
    flops_per_sample: int
    """Forward and backward pass of one training sample."""
    sample_bytes: int
    """One sample on the wire, its label included."""
    batch_size: int
    evaluation_samples: int
    """Size of the common evaluation set; 0 if each device holds out a part of its own."""
    epochs_max: int


@attrs.frozen(kw_only=True)
class Profile:
    """One device, as it published itself. Compared by `version` only; never changed in place."""

    device: DeviceId
    life: Life
    revision: int
    """Counts the profiles of one life."""

    run: int
    """Which training of this cluster the device is at; the largest in a view counts."""
    started: bool
    """Whether the device has seen this run start."""
    members_min: int
    policy: str
    policy_version: int
    protocol_version: int
    prefer: Prefer
    seed: int
    task: TaskFacts
    unfit: str = ""
    """Why the device asks to be left out; empty if it does not."""

    speed_kflops: int
    """Sustained training speed for this very task, in kFLOP/s."""
    memory_bytes: int
    """Free for training on top of the idle process: a budget, rounded down."""
    uplink_bytes_s: int
    downlink_bytes_s: int
    link_assumed: bool
    """Whether the link's rates come from the configuration and not yet from observation."""

    share: Share
    data_epoch: int
    """Counts the changes of the device's own data set; names samples together with device and index."""
    label_counts: tuple[int, ...]
    """Training samples held, by label; a task without classes has one label."""
    held_out: int = 0
    """Evaluation samples of its own (only where the task has no common evaluation set)."""

    @property
    def version(self) -> tuple[Life, int]:
        """Orders the profiles of one device: the larger is the newer."""
        return (self.life, self.revision)

    @functools.cached_property
    def samples(self) -> int:
        return sum(self.label_counts)

    @functools.cached_property
    def canonical(self) -> bytes:
        """Its canonical form; worked out once, as every view that the profile is in has a digest."""
        return canonical(self)
