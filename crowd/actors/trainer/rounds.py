"""The bookkeeping of rounds on one device (docs/protocol.md#rounds): who has contributed, when an owner merges, when a
round is complete. Pure: no I/O, no clock, no torch; times are integer microseconds.

The trainer actor feeds `Rounds` with what happens and carries out the effects that come back. `Rounds` never completes
a round by itself: it proposes (`Complete`), the agreement decides, and `accepted` or `freeze` follows.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import attrs

from crowd.actors.trainer.course import Course, Standing, Waypoint
from crowd.actors.trainer.deadlines import Deadlines
from crowd.actors.trainer.effects import (
    AskForSlice,
    Begin,
    Complete,
    Effect,
    Fetch,
    Merge,
    ReportHeldUp,
    ReportSilence,
)
from crowd.actors.trainer.merged_parts import MergedParts
from crowd.actors.trainer.own_slices import OwnSlices
from crowd.actors.trainer.patience import HELD_UP_AGAIN_US, Patience
from crowd.actors.trainer.schedules import Schedule, schedule_of
from crowd.agreement.ack import StateProgress
from crowd.agreement.state import Active
from crowd.planning import round_plan
from crowd.planning.plan import Plan
from crowd.protocol.messages import Contribution, MergedSlice, SliceKey
from crowd.units import DeviceId

if TYPE_CHECKING:
    import torch

    from crowd.learning.merge import SliceMerge

SLICES_MAX = 256
"""Most slices of a later round, whose plan is not known yet, of which anything is kept."""
NOTHING = Active(
    generation=0, view_digest=b"", plan_digest=b"", plan=Plan(members=()), start=StateProgress(), holders=()
)
"""What is active before the first plan."""


class Rounds(Course):
    """One device's rounds within the generation that is active on it."""

    def __init__(self, me: DeviceId, new: "type[SliceMerge]") -> None:
        """`new` is what contributions to a slice in one round are gathered in."""
        super().__init__(me)
        self._new = new
        self.reset(Waypoint())

    def reset(self, state: Standing) -> None:
        super().reset(state)
        self._catching_up = False
        self._deadlines = Deadlines()
        self._take_up(NOTHING, rtt_us=0)

    def _take_up(self, active: Active, *, rtt_us: int) -> None:
        self.schedule: Schedule = schedule_of(active, self._me)
        self._patience = Patience(active.plan, self._deadlines, rtt_us=rtt_us)
        self._own = OwnSlices(active.plan, self._me, self.schedule, self._patience, self._new)
        self._parts = MergedParts(self._me)
        self._round_plans = {}
        self._proposed = False
        self._trained = 0

    def kept(self) -> Mapping[str, int]:
        """How many rounds it knows merged slices of, and how many it merges."""
        return {"rounds ahead": len(self._parts), "merges": self._own.merges}

    # --- the life of a generation -------------------------------------------------------------------------------------

    def activate(self, active: Active, now_us: int, *, rtt_us: int = 0) -> tuple[Effect, ...]:
        """Begin a new generation, where messages take `rtt_us` to come back: forget the rounds of the last one, get the
        start, begin its first round."""
        self._take_up(active, rtt_us=rtt_us)
        self._active, self._frozen = active, False
        self._deadlines.keep({trainer.device for trainer in active.plan.trainers})
        self._fetching, self._catching_up = self.progress != active.start, False
        if self._fetching:
            return (Fetch(progress=active.start, holders=active.holders),)
        return self._begin(now_us)

    def fetched(self, state: Standing, now_us: int) -> tuple[Effect, ...]:
        """Go on from the loaded state: the start, or a later one of this generation."""
        self._fetching, self._catching_up, self._proposed = False, False, False
        self._state = state
        return self._begin(now_us)

    def restart_clocks(self, now_us: int) -> None:
        """Restart all deadlines after a lost connection: nobody is to blame for what did not come meanwhile."""
        self._patience.restart(self.in_hand, now_us)

    def may_contribute(self, generation: int, number: int) -> bool:
        """Whether owners may take what this device has trained for round `number` of that generation."""
        active = self._active
        if active is None or self._frozen or generation != active.generation:
            return False
        return number == self.in_hand or self.schedule.detached

    def trained(self, number: int) -> None:
        """Note that this device has trained its part of the round: whoever has not may be what the others wait for, and
        blames nobody."""
        self._trained = number

    def reject(self, number: int, index: int) -> None:
        """Drop a proposed part that turned out to be unusable: it counts as never come."""
        self._parts.drop(number, index)
        self._proposed = False

    def accepted(self, state: Standing, now_us: int) -> tuple[Effect, ...]:
        """Go on after the proposed round was completed, which has led to `state`."""
        self._proposed, self._catching_up = False, False
        self._patience.completed(self.in_hand, now_us)
        self._state = state
        return self._begin(now_us)

    def _begin(self, now_us: int) -> tuple[Effect, ...]:
        active = self._active
        if active is None or self._frozen or not active.plan.has_work or self.progress.finished:
            return ()
        plan = round_plan.plan_round(active.plan, self._state)
        oldest = self.in_hand - 1 - active.plan.staleness_max
        self._round_plans = {known: each for known, each in self._round_plans.items() if known >= oldest}
        self._round_plans[self.in_hand] = plan
        self._own.begin(plan)
        self._parts.begin(self.in_hand, plan.slices)
        self._patience.begin(self.in_hand, plan.span_us, now_us)
        if not self.schedule.follows:
            return (Begin(round=self.in_hand),)
        # a device that lags applies what the others have merged; it does not train for rounds that are over
        return self._propose() or (Begin(round=self.in_hand), *self._ready(now_us))

    # --- an owner's side ----------------------------------------------------------------------------------------------

    def contribute(
        self, sender: DeviceId, header: Contribution, delta: "torch.Tensor", now_us: int
    ) -> tuple[Effect, ...]:
        """Take a trainer's decoded delta of one of this device's slices; the key is checked here."""
        key = header.key
        if not self.is_mine(key):
            return ()
        self._patience.heard(sender, key.round, now_us)
        self._own.note(sender, header, self.in_hand)
        if self._frozen or not self._own.take(sender, header, delta, self.in_hand):
            return ()
        return self._ready(now_us)

    def evaluated(self, sender: DeviceId, header: Contribution, now_us: int) -> tuple[Effect, ...]:
        """Take the evaluation of a member that trains nothing."""
        active = self._active
        if active is None or not active.covers(header.key):
            return ()
        self._own.note(sender, header, self.in_hand)
        return self._ready(now_us)

    def renew(self) -> tuple[Effect, ...]:
        """Begin the next local steps where these do not wait for rounds, if nothing of the last ones is on its way:
        from the newest state. An owner holds that already, and waits for the round that its last contribution is in."""
        if self._active is None or self._frozen or self.progress.finished or not self.has_begun:
            return ()
        if not self.schedule.detached or not self.schedule.is_free:
            return ()
        if self.schedule.follows:
            waits = self._proposed or self.keeps_waiting(self._me) or self._own.has_heard_any(self._me, self.in_hand)
            return () if waits else (Begin(round=self.in_hand),)
        self._catching_up = True
        newest = attrs.evolve(self.progress, digest=b"")
        return (Fetch(progress=newest, holders=(self.round_plan.slices[0].owner,)),)

    def keeps_waiting(self, device: DeviceId) -> bool:
        """Whether `device` gets no newer state of an asynchronous plan before the present one has been evaluated, in
        which it has no part, or has done it."""
        awaited = self.schedule.awaited_from(closing=self._state.closing)
        return awaited is not None and (device not in awaited or self._own.has_heard(device, self.in_hand, 0))

    def _ready(self, now_us: int) -> tuple[Effect, ...]:
        """Merge every own slice of the round in hand that is complete, or whose deadline has passed with enough."""
        if self._active is None or self._frozen or self._fetching:
            return ()
        ready = self._own.ready(self.in_hand, now_us)
        return tuple(
            Merge(key=self._key(self.in_hand, index), merge=merge, evaluation=evaluation)
            for index, merge, evaluation in ready
        )

    # --- everybody's side ---------------------------------------------------------------------------------------------

    def merged(self, sender: DeviceId, header: MergedSlice, data: bytes, now_us: int) -> tuple[Effect, ...]:
        """Take a merged slice from its owner (this device included)."""
        key, active = header.key, self._active
        if active is None or not active.covers(key):
            return ()
        if key.round < self.in_hand or not self.schedule.follows:
            return ()
        if not self.is_ahead(key.generation, key.round):
            span = self.span(key)
            if span is None or span.owner != sender:
                return ()
        elif active.plan.life_of(sender) is None or not 0 <= key.index < SLICES_MAX:
            return ()
        self._parts.take(sender, header, data)
        return self._propose()

    def _propose(self) -> tuple[Effect, ...]:
        active = self._active
        if active is None or self._frozen or self._fetching or self._proposed or not active.plan.has_work:
            return ()
        parts = self._parts.complete(self.in_hand)
        if parts is None or self.progress.finished:
            return ()
        self._proposed = True
        return (Complete(generation=active.generation, round=self.in_hand, parts=parts),)

    def tick(self, now_us: int) -> tuple[Effect, ...]:
        """Act on passed deadlines: those of own slices, and of slices of others that should have come."""
        waits = self._active is None or self._frozen or self._fetching or not self.schedule.follows
        if waits or not self._patience.has_begun(self.in_hand):
            return ()
        if not (self._proposed or self._catching_up) and self._parts.is_left_behind(self.in_hand):
            return (self._catch_up(tuple(sorted({span.owner for _, span in self._parts.missing(self.in_hand)}))),)
        effects = list(self._ready(now_us))
        effects.extend(self._held_up(now_us))
        for index, span in self._parts.missing(self.in_hand):
            if self._patience.ask_due_us(self.in_hand, index) > now_us:
                continue
            effects.append(AskForSlice(owner=span.owner, key=self._key(self.in_hand, index)))
            if self._patience.ask(self.in_hand, index, now_us):
                effects.append(ReportSilence(device=span.owner))
        return tuple(effects)

    def not_yet(self, owner: DeviceId, key: SliceKey, now_us: int) -> None:
        """Excuse the owner, which lives and waits for others."""
        if self._awaits(owner, key):
            self._patience.excuse(self.in_hand, now_us)

    def over(self, owner: DeviceId, key: SliceKey) -> tuple[Effect, ...]:
        """Catch up with an owner that no longer keeps the missing slice, as nothing later may ever come."""
        if not self._awaits(owner, key) or self._frozen or self._fetching or self._proposed or self._catching_up:
            return ()
        return (self._catch_up((owner,)),)

    def _catch_up(self, holders: tuple[DeviceId, ...]) -> Fetch:
        self._catching_up = True
        return Fetch(progress=attrs.evolve(self.progress, round=self.in_hand, digest=b""), holders=holders)

    def _awaits(self, owner: DeviceId, key: SliceKey) -> bool:
        """Whether this slice of the round in hand is that owner's."""
        span = self.span(key)
        return span is not None and key.round == self.in_hand and span.owner == owner

    def _held_up(self, now_us: int) -> Iterator[ReportHeldUp]:
        """For whom the round in hand waits. No answer changes since when: it shows that a device lives, not that it
        works. Owners may wait for trainers, and these in a first round for a state or for samples."""
        if now_us < self._patience.report_us or not self._has_trained or self._catching_up:
            return
        self._patience.report_us = now_us + HELD_UP_AGAIN_US
        assert self._active is not None
        links = int(self.in_hand == self._active.start.round + 1) + self.schedule.exchanges
        trainers = self._own.awaited(self.in_hand)
        owners = {span.owner for _, span in self._parts.missing(self.in_hand)} - self.beyond(self.in_hand)
        for devices, among in ((trainers - {self._me}, links), (owners - trainers, links + 1)):
            if devices:
                yield ReportHeldUp(devices=frozenset(devices), since_us=self._patience.since_us, links=among)

    def beyond(self, number: int) -> frozenset[DeviceId]:
        """Owners that do not stand still, whatever is missing of them: they have merged a later round than `number`."""
        return self._parts.ahead(number)

    @property
    def _has_trained(self) -> bool:
        """Whether this device has done its own part of the round in hand, if it has one."""
        assert self._active is not None
        plan = self._active.plan
        return self._trained >= self.in_hand or not self.schedule.awaits_own_steps or plan.trainer(self._me) is None

    def next_deadline_us(self) -> int | None:
        """The time at which `tick` has something to do, if nothing else happens before; `None`: never."""
        if self._active is None or self._frozen or self._fetching or self._proposed:
            return None
        if not self._patience.has_begun(self.in_hand) or self.progress.finished or not self._active.plan.has_work:
            return None
        if self._catching_up or not self.schedule.follows:
            return None
        if self._parts.is_left_behind(self.in_hand):
            return 0
        due = [self._patience.ask_due_us(self.in_hand, index) for index, _ in self._parts.missing(self.in_hand)]
        if self._has_trained:
            due.append(self._patience.report_us)
        due.extend(self._own.due_us(self.in_hand))
        return min(due, default=None)
