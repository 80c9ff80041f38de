"""Whose samples the rounds go on without, whatever the plan says: `Turnout`. Pure."""

from collections import Counter

from crowd.planning.plan import Plan
from crowd.protocol.messages import MergedSlice
from crowd.units import DeviceId

HARDLY_DIVISOR = 10
"""A device has hardly trained if less than one part in so many was merged of what it was to train."""
SEEN_DIVISOR = 2
"""Who has seen less than one part in so many of a run's rounds cannot say what was trained in it."""


class Turnout:
    """What each trainer was to train in the rounds of a run that this device has seen, and what of it was merged. In
    samples, each as often as it was trained."""

    def __init__(self) -> None:
        self._rounds = 0
        self._planned: Counter[DeviceId] = Counter()
        self._merged: Counter[DeviceId] = Counter()
        self._refused: Counter[DeviceId] = Counter()

    def note(self, plan: Plan, first: MergedSlice) -> None:
        """A round of `plan` is complete, with `first` as its slice 0. In rounds in which nobody trains nobody is to.

        A merge of an asynchronous plan takes a quorum of contributions, from whomever they are: each trainer is taken
        to be meant equally often.
        """
        self._rounds += 1
        if not any(first.senders.values()):
            return
        taken = len(plan.trainers) if not plan.asynchronous else plan.quorum or len(plan.trainers)
        for trainer in plan.trainers:
            share = trainer.round_samples * taken // len(plan.trainers)
            self._planned[trainer.device] += share
            if trainer.device in first.refused:
                self._refused[trainer.device] += share
        self._merged.update(first.senders)

    def hardly_trained(self, plan: Plan, number: int) -> dict[str, tuple[int, str]] | None:
        """By device, how many of its samples are planned for trainers of which hardly anything was merged until round
        `number`, and why; `None` if this device has not seen enough of the run to say."""
        if SEEN_DIVISOR * self._rounds < number:
            return None
        found: dict[str, tuple[int, str]] = {}
        for assignment in plan.assignments:
            if assignment.samples and self._has_hardly_trained(assignment.trainer):
                samples, reasons = found.get(assignment.lender, (0, ""))
                reason = self._reason(assignment.trainer)
                reasons = f"{reasons}; {reason}" if reasons else reason
                found[assignment.lender] = (samples + assignment.samples, reasons)
        return found

    def _has_hardly_trained(self, trainer: DeviceId) -> bool:
        return HARDLY_DIVISOR * self._merged[trainer] < self._planned[trainer]

    def _reason(self, trainer: DeviceId) -> str:
        of_all = f"of {self._planned[trainer]:,} that {trainer} was to train in the rounds {self._merged[trainer]:,}"
        if 2 * self._refused[trainer] > self._planned[trainer]:
            return f"{of_all} count, as its contributions were out of all proportion"
        return f"{of_all} count, as the rounds ended before its contributions came"
