"""A plan without what differs from run to run, so that plans of different backends compare: `PlanSummary`."""

from typing import Any, Self

import attrs

from crowd.planning.plan import Plan
from crowd.units import SECOND_US


@attrs.frozen(kw_only=True)
class PlanSummary:
    """A plan without the lives of its members, which are drawn at each start."""

    why: str
    encoding: str
    """Encoding of deltas."""
    round_us: int
    """Planned microseconds of a round."""
    samples: tuple[tuple[str, int], ...]
    """Samples of each round, by trainer."""
    slices: tuple[tuple[str, int], ...]
    """Elements of the state that are merged, by their owner."""
    moved: int
    """Samples that are lent."""

    idle: tuple[tuple[str, tuple[int, str]], ...] = ()
    """Samples that nobody trains and why, by device."""
    asynchronous: bool = False
    """Whether merges wait for nobody."""

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """The summary of `plan`."""
        return cls(
            why=plan.why,
            encoding=plan.encoding.value,
            round_us=plan.round_us,
            samples=tuple((trainer.device, trainer.round_samples) for trainer in plan.trainers),
            slices=tuple((part.owner, part.stop - part.start) for part in plan.slices),
            asynchronous=plan.asynchronous,
            idle=tuple(plan.idle_by_device().items()),
            moved=sum(each.samples for each in plan.assignments if each.lender != each.trainer),
        )

    def record(self) -> dict[str, Any]:
        """The summary as JSON has it; times in seconds."""
        return {
            "why": self.why,
            "form": self.encoding,
            "round_s": self.round_us / SECOND_US,
            "samples": dict(self.samples),
            "slices": dict(self.slices),
            "moved": self.moved,
            "idle": {device: list(samples_and_reason) for device, samples_and_reason in self.idle},
        }
