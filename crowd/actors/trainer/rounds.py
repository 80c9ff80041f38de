"""The bookkeeping of rounds on one device (docs/protocol.md#rounds): who has contributed, when an owner merges, when a
round is complete. Pure: no I/O, no clock; times are integer microseconds.

The trainer actor feeds `Rounds` with what happens and carries out the effects that come back. `Rounds` never completes
a round by itself: it proposes (`Complete`), the agreement decides, and `accepted` or `freeze` follows.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import attrs
import torch

from crowd.actors.trainer.deadlines import Deadlines
from crowd.actors.trainer.evaluations import Evaluations
from crowd.agreement.ack import StateProgress
from crowd.agreement.state import Active
from crowd.learning.ending import held_out
from crowd.learning.merge import SliceMerge
from crowd.planning.plan import SliceOwner
from crowd.protocol.messages import Contribution, MergedSlice, SliceKey, WholeState
from crowd.units import SECOND_US, DeviceId

DEADLINES_MAX = 3
"""Missed deadlines after which a silent owner is reported."""

HELD_UP_AGAIN_US = SECOND_US
"""The period in which it is reported for whom the round in hand waits."""

EVALUATION_DEADLINES = 20
"""Deadlines for which an owner waits for members' evaluations of a state that is to be kept."""
EVALUATION_LAGS = 3
"""Times that a slow member's evaluation may take what the longest did, before the run ends without it."""

QUESTION_US_MIN = SECOND_US // 10
"""What a question for a slice and its answer take at least, beside two round trips."""
FIRST_PATIENCE_US = SECOND_US
"""What a first round, of which plans know little, is given at least."""
LATELY_ROUNDS = 3
"""Of so many rounds the longest tells when a slice is late."""
QUESTIONS_IN_A_ROW, BACKOFF_EXPONENT_MAX = 4, 5
"""Questions for a slice after which the pause before the next one doubles, and how often it does."""

ROUNDS_AHEAD_MAX = 4
"""Rounds before the latest it heard of whose merged slices a lagging device keeps."""

KEPT_ROUNDS = 2
"""Rounds whose slices an owner keeps; a device further behind fetches a whole state."""


@attrs.frozen(kw_only=True)
class Begin:
    """Start the local steps of this round from the present state."""

    round: int


@attrs.frozen(kw_only=True)
class Fetch:
    """Get this state, or a later one of the same generation, from one of these devices."""

    progress: StateProgress
    holders: tuple[DeviceId, ...]


@attrs.frozen(kw_only=True)
class Merge:
    """Average the contributions to one of this device's slices and publish the mean under this key."""

    key: SliceKey
    merge: SliceMerge
    evaluation: tuple[int, int] | None = None
    """`(correct, evaluated)` of the members without a common evaluation set; `None`: what the contributions say."""


@attrs.frozen(kw_only=True)
class MergedPart:
    """One merged slice as it was published."""

    header: MergedSlice
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


@attrs.frozen(kw_only=True)
class Complete:
    """All merged slices of the next round are here, in the order of the plan's slices."""

    generation: int
    round: int
    parts: tuple[MergedPart, ...]


@attrs.frozen(kw_only=True)
class AskForSlice:
    owner: DeviceId
    key: SliceKey


@attrs.frozen(kw_only=True)
class ReportSilence:
    """Report that this owner's slice has not come for several deadlines, and that it says nothing to that."""

    device: DeviceId


@attrs.frozen(kw_only=True)
class ReportHeldUp:
    """Report for whom the round in hand waits, since when, and how many others those may be waiting for in turn."""

    devices: frozenset[DeviceId]
    since_us: int
    links: int


Effect: TypeAlias = Begin | Fetch | Merge | Complete | AskForSlice | ReportSilence | ReportHeldUp


class Rounds:
    """One device's rounds within the generation that is active on it."""

    def __init__(self, me: DeviceId) -> None:
        self._me = me
        self._active: Active | None = None
        self._evaluations: Evaluations | None = None
        """Where this device owns slice 0 and members hold out samples."""
        self._progress = StateProgress()
        self._frozen = True
        self._closing = False
        """Whether the round in hand only evaluates the present state."""
        self._fetching = False
        self._catching_up = False
        self._deadlines = Deadlines()
        self._question_us = QUESTION_US_MIN
        self._lately_us: deque[int] = deque(maxlen=LATELY_ROUNDS)
        """How long the last complete rounds of this generation took here."""
        self._clear()

    def _clear(self) -> None:
        self._merges: dict[tuple[int, int], SliceMerge] = {}
        self._merging: set[tuple[int, int]] = set()
        self._began_us: dict[int, int] = {}
        self._parts: dict[int, dict[int, MergedPart]] = {}
        self._asked_us: dict[int, int] = {}
        self._questions: Counter[int] = Counter()
        self._proposed = False
        self._trained = 0
        self._since_us = self._report_us = 0

    def kept(self) -> Mapping[str, int]:
        """How many rounds it knows merged slices of, and how many it merges."""
        return {"rounds ahead": len(self._parts), "merges": len({number for number, _ in self._merges})}

    # --- the life of a generation -------------------------------------------------------------------------------------

    @property
    def active(self) -> Active | None:
        return self._active

    @property
    def progress(self) -> StateProgress:
        return self._progress

    @property
    def in_hand(self) -> int:
        """The round that is being worked on, or that will be when the start has come."""
        if self._fetching and self._active is not None:
            return self._active.start.round + 1
        return self._progress.round + 1

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
        lineage = None if active is None else (active.generation, active.plan_digest)
        is_of_course = (arrived.generation, arrived.plan_digest) == lineage
        return told == wanted or (is_of_course and told >= max(wanted, self._progress))

    def reset(self, progress: StateProgress) -> None:
        """Take over a state from outside any generation (initialised, or loaded)."""
        self._progress = progress

    def activate(self, active: Active, now_us: int, *, rtt_us: int = 0) -> tuple[Effect, ...]:
        """Begin a new generation, where messages take `rtt_us` to come back: forget the rounds of the last one, get the
        start, begin its first round."""
        self._clear()
        self._question_us = QUESTION_US_MIN + 2 * rtt_us
        self._lately_us.clear()
        self._active, self._frozen = active, False
        told = bool(active.plan.slices) and active.plan.slices[0].owner == self._me and held_out(active.plan)
        self._evaluations = Evaluations(active.plan) if told else None
        self._deadlines.keep({trainer.device for trainer in active.plan.trainers})
        self._fetching, self._catching_up = self._progress != active.start, False
        if self._fetching:
            return (Fetch(progress=active.start, holders=active.holders),)
        return self._begin(now_us)

    def is_ahead(self, generation: int) -> bool:
        """Whether this generation is not active here yet, so that its messages are kept and tried again then."""
        return self._active is None or generation > self._active.generation

    def fetched(self, progress: StateProgress, now_us: int, *, closing: bool = False) -> tuple[Effect, ...]:
        """Go on from the loaded state: the start, or a later one of this generation. `closing`: see `ReplicaState`."""
        self._closing = closing
        self._fetching, self._catching_up, self._proposed = False, False, False
        self._progress = progress
        return self._begin(now_us)

    def restart_clocks(self, now_us: int) -> None:
        """Restart all deadlines after a lost connection: nobody is to blame for what did not come meanwhile."""
        if self.in_hand in self._began_us:
            self._begin_clocks(now_us)
        self._asked_us = {}

    def trained(self, number: int) -> None:
        """Note that this device has trained its part of the round: whoever has not may be what the others wait for, and
        blames nobody."""
        self._trained = number

    def reject(self, number: int, index: int) -> None:
        """Drop a proposed part that turned out to be unusable: it counts as never come."""
        self._parts.get(number, {}).pop(index, None)
        self._proposed = False

    def freeze(self) -> None:
        """Stop merging and completing rounds, as a plan of a later generation is acked."""
        self._frozen = True

    def accepted(self, progress: StateProgress, now_us: int, *, closing: bool = False) -> tuple[Effect, ...]:
        """Go on after the proposed round was completed."""
        self._closing = closing
        self._proposed, self._catching_up = False, False
        if self.in_hand in self._began_us:
            self._lately_us.append(now_us - self._began_us[self.in_hand])
        self._progress = progress
        return self._begin(now_us)

    def _begin(self, now_us: int) -> tuple[Effect, ...]:
        active = self._active
        if active is None or self._frozen or not active.plan.has_work or self._progress.finished:
            return ()
        self._merges = {slot: merge for slot, merge in self._merges.items() if slot[0] >= self.in_hand}
        self._merging = {slot for slot in self._merging if slot[0] >= self.in_hand}
        self._parts = {number: parts for number, parts in self._parts.items() if number >= self.in_hand}
        self._began_us = {number: at for number, at in self._began_us.items() if number >= self.in_hand - 1}
        self._begin_clocks(now_us)
        self._asked_us, self._questions = {}, Counter()
        if not self._follows:
            return (Begin(round=self.in_hand),)
        done = self._propose()
        # a device that lags applies what the others have merged; it does not train for rounds that are over
        return done or (Begin(round=self.in_hand), *self._ready(now_us))

    def _begin_clocks(self, now_us: int) -> None:
        self._began_us[self.in_hand] = self._since_us = now_us
        self._report_us = now_us + max(self._patience_us(), HELD_UP_AGAIN_US)

    # --- an owner's side ----------------------------------------------------------------------------------------------

    def contribute(
        self, sender: DeviceId, header: Contribution, delta: torch.Tensor, now_us: int
    ) -> tuple[Effect, ...]:
        """Take a trainer's decoded delta of one of this device's slices; the key is checked here."""
        key = header.key
        if not self.is_mine(key):
            return ()
        began_us = self._began_us.get(key.round)
        if began_us is not None:
            self._deadlines.observe(sender, now_us - began_us)
        self._note(sender, header)
        number = self._taking(sender, key)
        if self._frozen or number is None:
            return ()
        self._merge(number, key.index).add(
            sender,
            header.samples,
            delta,
            header.counters,
            header.correct,
            header.evaluated,
            lag=number - key.round,
        )
        return self._ready(now_us)

    def evaluated(self, sender: DeviceId, header: Contribution, now_us: int) -> tuple[Effect, ...]:
        """Take the evaluation of a member that trains nothing."""
        active = self._active
        if active is None or (header.key.generation, header.key.plan_digest) != (active.generation, active.plan_digest):
            return ()
        self._note(sender, header)
        return self._ready(now_us)

    def _note(self, sender: DeviceId, header: Contribution) -> None:
        if self._evaluations is not None and header.key.index == 0:
            told = header.correct, header.evaluated
            self._evaluations.note(sender, header.key.round, *told, in_hand=self.in_hand)

    def _taking(self, sender: DeviceId, key: SliceKey) -> int | None:
        """The round that takes a contribution made for `key.round`: that one, or if the plan lets it lag the earliest
        that is not merged and has none of the sender's; at most the next."""
        if self._closing and key.round < self.in_hand:
            return None  # what was trained until now is too late for this run
        number = max(key.round, self.in_hand)
        if number == self.in_hand and self._staleness_max:
            number += (number, key.index) in self._merging or self._has_heard(sender, number, key.index)
        late = number - key.round > self._staleness_max
        return None if late or (number, key.index) in self._merging else number

    def _has_heard(self, sender: DeviceId, number: int, index: int) -> bool:
        merge = self._merges.get((number, index))
        return merge is not None and sender in merge.heard

    @property
    def _follows(self) -> bool:
        """Whether this device completes every round. In an asynchronous plan owners do; the others get a new state when
        they need one."""
        return self._active is not None and (not self._active.plan.asynchronous or bool(self._own_slices()))

    def renew(self) -> tuple[Effect, ...]:
        """Begin local steps of an asynchronous plan, from the newest state. An owner holds that already, and waits for
        the round that its last contribution is in."""
        assert self._active is not None
        if self._follows:
            waits = (
                self._proposed
                or self.keeps_waiting(self._me)
                or any(self._has_heard(self._me, self.in_hand, index) for index in self._own_slices())
            )
            return () if waits else (Begin(round=self.in_hand),)
        self._catching_up = True
        newest = attrs.evolve(self._progress, digest=b"")
        return (Fetch(progress=newest, holders=(self._active.plan.slices[0].owner,)),)

    @property
    def _evaluators(self) -> frozenset[DeviceId] | None:
        """The trainers that evaluate the present state in the round in hand of an asynchronous plan, where it is only
        for that; `None`: it is not."""
        if self._active is None or not (self._closing and self._active.plan.asynchronous):
            return None
        trainers = self._active.plan.trainers
        with_share = {trainer.device for trainer in trainers if trainer.evaluation[0] < trainer.evaluation[1]}
        return frozenset(with_share or {trainer.device for trainer in trainers})

    def keeps_waiting(self, device: DeviceId) -> bool:
        """Whether `device` gets no newer state of an asynchronous plan before the present one has been evaluated, in
        which it has no part, or has done it."""
        evaluators = self._evaluators
        return evaluators is not None and (device not in evaluators or self._has_heard(device, self.in_hand, 0))

    @property
    def _staleness_max(self) -> int:
        return 0 if self._active is None else self._active.plan.staleness_max

    def is_mine(self, key: SliceKey) -> bool:
        """Whether this device merges that slice, about now."""
        active = self._active
        return (
            active is not None
            and key.generation == active.generation
            and key.plan_digest == active.plan_digest
            and 0 <= key.index < len(active.plan.slices)
            and active.plan.slices[key.index].owner == self._me
            and self.in_hand - 1 - self._staleness_max <= key.round <= self.in_hand + 1
        )

    def _merge(self, number: int, index: int) -> SliceMerge:
        assert self._active is not None
        plan = self._active.plan
        span = plan.slices[index]
        planned = {trainer.device: trainer.round_samples for trainer in plan.trainers}
        if (number, index) not in self._merges:
            evaluators = self._evaluators
            self._merges[number, index] = SliceMerge(
                planned if evaluators is None else {trainer: planned[trainer] for trainer in evaluators},
                span.stop - span.start,
                quorum=plan.quorum if evaluators is None else 0,
            )
        return self._merges[number, index]

    def _ready(self, now_us: int) -> tuple[Effect, ...]:
        """Merge every own slice of the round in hand that is complete, or whose deadline has passed with enough."""
        if self._active is None or self._frozen or self._fetching:
            return ()
        effects: list[Effect] = []
        overdue = now_us >= self._deadline_us()
        for index in self._own_slices():
            slot = (self.in_hand, index)
            merge = self._merges.get(slot)
            if merge is None or slot in self._merging or not (merge.complete or (overdue and merge.enough)):
                continue
            if self._waits_for_evaluations(index) and now_us < self._evaluations_due_us():
                continue
            self._merging.add(slot)
            effects.append(Merge(key=self._key(self.in_hand, index), merge=merge, evaluation=self._summed(index)))
        return tuple(effects)

    def _waits_for_evaluations(self, index: int) -> bool:
        """Whether slice `index` is complete only when members beside the trainers have evaluated the present state."""
        waits = index == 0 and self._closing and self._evaluations is not None
        return waits and self._evaluations is not None and self._evaluations.awaited(self.in_hand)

    def _evaluations_due_us(self) -> int:
        """The time after which evaluations of a closing state are no longer waited for."""
        lag = 0 if self._evaluations is None else self._evaluations.lag_max
        began_us = self._began_us[self.in_hand]
        span_us = self._deadline_us() - began_us
        return began_us + EVALUATION_DEADLINES * self._patience_us() + EVALUATION_LAGS * lag * span_us

    def _summed(self, index: int) -> tuple[int, int] | None:
        """All members' evaluations, where they hold out samples of their own."""
        if index or self._evaluations is None:
            return None
        return self._evaluations.summed(self.in_hand, exact=self._closing)

    def _own_slices(self) -> tuple[int, ...]:
        if self._active is None:
            return ()
        return tuple(index for index, span in enumerate(self._active.plan.slices) if span.owner == self._me)

    def _deadline_us(self) -> int:
        """The time at which contributions to the round in hand are due."""
        assert self._active is not None
        began_us = self._began_us.get(self.in_hand, 0)
        return began_us + self._deadlines.deadline_us(self._active.plan.round_us)

    # --- everybody's side ---------------------------------------------------------------------------------------------

    def _key(self, number: int, index: int) -> SliceKey:
        assert self._active is not None
        return SliceKey(
            generation=self._active.generation, plan_digest=self._active.plan_digest, round=number, index=index
        )

    def merged(self, sender: DeviceId, header: MergedSlice, data: bytes, now_us: int) -> tuple[Effect, ...]:
        """Take a merged slice from its owner (this device included)."""
        key, active = header.key, self._active
        if (
            active is None
            or key.generation != active.generation
            or key.plan_digest != active.plan_digest
            or not 0 <= key.index < len(active.plan.slices)
            or active.plan.slices[key.index].owner != sender
            or key.round < self.in_hand
            or not self._follows
        ):
            return ()
        self._parts.setdefault(key.round, {}).setdefault(key.index, MergedPart(header=header, data=data))
        for number in [number for number in self._parts if number < max(self._parts) - ROUNDS_AHEAD_MAX]:
            del self._parts[number]
        return self._propose()

    def _propose(self) -> tuple[Effect, ...]:
        active = self._active
        if active is None or self._frozen or self._fetching or self._proposed or not active.plan.has_work:
            return ()
        parts = self._parts.get(self.in_hand, {})
        if len(parts) < len(active.plan.slices) or self._progress.finished:
            return ()
        self._proposed = True
        ordered = tuple(parts[index] for index in range(len(active.plan.slices)))
        return (Complete(generation=active.generation, round=self.in_hand, parts=ordered),)

    def tick(self, now_us: int) -> tuple[Effect, ...]:
        """Act on passed deadlines: those of own slices, and of slices of others that should have come."""
        if self._active is None or self._frozen or self._fetching or self.in_hand not in self._began_us:
            return ()
        if not self._follows:
            return ()
        if self._is_left_behind and not self._catching_up:
            return (self._catch_up(tuple(sorted({span.owner for _, span in self._missing()}))),)
        effects = list(self._ready(now_us))
        began_us = self._began_us[self.in_hand]
        effects.extend(self._held_up(now_us))
        for index, span in self._missing():
            if self._ask_due_us(index) > now_us:
                continue
            self._asked_us[index] = now_us
            self._questions[index] += 1
            if self._questions[index] > 1 and now_us - began_us >= DEADLINES_MAX * self._patience_us():
                effects.append(ReportSilence(device=span.owner))
            else:
                effects.append(AskForSlice(owner=span.owner, key=self._key(self.in_hand, index)))
        return tuple(effects)

    def not_yet(self, owner: DeviceId, key: SliceKey, now_us: int) -> None:
        """Excuse the owner, which lives and waits for others."""
        if self._awaits(owner, key) and self.in_hand in self._began_us:
            self._began_us[self.in_hand] = max(self._began_us[self.in_hand], now_us - self._patience_us())

    def over(self, owner: DeviceId, key: SliceKey) -> tuple[Effect, ...]:
        """Catch up with an owner that no longer keeps the missing slice, as nothing later may ever come."""
        if not self._awaits(owner, key) or self._frozen or self._fetching or self._proposed or self._catching_up:
            return ()
        return (self._catch_up((owner,)),)

    def _catch_up(self, holders: tuple[DeviceId, ...]) -> Fetch:
        self._catching_up = True
        return Fetch(progress=attrs.evolve(self._progress, round=self.in_hand, digest=b""), holders=holders)

    def _awaits(self, owner: DeviceId, key: SliceKey) -> bool:
        """Whether this slice of the round in hand is that owner's."""
        active = self._active
        if active is None or key != self._key(self.in_hand, key.index) or not 0 <= key.index < len(active.plan.slices):
            return False
        return active.plan.slices[key.index].owner == owner

    def _held_up(self, now_us: int) -> Iterator[ReportHeldUp]:
        """For whom the round in hand waits. No answer changes since when: it shows that a device lives, not that it
        works. Owners may wait for trainers, and these in a first round for a state or for samples."""
        if now_us < self._report_us or not self._has_trained or self._catching_up:
            return
        self._report_us = now_us + HELD_UP_AGAIN_US
        assert self._active is not None
        # an exchange that was held up ends at the time at which a round without one would be
        links = int(self.in_hand == self._active.start.round + 1) + int(self._active.plan.mixing is not None)
        merges = [self._merge(self.in_hand, index) for index in self._own_slices()]
        trainers = {trainer for merge in merges if not merge.enough for trainer in merge.missing}
        owners = {span.owner for _, span in self._missing()} - self.ahead
        for devices, among in ((trainers - {self._me}, links), (owners - trainers, links + 1)):
            if devices:
                yield ReportHeldUp(devices=frozenset(devices), since_us=self._since_us, links=among)

    @property
    def ahead(self) -> frozenset[DeviceId]:
        """Owners that do not stand still, whatever is missing of them: they have merged a later round."""
        if self._active is None:
            return frozenset()
        slices = self._active.plan.slices
        later = (parts for number, parts in self._parts.items() if number > self.in_hand)
        return frozenset(slices[index].owner for parts in later for index in parts)

    @property
    def _has_trained(self) -> bool:
        """Whether this device has done its own part of the round in hand, if it has one."""
        assert self._active is not None
        plan = self._active.plan
        return self._trained >= self.in_hand or plan.asynchronous or plan.trainer(self._me) is None

    def _patience_us(self) -> int:
        """Microseconds from the start of the round in hand until what is missing is late: by the last rounds here, in a
        first one by its deadline; at least what a question takes."""
        assert self._active is not None
        if self._lately_us:
            return max(self._active.plan.round_us, max(self._lately_us) * 7 // 4, self._question_us)
        return max(self._deadline_us() - self._began_us[self.in_hand], self._question_us, FIRST_PATIENCE_US)

    @property
    def _is_left_behind(self) -> bool:
        """Whether the others have merged rounds so far ahead that owners no longer keep those missing here."""
        heard_of = max(self._parts, default=0)
        return not self._proposed and bool(self._missing()) and heard_of >= self.in_hand + KEPT_ROUNDS

    def _missing(self) -> tuple[tuple[int, SliceOwner], ...]:
        """Slices of other owners that the round in hand still lacks."""
        assert self._active is not None
        have: Mapping[int, MergedPart] = self._parts.get(self.in_hand, {})
        spans = enumerate(self._active.plan.slices)
        return tuple((index, span) for index, span in spans if index not in have and span.owner != self._me)

    def _ask_due_us(self, index: int) -> int:
        patience_us = self._patience_us()
        asked_us = self._asked_us.get(index)
        if asked_us is None:
            return self._began_us[self.in_hand] + patience_us
        exponent = min(max(0, self._questions[index] - QUESTIONS_IN_A_ROW), BACKOFF_EXPONENT_MAX)
        return asked_us + (patience_us // 2 << exponent)

    def next_deadline_us(self) -> int | None:
        """The time at which `tick` has something to do, if nothing else happens before; `None`: never."""
        if self._active is None or self._frozen or self._fetching or self._proposed:
            return None
        if self.in_hand not in self._began_us or self._progress.finished or not self._active.plan.has_work:
            return None
        if self._catching_up or not self._follows:
            return None
        if self._is_left_behind:
            return 0
        due = [self._ask_due_us(index) for index, _ in self._missing()]
        if self._has_trained:
            due.append(self._report_us)
        for index in self._own_slices():
            merge = self._merges.get((self.in_hand, index))
            if (self.in_hand, index) not in self._merging and merge is not None and merge.enough:
                waits = self._waits_for_evaluations(index)
                due.append(self._evaluations_due_us() if waits else self._deadline_us())
        return min(due, default=None)
