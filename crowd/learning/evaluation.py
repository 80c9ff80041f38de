"""What an evaluation says: `Evaluation`, the sums of a metric over some samples. Without torch."""

from collections.abc import Iterable

import attrs


@attrs.frozen(kw_only=True)
class Evaluation:
    """The sums of a metric over `samples`; without any there are none."""

    sums: tuple[float, ...] = ()
    samples: int = 0

    def __add__(self, other: "Evaluation") -> "Evaluation":
        """Of the samples of both."""
        if not (self.samples and other.samples):
            return self if self.samples else other
        added = (mine + theirs for mine, theirs in zip(self.sums, other.sums, strict=True))
        return Evaluation(sums=tuple(added), samples=self.samples + other.samples)


NOTHING = Evaluation()
"""What an evaluation of no samples says."""


def total(evaluations: Iterable[Evaluation]) -> Evaluation:
    """All `evaluations` as one, added up in their order."""
    return sum(evaluations, NOTHING)
