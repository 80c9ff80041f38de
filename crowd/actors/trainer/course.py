"""Where one device stands: the generation that is active on it, and the last round that is complete. Pure."""

from typing import Protocol

import attrs

from crowd.agreement.ack import StateProgress
from crowd.agreement.state import Active
from crowd.planning.phase import Counts
from crowd.planning.plan import SliceOwner
from crowd.planning.round_plan import RoundPlan
from crowd.planning.round_report import RoundReport
from crowd.protocol.messages import SliceKey, WholeState
from crowd.units import DeviceId


class Standing(Counts, Protocol):
    """What is to be known of a state to go on from it; `ReplicaState` has it."""

    @property
    def progress(self) -> StateProgress: ...


@attrs.frozen(kw_only=True)
class Waypoint:
    """A place in a run, without the state that is there."""

    progress: StateProgress = attrs.field(factory=StateProgress)
    streak: int = 0
    epochs_ppb: int = 0
    closing: bool = False
    report: RoundReport = attrs.field(factory=RoundReport)

    @property
    def round(self) -> int:
        """Number of the last complete round."""
        return self.progress.round


class Course:
    """What belongs to the generation that is active on one device, and what to another."""

    def __init__(self, me: DeviceId) -> None:
        self._me = me
        self._active: Active | None = None
        self._state: Standing = Waypoint()
        self._frozen = True
        self._fetching = False
        """Whether the start of the generation has not come yet."""
        self._round_plans: dict[int, RoundPlan] = {}
        """Of the round in hand, and of those before it whose contributions may still come."""

    @property
    def active(self) -> Active | None:
        return self._active

    @property
    def progress(self) -> StateProgress:
        return self._state.progress

    @property
    def in_hand(self) -> int:
        """The round that is being worked on, or that will be when the start has come."""
        if self._fetching and self._active is not None:
            return self._active.start.round + 1
        return self._state.round + 1

    @property
    def round_plan(self) -> RoundPlan:
        """How the round in hand is trained and merged, which must have begun."""
        return self._round_plans[self.in_hand]

    @property
    def has_begun(self) -> bool:
        """Whether the round in hand has begun, so that its plan is known."""
        return self.in_hand in self._round_plans

    @property
    def published(self) -> bool:
        """Whether merged slices of the round in hand are told to everybody, as far as this is known."""
        return not self.has_begun or self.round_plan.published

    @property
    def frozen(self) -> bool:
        return self._frozen

    @property
    def lineage(self) -> tuple[int, bytes]:
        """Generation and digest of the plan to whose lineage the present state belongs; 0 and empty before its start
        has come."""
        if self._active is None or self._fetching:
            return 0, b""
        return self._active.generation, self._active.plan_digest

    def serves(self, arrived: WholeState, wanted: StateProgress) -> bool:
        """Whether `arrived` is the wanted state, or a later one of the plan that is active here: another plan's rounds,
        however many, belong to another lineage."""
        active, told = self._active, arrived.progress
        is_of_course = active is not None and active.covers(arrived)
        return told == wanted or (is_of_course and told >= max(wanted, self.progress))

    def reset(self, state: Standing) -> None:
        """Begin with a state from outside any generation, and forget everything else."""
        self._active = None
        self._state = state
        self._round_plans = {}
        self._frozen, self._fetching = True, False

    def is_ahead(self, generation: int, number: int = 0) -> bool:
        """Whether this generation, or round `number` of it, has not begun here yet, so that what is told of it is kept
        and tried again then."""
        if self._active is None or generation > self._active.generation:
            return True
        return generation == self._active.generation and number > self.in_hand - self._fetching

    def span(self, key: SliceKey) -> SliceOwner | None:
        """The slice of that name, if it is one of the round in hand, or of one before it that may still be spoken
        of."""
        active, plan = self._active, self._round_plans.get(key.round)
        if active is None or plan is None or not active.covers(key):
            return None
        return plan.slices[key.index] if 0 <= key.index < len(plan.slices) else None

    def is_mine(self, key: SliceKey) -> bool:
        """Whether this device merges that slice."""
        span = self.span(key)
        return span is not None and span.owner == self._me

    def _key(self, number: int, index: int) -> SliceKey:
        assert self._active is not None
        return SliceKey(
            generation=self._active.generation, plan_digest=self._active.plan_digest, round=number, index=index
        )

    def freeze(self) -> None:
        """Stop merging and completing rounds, as a plan of a later generation is acked."""
        self._frozen = True
