"""The abilities and data of one device, in integers only: the planner's whole knowledge of it."""

import enum
import functools
from typing import Any

import attrs

from crowd.planning.canonical import canonical
from crowd.units import DeviceId, Life


class Share(enum.Enum):
    """The part of a device's data that may leave it."""

    RAW = "raw"
    """Raw samples and labels; only such a device can lend."""
    FEATURES = "features"
    """Activations and labels, but no raw samples."""
    NEVER = "never"
    """Parameter deltas only."""


class Prefer(enum.Enum):
    """The cost that a plan should save first."""

    TIME = "time"
    BYTES = "bytes"
    ENERGY = "energy"


FINGERPRINT_PARTS = (
    "name",
    "network",
    "state",
    "samples",
    "loss",
    "optimiser",
    "batch size",
    "metric",
    "target",
    "patience",
    "epochs",
    "evaluation set",
    "augmentation",
    "schedule",
)
"""The parts of a task that replicas must have in common, by the names that people read."""
PART_BYTES = 4
"""Bytes of each part's digest in a fingerprint."""


def differing_parts(first: bytes, second: bytes) -> tuple[str, ...]:
    """The parts in which two fingerprints differ; none if one of them has other parts, or none differs."""
    if len(first) != len(second) or len(first) != PART_BYTES * len(FINGERPRINT_PARTS):
        return ()
    starts = range(0, len(first), PART_BYTES)
    return tuple(
        name
        for name, start in zip(FINGERPRINT_PARTS, starts, strict=True)
        if first[start : start + PART_BYTES] != second[start : start + PART_BYTES]
    )


MODULES_MAX = 256
"""Modules of a network that are told apart."""
MODULE_NAME_MAX = 64
"""Characters of a module's name."""


@attrs.frozen
class Module:
    """A part of a network that holds some of its state, and what is worked out beside it: what can be cut apart."""

    name: str
    """Path of the module in the network, its last `MODULE_NAME_MAX` characters; empty for the network itself."""
    elements: int
    """Its elements of the state vector."""
    flops: int
    """FLOPs of the forward and backward pass of one training sample."""
    activation_bytes: int
    """Bytes of what comes out of it forward, for one sample: what would travel if the network were cut behind it."""


@attrs.frozen(kw_only=True)
class TaskFacts:
    """The facts about the work that planning needs; equal on all devices with the same fingerprint."""

    fingerprint: bytes = attrs.field(repr=lambda digest: digest.hex()[:8])
    """Digests of everything that replicas must have in common, one for each of `FINGERPRINT_PARTS`
    (docs/protocol.md#rules: fitness)."""
    state_elements: int
    """Length of the flat state vector: parameters and floating-point buffers."""
    statistics: int
    """Elements of it that are no parameters: statistics of what the network has seen, as batch normalisation keeps
    them."""
    flops_per_sample: int
    """FLOPs of the forward and backward pass of one training sample."""
    sample_bytes: int
    """Bytes of one sample on the wire, its label included."""
    batch_size: int
    """Samples of one local step."""
    evaluation_samples: int
    """Size of the common evaluation set; 0 if each device holds out a part of its own."""
    epochs_max: int
    """Epochs after which the run ends, at its target or not."""
    modules: tuple[Module, ...] = attrs.field(repr=lambda modules: str(len(modules)))
    """All of the network, in the order of the state vector."""

    @modules.validator
    def _add_up(self, _: Any, modules: tuple[Module, ...]) -> None:
        """Raise `ValueError` unless the modules are the whole network, and no more of them than there may be."""
        if not 0 < len(modules) <= MODULES_MAX:
            raise ValueError(f"{len(modules)} modules; a network has 1 to {MODULES_MAX}")
        if (elements := sum(module.elements for module in modules)) != self.state_elements:
            raise ValueError(f"the modules have {elements} elements, the state {self.state_elements}")
        if (flops := sum(module.flops for module in modules)) != self.flops_per_sample:
            raise ValueError(f"the modules take {flops} FLOPs a sample, the network {self.flops_per_sample}")
        if any(len(module.name) > MODULE_NAME_MAX for module in modules):
            raise ValueError(f"the name of a module has more than {MODULE_NAME_MAX} characters")


@attrs.frozen(kw_only=True)
class Profile:
    """The abilities and data of one device, as it published them. Compared by `version` only; never changed in
    place."""

    device: DeviceId
    life: Life
    revision: int
    """Number of this profile within the device's life."""

    run: int
    """Number of the cluster's training run that the device is at; the largest in a view counts."""
    started: bool
    """Whether the device has seen this run start."""
    members_min: int
    """Fit devices that this device asks for before the run may start."""
    policy: str
    """Entry-point name of the policy that this device is configured with."""
    policy_version: int
    protocol_version: int
    prefer: Prefer
    """The cost that this device wants to be saved first."""
    seed: int
    """Seed that this device is configured with; the plan's, if this is the smallest fit device."""
    task: TaskFacts
    unfit: str = ""
    """The reason for which the device asks to be left out; empty if it does not."""

    speed_kflops: int
    """Sustained training speed for this very task, in kFLOP/s."""
    memory_bytes: int
    """Memory budget for training on top of the idle process, rounded down."""
    uplink_bytes_s: int
    """Rate of the device's link to the broker."""
    downlink_bytes_s: int
    """Rate of the device's link from the broker."""
    link_assumed: bool
    """Whether the link's rates come from the configuration and not yet from observation."""

    share: Share
    """The part of the device's data that may leave it."""
    data_epoch: int
    """Number of the device's present data set, raised with every change; names samples together with device and
    index."""
    label_counts: tuple[int, ...]
    """Training samples held, by label; a task without classes has one label."""
    held_out: int = 0
    """Evaluation samples of the device's own (only where the task has no common evaluation set)."""

    @property
    def version(self) -> tuple[Life, int]:
        """The key that orders the profiles of one device: the larger is the newer."""
        return (self.life, self.revision)

    @functools.cached_property
    def samples(self) -> int:
        """Training samples held, over all labels."""
        return sum(self.label_counts)

    @functools.cached_property
    def canonical(self) -> bytes:
        """The profile's canonical form; worked out once, as every view that the profile is in has a digest."""
        return canonical(self)
