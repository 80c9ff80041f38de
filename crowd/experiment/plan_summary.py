"""A plan without what differs from run to run, so that plans of different backends compare: `PlanSummary`."""

from typing import Any, Self

import attrs

from crowd.planning.plan import Plan
from crowd.units import SECOND_US


@attrs.frozen(kw_only=True)
class PlanSummary:
    """What a plan asks of whom. The lives of its members, which are drawn at each start, are left out."""

    why: str
    encoding: str
    """In which deltas travel."""
    round_us: int
    """How long a round should take."""
    samples: tuple[tuple[str, int], ...]
    """Of each round, by trainer."""
    slices: tuple[tuple[str, int], ...]
    """Elements of the state that are merged, by their owner."""
    moved: int
    """Samples that are lent."""

    asynchronous: bool = False
    """Whether merges wait for nobody."""

    @classmethod
    def of(cls, plan: Plan) -> Self:
        return cls(
            why=plan.why,
            encoding=plan.encoding.value,
            round_us=plan.round_us,
            samples=tuple((trainer.device, trainer.round_samples) for trainer in plan.trainers),
            slices=tuple((part.owner, part.stop - part.start) for part in plan.slices),
            asynchronous=plan.asynchronous,
            moved=sum(each.samples for each in plan.assignments if each.lender != each.trainer),
        )

    def record(self) -> dict[str, Any]:
        """As JSON has it; times in seconds."""
        return {
            "why": self.why,
            "form": self.encoding,
            "round_s": self.round_us / SECOND_US,
            "samples": dict(self.samples),
            "slices": dict(self.slices),
            "moved": self.moved,
        }
