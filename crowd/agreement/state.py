"""What one device knows and has promised in the agreement: `State`, and what it is made of.

Layout: `Timing`, `Decision`, `Active` (the plan that runs), `Promise` (the last ack given), `Said` (when to say a thing
again), `Burial`, `State`.
"""

import bisect
from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs

from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.view import View
from crowd.planning.plan import Plan
from crowd.planning.profile import Profile, Share
from crowd.units import SECOND_US, DeviceId, Life

WATCHED = 3
"""How many devices watch each heartbeat: the next IDs of the view."""
ASKED_AT_ONCE = 2
"""For promises that are missing: nearly all of them are only late."""


@attrs.frozen(kw_only=True)
class Timing:
    """The protocol's times."""

    rest_us: int = SECOND_US // 5
    rest_before_start_us: int = 2 * SECOND_US
    probe_us: int = 2 * SECOND_US
    ack_patience_us: int = 10 * SECOND_US
    beat_running_us: int = 5 * SECOND_US
    beat_idle_us: int = 60 * SECOND_US
    beats_missed_max: int = 3
    again_us: int = SECOND_US
    """What had no effect is said again after so long at first, then after twice as long each time."""
    doublings_max: int = 5
    owner_doublings_max: int = 2
    """Of the patience with silent owners: whether more of it would have helped is not known there."""
    repeat_us: int = 300 * SECOND_US
    """A promise is said again after so long, whatever happens."""
    repeat_each_us: int = 10 * SECOND_US
    """Or, in a large cluster, after so long for each device: nobody has to hear more often than that."""
    return_max_us: int = 600 * SECOND_US
    afterglow_us: int = 300 * SECOND_US


@attrs.frozen(kw_only=True)
class Decision:
    """What `decide` makes of a view."""

    plan: Plan
    plan_digest: bytes


Decide: TypeAlias = Callable[[View], Decision]
Vote: TypeAlias = tuple[int, bytes]
"""A generation, and the digest of the view for which it was acknowledged."""


@attrs.frozen(kw_only=True)
class Active:
    """A plan that every member has acknowledged, and where its generation starts."""

    generation: int
    view_digest: bytes
    plan_digest: bytes
    plan: Plan
    start: StateProgress
    holders: tuple[DeviceId, ...]
    """Who acknowledged with the state that is the start."""


@attrs.frozen(kw_only=True)
class Promise:
    """The last ack given, and the plan that it promised to follow."""

    ack: Ack
    plan: Plan
    given_us: int
    rules: Mapping[DeviceId, tuple[Share, int]]
    """Share level and memory budget of every member when the promise was given."""


@attrs.frozen(kw_only=True)
class Said:
    """Something that was said, and may have to be said again: what is slow to take effect may be waiting for a slow
    link, and would only wait longer behind its repetitions."""

    at_us: int
    times: int = 0
    """In a row, before the last."""

    def again_us(self, timing: Timing, lag_us: int) -> int:
        """When it may be said again, where words take `lag_us` to come back: no answer comes earlier."""
        return self.at_us + self._pause_us(timing, lag_us)

    def repeated(self, timing: Timing, lag_us: int, now_us: int) -> "Said":
        """After it was said once more; in a row, unless it has not been necessary for a while."""
        in_a_row = now_us < self.again_us(timing, lag_us) + self._pause_us(timing, lag_us)
        return Said(at_us=now_us, times=self.times + 1 if in_a_row else 0)

    def _pause_us(self, timing: Timing, lag_us: int) -> int:
        return max(timing.again_us << min(self.times, timing.doublings_max), lag_us)


@attrs.frozen(kw_only=True)
class Burial:
    """Whom this device buried, and what it had waited for in vain."""

    life: Life
    at_us: int
    awaited: Vote | None = None
    """The promise that was to be answered; `None` for an answer to a probe, or a slice."""


@attrs.frozen(kw_only=True, slots=False)
class State:
    """All that one device knows. Begin with `State(own=..., progress=...)`; nothing is published before `Connected`.

    Nothing in it is cached: `having` copies whatever an instance holds.
    """

    own: Profile
    """As last published, or to be published on connection."""
    progress: StateProgress = attrs.field(factory=StateProgress)
    finished_us: int | None = None
    """When this device reached the end of the run."""
    timing: Timing = attrs.field(factory=Timing)
    now_us: int = 0
    view: View = attrs.field(factory=View)
    changed_us: int = 0
    """When the view last changed."""
    acks: Mapping[DeviceId, Ack] = attrs.field(factory=dict)
    """The latest of each other device."""
    votes: Mapping[Vote, int] = attrs.field(factory=dict)
    """How many of these acks name each generation and view."""
    generation_known: int = 0
    generation_acked: int = 0
    """The highest that this process ever promised, in whatever life."""
    promise: Promise | None = None
    said_us: int | None = None
    """When the promise was last said to all."""
    repeated: Mapping[DeviceId, Said] = attrs.field(factory=dict)
    """The promise, to one device alone."""
    missed: Said | None = None
    """That promises like the last one given here are missing."""
    active: Active | None = None
    connected: bool = False
    echoed_us: int | None = None
    """When an own heartbeat last came back in this connection."""
    lag_us: int = 0
    """How long it had been under way."""
    beat_due_us: int = 0
    heard_us: Mapping[DeviceId, int] = attrs.field(factory=dict)
    offline: frozenset[DeviceId] = frozenset()
    probes_us: Mapping[DeviceId, int] = attrs.field(factory=dict)
    """When each suspect's answer is overdue."""
    burials: Mapping[DeviceId, Burial] = attrs.field(factory=dict)
    """The last of each other device by this one."""
    mistakes: int = 0
    """How often it turned out that more patience would have spared a life: all of one time count once."""
    mistaken_us: int = 0
    """When the last such mistake was noticed."""
    silent_us: Mapping[DeviceId, int] = attrs.field(factory=dict)
    """When owners were first reported to be silent in the round in hand."""
    asked: Mapping[DeviceId, Said] = attrs.field(factory=dict)
    """For its view."""
    told: Mapping[DeviceId, Said] = attrs.field(factory=dict)
    """That it was buried."""
    excluded: bytes = b""
    """The view whose plan was last found to leave this device out."""
    times_buried: int = 0
    returns_us: int | None = None
    """While buried: when to come back."""

    def having(self, **changes: object) -> "State":
        """As `attrs.evolve`, in an eighth of its time: each message that a device hears changes one or two of these
        many fields."""
        state = object.__new__(State)
        object.__setattr__(state, "__dict__", self.__dict__ | changes)
        assert len(state.__dict__) == len(self.__dict__), changes
        return state

    @property
    def me(self) -> DeviceId:
        return self.own.device

    @property
    def running(self) -> bool:
        """Whether a plan with work is active and the run has not ended."""
        return self.active is not None and self.active.plan.has_work and not self.progress.finished

    @property
    def frozen(self) -> bool:
        """Whether no round may be merged or completed: nothing is active, or a later plan is promised."""
        return self.active is None or self.promise is None or self.promise.ack.generation > self.active.generation

    @property
    def echoing(self) -> bool:
        """Whether own messages are known to make the way through the broker."""
        return self.connected and self.echoed_us is not None and self.now_us - self.echoed_us < self.silence_us

    @property
    def beat_us(self) -> int:
        """Those that have not finished yet expect to hear of those that have, for a while."""
        fresh = self.finished_us is not None and self.now_us - self.finished_us < self.timing.afterglow_us
        return self.timing.beat_running_us if self.running or fresh else self.timing.beat_idle_us

    @property
    def silence_us(self) -> int:
        return self.timing.beats_missed_max * self.beat_us

    @property
    def rest_us(self) -> int:
        """How long a view is left alone before its plan is promised: as long as the news that belong to it are on their
        way. A promise for each of them would hold up all the others on a slow link."""
        rest_us = self.timing.rest_us if self.view.started else self.timing.rest_before_start_us
        return max(rest_us, min(self.lag_us, self.timing.ack_patience_us))

    @property
    def ack_patience_us(self) -> int:
        """How long a living member may leave a promise unanswered."""
        round_us = self.active.plan.round_us if self.active is not None else 0
        return (max(self.timing.ack_patience_us, 3 * round_us) << self.doublings) + self.lag_us

    @property
    def ack_patience_max_us(self) -> int:
        """And who may be in a round of which this device, with no plan of its own yet, cannot know how long it lasts:
        whoever is in it too finds out much earlier if it hangs."""
        if self.active is not None or self.promise is None:
            return self.ack_patience_us
        return max(self.timing.ack_patience_us << self.timing.doublings_max, 3 * self.promise.plan.round_us)

    @property
    def missed_due_us(self) -> int:
        """When to ask for promises that are still missing, since they may have been lost. Only with a promise given."""
        assert self.promise is not None
        if self.missed is None:
            return self.promise.given_us + self.timing.probe_us + self.lag_us
        return self.missed.again_us(self.timing, self.lag_us)

    @property
    def probe_patience_us(self) -> int:
        """How long a suspect may leave a probe unanswered: question and answer wait for busy links, its own and this
        device's, as own heartbeats do for one."""
        return max(self.timing.probe_us << self.doublings, 2 * self.lag_us)

    @property
    def owner_patience_us(self) -> int:
        """How long a silent owner may go on being silent, after that was first reported."""
        doublings = min(self.doublings, self.timing.owner_doublings_max)
        return (self.timing.ack_patience_us << doublings) - self.timing.ack_patience_us + self.lag_us

    @property
    def doublings(self) -> int:
        """How often the usual patience is doubled, after this device has been too impatient."""
        forgiven = (self.now_us - self.mistaken_us) // self.timing.return_max_us
        return max(0, self.mistakes - forgiven)

    @property
    def watched(self) -> tuple[DeviceId, ...]:
        """Whose heartbeats this device reads: its own and those of the IDs before it, in a ring."""
        living, place = self.view.living, self.view.ring.get(self.me)
        if place is None:
            return (self.me,)
        return tuple(living[place - back].device for back in range(min(WATCHED, len(living) - 1) + 1))

    def watches(self, device: DeviceId) -> bool:
        """Whether this device reads the heartbeat of another, or would if that one were in the ring."""
        others = [name for name in self.view.ring if name != device]
        place = bisect.bisect(others, device)
        return self.me in (others[place:] + others[:place])[:WATCHED]
