"""An owner's side of rounds: what has come for its slices, and which can be merged. Pure.

Layout: `OwnSlice` (one slice), `OwnSlices` (those of one device in one generation).
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from crowd.actors.trainer.evaluations import Evaluations
from crowd.actors.trainer.patience import Patience
from crowd.actors.trainer.schedules import Schedule
from crowd.errors import MalformedMessage
from crowd.learning.evaluation import Evaluation
from crowd.planning.phase import held_out
from crowd.planning.plan import Plan, SliceOwner
from crowd.planning.round_plan import RoundPlan
from crowd.protocol.messages import Contribution
from crowd.units import DeviceId

if TYPE_CHECKING:
    import torch

    from crowd.learning.merge import SliceMerge

EVALUATION_DEADLINES = 20
"""Deadlines for which an owner waits for members' evaluations of a state that is to be kept."""
EVALUATION_LAGS = 3
"""Times that a slow member's evaluation may take what the longest did, before the run ends without it."""


def evaluation_of(header: Contribution) -> Evaluation:
    """What came with a contribution, or alone."""
    return Evaluation(sums=header.sums, samples=header.evaluated)


class OwnSlice:
    """What has come for the slice `span`, by the round that takes it."""

    def __init__(self, span: SliceOwner, plan: Plan, new: "type[SliceMerge]") -> None:
        self.span = span
        self._new = new
        self._planned: Mapping[DeviceId, int] = {}
        self._quorum = plan.quorum
        self._staleness_max = plan.staleness_max
        self._merges: dict[int, SliceMerge] = {}
        self._merging: set[int] = set()

    @property
    def rounds(self) -> frozenset[int]:
        """Rounds for which something has come."""
        return frozenset(self._merges)

    def begin(self, round_plan: RoundPlan) -> None:
        """The slice is one of this round, which is in hand from now on."""
        number, self._planned = round_plan.number, round_plan.quotas
        self._merges = {known: merge for known, merge in self._merges.items() if known >= number}
        self._merging = {known for known in self._merging if known >= number}

    def has_heard(self, sender: DeviceId, number: int) -> bool:
        merge = self._merges.get(number)
        return merge is not None and sender in merge.heard

    def taking(self, sender: DeviceId, made_for: int, in_hand: int) -> int | None:
        """The round that takes a contribution made for round `made_for`: that one, or if the plan lets it lag the
        earliest that is not merged and has none of the sender's; at most the next."""
        number = max(made_for, in_hand)
        if number == in_hand and self._staleness_max:
            number += number in self._merging or self.has_heard(sender, number)
        late = number - made_for > self._staleness_max
        return None if late or number in self._merging else number

    def merge(self, number: int, awaited_from: frozenset[DeviceId] | None) -> "SliceMerge":
        """What has come for that round; see `Schedule.awaited_from`."""
        if number not in self._merges:
            planned = self._planned
            self._merges[number] = self._new(
                planned if awaited_from is None else {trainer: planned[trainer] for trainer in awaited_from},
                self.span.stop - self.span.start,
                quorum=self._quorum if awaited_from is None else 0,
            )
        return self._merges[number]

    def ready(self, number: int, *, overdue: bool) -> "SliceMerge | None":
        """What is to be merged now, unless it is being merged: all that is awaited, or enough once it is overdue."""
        merge = self._merges.get(number)
        if merge is None or number in self._merging or not (merge.complete or (overdue and merge.enough)):
            return None
        return merge

    def awaits_deadline(self, number: int) -> bool:
        """Whether it is to be merged at the latest when it is overdue."""
        merge = self._merges.get(number)
        return number not in self._merging and merge is not None and merge.enough

    def merge_begins(self, number: int) -> None:
        self._merging.add(number)


class OwnSlices:
    """All slices that device `me` owns."""

    def __init__(
        self, plan: Plan, me: DeviceId, schedule: Schedule, patience: Patience, new: "type[SliceMerge]"
    ) -> None:
        """`new` is what contributions are gathered in; nothing here looks into their deltas."""
        self._plan = plan
        self._me = me
        self._schedule = schedule
        self._patience = patience
        self._new = new
        self._slices: dict[int, OwnSlice] = {}
        self._closing = False
        """Whether the round in hand only evaluates the state before it."""
        self._evaluations = Evaluations(plan) if held_out(plan) else None
        """What the owner of slice 0 is told, where members hold out samples."""

    @property
    def merges(self) -> int:
        """Rounds for which something has come."""
        return len(frozenset[int]().union(*(own.rounds for own in self._slices.values())))

    def begin(self, round_plan: RoundPlan) -> None:
        """This round is in hand from now on: what has come for earlier ones is forgotten, and all that has come for
        slices that are not this device's any more."""
        self._closing = round_plan.closing
        before, self._slices = self._slices, {}
        for index, span in enumerate(round_plan.slices):
            if span.owner == self._me:
                known = before.get(index)
                if known is None or known.span != span:
                    known = OwnSlice(span, self._plan, self._new)
                known.begin(round_plan)
                self._slices[index] = known

    def has_heard(self, sender: DeviceId, number: int, index: int) -> bool:
        """Whether round `number` takes a contribution of the sender's to slice `index`, if that is an own one."""
        return index in self._slices and self._slices[index].has_heard(sender, number)

    def has_heard_any(self, sender: DeviceId, number: int) -> bool:
        """The same of any own slice."""
        return any(own.has_heard(sender, number) for own in self._slices.values())

    def note(self, sender: DeviceId, header: Contribution, in_hand: int) -> None:
        """Take the evaluation that comes with a contribution, or alone. Raises `MalformedMessage` for more than the
        sender is to evaluate."""
        part = self._plan.trainer(sender)
        if self._evaluations is None and part is not None:
            start, stop = part.evaluation
            if header.evaluated > stop - start:
                raise MalformedMessage(f"{sender} evaluated {header.evaluated} samples, not {stop - start}")
        if self._evaluations is not None and header.key.index == 0:
            self._evaluations.note(sender, header.key.round, evaluation_of(header), in_hand=in_hand)

    def take(self, sender: DeviceId, header: Contribution, delta: "torch.Tensor", in_hand: int) -> bool:
        """Take a contribution to a slice that was this device's in the round that it was made for, if it still is, and
        it is not too late."""
        key = header.key
        if self._closing and key.round < in_hand:
            return False  # what was trained until now is too late for this run
        own = self._slices.get(key.index)
        number = None if own is None else own.taking(sender, key.round, in_hand)
        if own is None or number is None:
            return False
        own.merge(number, self._schedule.awaited_from(closing=self._closing)).add(
            sender,
            header.samples,
            delta,
            header.counters,
            evaluation_of(header),
            loss_sum=header.loss_sum,
            busy_us=header.busy_us,
            lag=number - key.round,
        )
        return True

    def ready(self, number: int, now_us: int) -> "Iterator[tuple[int, SliceMerge, Evaluation | None]]":
        """Index, contributions and all members' evaluations of every slice whose merge in round `number`, the one in
        hand, begins now."""
        overdue = now_us >= self._patience.deadline_us(number)
        for index, own in self._slices.items():
            merge = own.ready(number, overdue=overdue)
            if merge is None:
                continue
            if self._waits_for_evaluations(index, number) and now_us < self._evaluations_due_us(number):
                continue
            own.merge_begins(number)
            self._patience.merged(number, merge.missing)
            yield index, merge, self._summed(index, number)

    def awaited(self, number: int) -> frozenset[DeviceId]:
        """Trainers without whose contributions a slice of round `number` cannot be merged."""
        awaited_from = self._schedule.awaited_from(closing=self._closing)
        merges = [own.merge(number, awaited_from) for own in self._slices.values()]
        return frozenset(trainer for merge in merges if not merge.enough for trainer in merge.missing)

    def due_us(self, number: int) -> Iterator[int]:
        """The times at which slices of round `number` are merged with what has come."""
        for index, own in self._slices.items():
            if own.awaits_deadline(number):
                waits = self._waits_for_evaluations(index, number)
                yield self._evaluations_due_us(number) if waits else self._patience.deadline_us(number)

    def _waits_for_evaluations(self, index: int, number: int) -> bool:
        """Whether slice `index` is complete only when members beside the trainers have evaluated the present state."""
        return index == 0 and self._closing and self._evaluations is not None and self._evaluations.awaited(number)

    def _evaluations_due_us(self, number: int) -> int:
        """The time after which evaluations of a closing state are no longer waited for."""
        lag = 0 if self._evaluations is None else self._evaluations.lag_max
        began_us, patience_us = self._patience.began_us(number), self._patience.patience_us(number)
        span_us = self._patience.deadline_us(number) - began_us
        return began_us + EVALUATION_DEADLINES * patience_us + EVALUATION_LAGS * lag * span_us

    def _summed(self, index: int, number: int) -> Evaluation | None:
        """All members' evaluations, where they hold out samples of their own."""
        if index or self._evaluations is None:
            return None
        return self._evaluations.summed(number, exact=self._closing)
