"""What one device knows in the agreement: `State`, made of small frozen records of what changes together.

Layout: `Timing` (the protocol's times), `Decision` and `Decide` (the plan of a view), `Active` and `OwnAck` (the plan
that runs, and the last ack given), `Retry` and `Eviction`; the records `Own`, `Acks`, `FailureDetector` and `Retries`;
`State`, and what follows from more than one of its records. Times are integer microseconds of any monotonic clock.
"""

import bisect
from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs

from crowd.agreement.ack import Ack, StateProgress, UnderPlan
from crowd.agreement.suspension import Stalls
from crowd.agreement.view import View
from crowd.planning.encoding_size import encoded_bytes
from crowd.planning.plan import Plan
from crowd.planning.profile import Profile, Share
from crowd.units import SECOND_US, DeviceId, Life

WATCHED = 3
"""How many devices watch each heartbeat: the next IDs of the view."""
CHUNK_BYTES_MAX = 256 * 1024
"""Bytes of bulk that go in one piece, or fewer: at most a second's of a link."""
ASKED_AT_ONCE = 2
"""How many devices are asked at once for a missing ack: nearly all such acks are only late."""


@attrs.frozen(kw_only=True)
class Timing:
    """The protocol's times, in microseconds."""

    debounce_us: int = SECOND_US // 5
    """How long a view must stay unchanged before its plan is acked (stabilisation)."""
    debounce_before_start_us: int = 2 * SECOND_US
    """How long a view must stay unchanged before its plan is acked while no run has started."""
    probe_timeout_us: int = SECOND_US // 10
    """How long a suspect may leave a probe unanswered, beside what the way there and back takes."""
    eager_us: int = 2 * SECOND_US
    """How long an ack may be missing before it is asked for, and the period of heartbeats that others wait for."""
    ack_timeout_us: int = 10 * SECOND_US
    beat_running_us: int = 5 * SECOND_US
    beat_idle_us: int = 60 * SECOND_US
    beats_missed_max: int = 3
    retry_us: int = SECOND_US
    """The pause before the first retry of a message; each further pause is twice as long."""
    backoff_exponent_max: int = 5
    republish_us: int = 300 * SECOND_US
    """The period with which an ack is published again, whatever happens."""
    republish_each_us: int = 10 * SECOND_US
    """The part of the period of republishing that each living device adds in a large cluster: nobody has to hear acks
    more often than that."""
    stall_timeout_us: int = 10 * SECOND_US
    """The shortest wait for a device on which the round in hand depends, before it is suspended."""
    return_max_us: int = 600 * SECOND_US
    """The longest pause after which an evicted device returns, and the time that forgives one false suspicion."""
    post_run_us: int = 300 * SECOND_US
    """How long heartbeats stay frequent after the end of a run."""


@attrs.frozen(kw_only=True)
class Decision:
    """The plan that follows from a view."""

    plan: Plan
    plan_digest: bytes


Decide: TypeAlias = Callable[[View], Decision]
Ballot: TypeAlias = tuple[int, bytes]
"""What an ack counts for: a generation, and the digest of the view whose plan is acknowledged."""


@attrs.frozen(kw_only=True)
class Active:
    """A plan that every member has acknowledged, and where its generation starts."""

    generation: int
    view_digest: bytes
    plan_digest: bytes
    plan: Plan
    start: StateProgress
    holders: tuple[DeviceId, ...]
    """The devices that acknowledged with the state that is the start."""

    def covers(self, told: UnderPlan) -> bool:
        """Whether that was said under this plan, and in this generation."""
        return (told.generation, told.plan_digest) == (self.generation, self.plan_digest)


@attrs.frozen(kw_only=True)
class OwnAck:
    """The last ack that this device gave, and the plan that it acknowledges."""

    ack: Ack
    plan: Plan
    given_us: int
    rules: Mapping[DeviceId, tuple[Share, int]]
    """Share level and memory budget of every member when the ack was given."""

    @property
    def ballot(self) -> Ballot:
        return self.ack.generation, self.ack.view_digest


@attrs.frozen(kw_only=True)
class Retry:
    """The sendings of one message so far. Retries back off exponentially: a message without effect may be waiting for a
    slow link, and would only wait longer behind its repetitions."""

    sent_us: int
    repeats: int = 0
    """How often the message had been sent in a row before."""

    def due_us(self, timing: Timing, rtt_us: int) -> int:
        """The time to send the message again, where a round trip takes `rtt_us`: no answer comes earlier."""
        return self.sent_us + self._pause_us(timing, rtt_us)

    def sent_again(self, timing: Timing, rtt_us: int, now_us: int) -> "Retry":
        """The record after one more sending, which is in a row unless none has been necessary for a while."""
        in_a_row = now_us < self.due_us(timing, rtt_us) + self._pause_us(timing, rtt_us)
        return Retry(sent_us=now_us, repeats=self.repeats + 1 if in_a_row else 0)

    def _pause_us(self, timing: Timing, rtt_us: int) -> int:
        return max(timing.retry_us << min(self.repeats, timing.backoff_exponent_max), rtt_us)


@attrs.frozen(kw_only=True)
class Eviction:
    """A life that this device evicted, and what it had waited for in vain."""

    life: Life
    at_us: int
    awaited: Ballot | None = None
    """The ballot that was to be acked; `None` if an answer to a probe, or a slice, was awaited."""


@attrs.frozen(kw_only=True)
class Own:
    """What a device knows of itself."""

    profile: Profile
    """The own profile as last published, or to be published on connection."""
    progress: StateProgress = attrs.field(factory=StateProgress)
    finished_us: int | None = None
    """When this device reached the end of the run."""
    connected: bool = False
    beat_due_us: int = 0
    times_evicted: int = 0
    times_superseded: int = 0
    """How often a profile of this device came that it did not publish, and that outranked its own."""
    returns_us: int | None = None
    """When to come back; `None` unless evicted."""


@attrs.frozen(kw_only=True)
class Acks:
    """The acks that are known, the one that was given here, and the plan that came of them."""

    latest: Mapping[DeviceId, Ack] = attrs.field(factory=dict)
    """The latest ack of each other device."""
    tally: Mapping[Ballot, int] = attrs.field(factory=dict)
    """How many acks in `latest` name each ballot."""
    generation_known: int = 0
    """The highest generation that any device acked."""
    generation_acked: int = 0
    """The highest generation that this process ever acked, in whatever life."""
    own_ack: OwnAck | None = None
    active: Active | None = None
    excluded: bytes = b""
    """Digest of the view whose plan was last found to leave this device out."""

    @property
    def undecided(self) -> OwnAck | None:
        """The own ack, as long as its plan is not active."""
        own_ack = self.own_ack
        if own_ack is None or (self.active is not None and self.active.generation >= own_ack.ack.generation):
            return None
        return own_ack


@attrs.frozen(kw_only=True)
class FailureDetector:
    """Who was heard of when, who is suspected, and how reliable suspicions have been (docs/protocol.md)."""

    heard_us: Mapping[DeviceId, int] = attrs.field(factory=dict)
    """When each device last gave a sign of life."""
    offline: frozenset[DeviceId] = frozenset()
    """The devices that are said to be offline."""
    probes_us: Mapping[DeviceId, int] = attrs.field(factory=dict)
    """When each suspect's answer to its probe is overdue."""
    evictions: Mapping[DeviceId, Eviction] = attrs.field(factory=dict)
    """The last eviction of each other device by this one."""
    false_suspicions: int = 0
    """How often a longer timeout would have spared a life; all suspicions of one time count once."""
    false_suspicion_us: int = 0
    """When the last false suspicion was noticed."""
    silent_us: Mapping[DeviceId, int] = attrs.field(factory=dict)
    """When each owner that was reported to be silent in the round in hand was last probed for that."""
    round_trip_us: int | None = None
    """When an own heartbeat last came back through the broker in this connection."""
    rtt_us: int = 0
    """Round-trip time of that heartbeat."""


@attrs.frozen(kw_only=True)
class Retries:
    """The last sending of each message that may have to be repeated."""

    published_us: int | None = None
    """When the own ack was last published."""
    resends: Mapping[DeviceId, Retry] = attrs.field(factory=dict)
    """Sendings of the own ack to one device alone."""
    missing: Retry | None = None
    """Requests for the acks that the own one waits for."""
    view_requests: Mapping[DeviceId, Retry] = attrs.field(factory=dict)
    """Requests for the view of a device."""
    life_notices: Mapping[DeviceId, Retry] = attrs.field(factory=dict)
    """Messages to a device of its latest life, or that this is evicted."""


@attrs.frozen(kw_only=True)
class State:
    """All that one device knows. Begin with `State(own=Own(...))`; nothing is published before `Connected`."""

    own: Own
    view: View = attrs.field(factory=View)
    view_changed_us: int = 0
    """When the living part of the view last changed."""
    acks: Acks = attrs.field(factory=Acks)
    detector: FailureDetector = attrs.field(factory=FailureDetector)
    stalls: Stalls = attrs.field(factory=Stalls)
    retries: Retries = attrs.field(factory=Retries)
    timing: Timing = attrs.field(factory=Timing)
    now_us: int = 0

    @property
    def me(self) -> DeviceId:
        return self.own.profile.device

    @property
    def running(self) -> bool:
        """Whether a plan with work is active and its run has not ended."""
        active, progress = self.acks.active, self.own.progress
        return (
            active is not None and active.plan.has_work and active.start.run == progress.run and not progress.finished
        )

    @property
    def frozen(self) -> bool:
        """Whether no round may be merged or completed: nothing is active, or a later plan is acked."""
        own_ack, active = self.acks.own_ack, self.acks.active
        return active is None or own_ack is None or own_ack.ack.generation > active.generation

    @property
    def has_round_trip(self) -> bool:
        """Whether own messages are known to get through the broker and back."""
        last_us = self.detector.round_trip_us
        return self.own.connected and last_us is not None and self.now_us - last_us < self.silence_us

    @property
    def beat_us(self) -> int:
        """The period of own heartbeats: short in a run and for a while after its end, when those that have not finished
        expect to hear of those that have."""
        finished_us, timing = self.own.finished_us, self.timing
        fresh = finished_us is not None and self.now_us - finished_us < timing.post_run_us
        return timing.beat_running_us if self.running or fresh else timing.beat_idle_us

    @property
    def silence_us(self) -> int:
        """How long a device may send no heartbeat before it is suspected."""
        return self.timing.beats_missed_max * self.beat_us

    @property
    def debounce_us(self) -> int:
        """How long a view must stay unchanged before its plan is acked: as long as messages that belong to it are on
        their way. An ack for each of them would hold up all the others on a slow link."""
        debounce_us = self.timing.debounce_us if self.view.started else self.timing.debounce_before_start_us
        return max(debounce_us, min(self.detector.rtt_us, self.timing.ack_timeout_us))

    @property
    def ack_timeout_us(self) -> int:
        """How long a living member may take to ack a plan that is acked here."""
        active = self.acks.active
        round_us = active.plan.round_us if active is not None else 0
        return (max(self.timing.ack_timeout_us, 3 * round_us) << self.backoff_exponent) + self.detector.rtt_us

    @property
    def ack_timeout_max_us(self) -> int:
        """How long a living member may take to ack that may be in a round of which this device, with no plan of its own
        yet, cannot know how long it lasts: whoever is in it too finds out much earlier if it hangs."""
        own_ack = self.acks.own_ack
        if self.acks.active is not None or own_ack is None:
            return self.ack_timeout_us
        return max(self.timing.ack_timeout_us << self.timing.backoff_exponent_max, 3 * own_ack.plan.round_us)

    @property
    def missing_due_us(self) -> int:
        """The time to ask for acks that are still missing and may have been lost. Only with an own ack given."""
        own_ack, missing, rtt_us = self.acks.own_ack, self.retries.missing, self.detector.rtt_us
        assert own_ack is not None
        if missing is None:
            return own_ack.given_us + self.timing.eager_us + rtt_us
        return missing.due_us(self.timing, rtt_us)

    def probe_timeout_us(self, suspect: DeviceId) -> int:
        """How long `suspect` may leave a probe unanswered: question and answer wait for what is on its links and on
        this device's, a piece on each, and take as long as own heartbeats do over one."""
        profiles = filter(None, map(self.view.profiles.get, (self.me, suspect)))
        busy_us = sum(_busy_us(profile, self._piece_bytes) for profile in profiles)
        return ((self.timing.probe_timeout_us + busy_us) << self.backoff_exponent) + 2 * self.detector.rtt_us

    @property
    def _piece_bytes(self) -> int:
        """Bytes of the largest piece of bulk that may be on its way: a slice, or while samples and states move in the
        first round of a generation a whole chunk."""
        active = self.acks.active
        if active is None or self.own.progress.round <= active.start.round:
            return CHUNK_BYTES_MAX
        slices = (encoded_bytes(active.plan.encoding, span.stop - span.start) for span in active.plan.slices)
        return min(CHUNK_BYTES_MAX, max(slices, default=0))

    @property
    def backoff_exponent(self) -> int:
        """How often timeouts are doubled, after false suspicions of this device."""
        forgiven = (self.now_us - self.detector.false_suspicion_us) // self.timing.return_max_us
        return max(0, self.detector.false_suspicions - forgiven)

    @property
    def watched(self) -> tuple[DeviceId, ...]:
        """The devices whose heartbeats this device reads: itself and the IDs before it, in a ring."""
        living, place = self.view.living, self.view.ring.get(self.me)
        if place is None:
            return (self.me,)
        return tuple(living[place - back].device for back in range(min(WATCHED, len(living) - 1) + 1))

    def watches(self, device: DeviceId) -> bool:
        """Whether this device reads the heartbeat of `device`, or would if that one were in the ring."""
        others = [name for name in self.view.ring if name != device]
        place = bisect.bisect(others, device)
        return self.me in (others[place:] + others[:place])[:WATCHED]


def _busy_us(profile: Profile, piece_bytes: int) -> int:
    """Microseconds that a piece takes up the device's link, and one down."""
    rates = (profile.uplink_bytes_s, profile.downlink_bytes_s)
    return sum(min(piece_bytes * SECOND_US // max(1, rate_bytes_s), SECOND_US) for rate_bytes_s in rates)
