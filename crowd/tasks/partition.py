"""The parts into which a built-in data set is divided among devices."""

from typing import Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from crowd.errors import BadConfig

Indices = NDArray[np.int64]


@attrs.frozen(kw_only=True)
class Partition:
    """Part `part` of `parts` of a data set. Equal values always name the same samples.

    `iid`: every label evenly; `dirichlet`: each label's samples in proportions drawn from Dir(`alpha`), the smaller
    `alpha` the more skewed; `subject`: whole subjects, dealt round robin (data sets that have subjects).
    """

    kind: Literal["iid", "dirichlet", "subject"] = attrs.field(
        default="iid", validator=attrs.validators.in_(("iid", "dirichlet", "subject"))
    )
    alpha: float = attrs.field(default=0.3, validator=attrs.validators.gt(0.0))
    part: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    parts: int = attrs.field(default=1, validator=attrs.validators.gt(0))
    seed: int = attrs.field(default=0, validator=attrs.validators.ge(0))

    def __attrs_post_init__(self) -> None:
        if self.part >= self.parts:
            raise ValueError(f"part {self.part} does not exist: parts = {self.parts}, counted from 0")


def split(labels: Indices, partition: Partition, subjects: Indices | None = None) -> Indices:
    """The indices (samples,) int64, ascending, of the samples in this part of a data set with these `labels` (and
    `subjects`), each (samples,) int64.

    The parts of one split are disjoint and cover the data set; if there are at least as many samples (for `subject`:
    subjects) as parts, none is empty. Raises `BadConfig` for `subject` without subjects.
    """
    random = np.random.Generator(np.random.PCG64(partition.seed))
    match partition.kind:
        case "iid":
            owners = _iid(labels, partition.parts, random)
        case "dirichlet":
            owners = _dirichlet(labels, partition, random)
        case "subject":
            if subjects is None:
                raise BadConfig('this data set has no subjects: choose partition = "iid" or "dirichlet"')
            owners = np.unique(subjects, return_inverse=True)[1] % partition.parts
    return np.flatnonzero(owners == partition.part)


def _iid(labels: Indices, parts: int, random: np.random.Generator) -> Indices:
    """The owner of every sample: the samples, sorted by label and shuffled within, are dealt round robin."""
    order = random.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    owners = np.empty(len(labels), dtype=np.int64)
    owners[order] = np.arange(len(labels)) % parts
    return owners


def _dirichlet(labels: Indices, partition: Partition, random: np.random.Generator) -> Indices:
    """The owner of every sample, label by label in proportions of their own."""
    owners = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        shares = random.dirichlet(np.full(partition.parts, partition.alpha))
        cuts = np.rint(np.cumsum(shares) * len(members)).astype(np.int64)[:-1]
        for owner, indices in enumerate(np.split(members, cuts)):
            owners[indices] = owner
    _fill_empty_parts(owners, partition.parts, random)
    return owners


def _fill_empty_parts(owners: Indices, parts: int, random: np.random.Generator) -> None:
    """Give each empty part one sample of the part that then has the most, if there are enough samples."""
    sizes = np.bincount(owners, minlength=parts)
    for empty in np.flatnonzero(sizes == 0):
        largest = int(sizes.argmax())
        if sizes[largest] < 2:
            return
        owners[random.choice(np.flatnonzero(owners == largest))] = empty
        sizes[largest] -= 1
        sizes[empty] += 1
