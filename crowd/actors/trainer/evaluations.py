"""Evaluations without a common set, as the owner of slice 0 hears of them: `Evaluations`. Pure."""

from typing import NamedTuple

from crowd.errors import MalformedMessage
from crowd.learning.evaluation import NOTHING, Evaluation, total
from crowd.planning.phase import decides
from crowd.planning.plan import Plan
from crowd.units import DeviceId, ceil_div


def epoch_rounds(plan: Plan) -> int:
    """Rounds in which the plan's trainers train about an epoch, at least 1."""
    return ceil_div(max(1, plan.samples_total), max(1, sum(trainer.round_samples for trainer in plan.trainers)))


class _Told(NamedTuple):
    """One member's evaluation of the state before round `number`."""

    number: int
    evaluation: Evaluation
    good_until: int
    """The last round in which it counts."""


class Evaluations:
    """The latest evaluation of each member on the part of its data that it holds out, under one plan in which some do.

    A trainer's comes with its contribution, another member's by itself, and perhaps rounds later. One that is older
    than an epoch is out of date; where it took so many rounds itself, by twice as many more. So the sums follow slow
    members too; what ends a run is an evaluation of one state by all.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._held_out = {member.device: member.held_out for member in plan.members if member.held_out}
        self._epoch_rounds = epoch_rounds(plan)
        self._latest: dict[DeviceId, _Told] = {}
        self._news = False
        self.lag_max = 0
        """The most rounds that an evaluation took."""

    def note(self, device: DeviceId, number: int, evaluation: Evaluation, *, in_hand: int) -> None:
        """Take the evaluation of the state before round `number`, which comes in round `in_hand`; after a member's
        later one an earlier one is ignored.
        Raises `MalformedMessage` for more samples than the member holds out."""
        if not evaluation.samples:
            return
        if evaluation.samples > self._held_out.get(device, 0):
            raise MalformedMessage(f"{device} evaluated {evaluation.samples} samples, more than it holds out")
        if device not in self._latest or number > self._latest[device].number:
            lag = max(0, in_hand - number)
            self.lag_max = max(self.lag_max, lag)
            self._latest[device] = _Told(number, evaluation, good_until=number + self._epoch_rounds + 2 * lag)
            self._news = True

    def awaited(self, number: int) -> bool:
        """Whether some member has not evaluated the very state before round `number`."""
        return any(device not in self._latest or self._latest[device].number < number for device in self._held_out)

    def summed(self, number: int, *, exact: bool) -> Evaluation:
        """All members' evaluations at round `number`, added up in the order of their IDs; `exact`: only those of the
        state before it, however few. Nothing without any news since the last sum, as nothing is told twice, or if they
        cover too little to decide anything."""
        if not self._news:
            return NOTHING
        self._news = False
        told = [each for _, each in sorted(self._latest.items())]
        summed = total(each.evaluation for each in told if number <= (each.number if exact else each.good_until))
        return summed if exact or decides(self._plan, summed.samples) else NOTHING
