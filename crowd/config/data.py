"""The division of a built-in task's data set among devices: `PartitionKind`, `PartitionConfig`, `DataConfig`."""

import enum

import attrs

from crowd.config import validators
from crowd.errors import BadConfig


class PartitionKind(enum.Enum):
    """The way in which a data set is divided among devices."""

    IID = "iid"
    """Every label evenly."""
    DIRICHLET = "dirichlet"
    """Label skew: each label is divided in proportions drawn from Dirichlet(alpha)."""
    SUBJECT = "subject"
    """One person's recordings per device, where the data set has subjects."""


@attrs.frozen(kw_only=True)
class PartitionConfig:
    """The division of a built-in task's data set."""

    partition: PartitionKind = attrs.field(default=PartitionKind.IID, converter=PartitionKind)
    alpha: float = attrs.field(default=0.3, validator=validators.positive)
    """Concentration of the Dirichlet distribution: the smaller, the more the labels are skewed."""


@attrs.frozen(kw_only=True)
class DataConfig(PartitionConfig):
    """The part of a built-in task's data set that this device plays the owner of."""

    part: int = attrs.field(validator=validators.must("at least 0", lambda value: value >= 0))
    """Number of this device's part, from 0."""
    parts: int = attrs.field(validator=validators.at_least_one)
    """Number of parts into which the data set is divided."""

    def __attrs_post_init__(self) -> None:
        if self.part >= self.parts:
            raise BadConfig(f"part: expected less than parts ({self.parts}), found {self.part} (parts count from 0)")
