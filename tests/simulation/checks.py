"""What must hold at every moment of a simulation, seen from outside: by what crosses the wire, by what the nodes report
and by what their networks are shown. Nothing here asks the code under test whether it is right.

Layout: `Findings` (what was found wrong), `Agreement` (S1 to S4 and promises), `Departures` (who
may be evicted), `Envelopes` (what is let in) and `Lessons` (who trains
which sample). What deltas become is in `merging`, what may travel and what may be kept in `bounds`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

import attrs

from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.state import Active, State
from crowd.agreement.view import View
from crowd.planning.plan import Plan
from crowd.planning.profile import Profile, Share
from crowd.protocol.codec import Opened
from crowd.units import SECOND_US, Address, Channel, DeviceId, Life
from tests.simulation.work import index_of, owner_of

FREEZING_S_MAX = 0.3
"""What a trainer has in hand when its planner promises, it ends first."""


class Findings:
    """What was found wrong, in the order of its discovery; each with its virtual time."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        self.texts.append(text)


class Agreement:
    """S1, S2, S3, S4, and that a promise is given once and never changes."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._acks: dict[tuple[DeviceId, Life, int], Ack] = {}
        self._views: dict[bytes, dict[DeviceId, Profile]] = {}
        self._begun: dict[int, dict[tuple[DeviceId, Life], Active]] = defaultdict(dict)
        self._latest: dict[tuple[DeviceId, Life], int] = {}
        self._digests: dict[tuple[int, bytes, int], bytes] = {}
        self._promised: dict[DeviceId, tuple[Life, int, float]] = {}
        self._accepted: dict[tuple[DeviceId, StateProgress], Active] = {}
        self.active: dict[DeviceId, Active] = {}
        """The plan that each device last began."""
        self.rounds: Counter[DeviceId] = Counter()
        """Completed, by device."""
        self._latest_round: dict[DeviceId, tuple[bytes, int]] = {}
        """Digest of the plan that each device began last, and the last round that it has of it."""
        self.generations: set[int] = set()

    def promised(self, device: DeviceId, ack: Ack, view: View, now_s: float) -> None:
        """The device gives this ack, perhaps not for the first time."""
        if self._acks.setdefault((device, ack.life, ack.generation), ack) != ack:
            self._findings.add(f"{device} gave two different acks in generation {ack.generation}")
        self._views.setdefault(ack.view_digest, {profile.device: profile for profile in view.living})
        if device not in self._promised or self._promised[device][:2] != (ack.life, ack.generation):
            self._promised[device] = (ack.life, ack.generation, now_s)

    def began(self, device: DeviceId, active: Active) -> None:
        """The device holds acks from all members and begins the plan."""
        life = active.plan.life_of(device)
        if life is None:
            self._findings.add(f"{device} begins generation {active.generation}, in which it is no member")
            return
        if active.generation <= self._latest.get((device, life), 0):
            self._findings.add(f"S3: {device} went back to generation {active.generation}")
        self._latest[device, life] = active.generation
        for member in active.plan.members:
            ack = self._acks.get((member.device, member.life, active.generation))
            if ack is None or ack.plan_digest != active.plan_digest:
                self._findings.add(
                    f"{device} began generation {active.generation}, which {member.device} did not promise"
                )
        self._check_start(device, active)
        lives = {(member.device, member.life) for member in active.plan.members}
        for (other, _), theirs in self._begun[active.generation].items():
            if lives & {(member.device, member.life) for member in theirs.plan.members}:
                self._compare(device, active, other, theirs)
        self._begun[active.generation][device, life] = active
        self.active[device] = active
        self._latest_round[device] = (active.plan_digest, active.start.round)
        self.generations.add(active.generation)
        self._check_plan(active)

    def _check_start(self, device: DeviceId, active: Active) -> None:
        acks = [self._acks.get((member.device, member.life, active.generation)) for member in active.plan.members]
        furthest = max((ack.progress for ack in acks if ack is not None), default=active.start)
        if active.start != furthest:
            self._findings.add(
                f"{device} starts generation {active.generation} at round {active.start.round}, but round "
                f"{furthest.round} was complete"
            )

    def accepted(self, device: DeviceId, active: Active, progress: StateProgress) -> None:
        """The device's planner lets a round of that plan be completed."""
        _, promised, _ = self._promised[device]
        if promised > active.generation:
            self._findings.add(
                f"{device} completes round {progress.round} of generation {active.generation}, "
                f"but had promised {promised}"
            )
        self._accepted[device, progress] = active

    def merged(self, device: DeviceId, generation: int, now_s: float) -> None:
        """The device has merged a slice in that generation."""
        _, promised, since_s = self._promised[device]
        if promised > generation and now_s > since_s + FREEZING_S_MAX:
            self._findings.add(f"{device} merged in generation {generation}, but had promised {promised}")

    def _compare(self, device: DeviceId, active: Active, other: DeviceId, theirs: Active) -> None:
        if theirs.plan_digest != active.plan_digest:
            self._findings.add(f"S1: {device} and {other} run different plans in generation {active.generation}")
        elif theirs.start != active.start:
            self._findings.add(f"S1: {device} and {other} start generation {active.generation} from different states")

    def _check_plan(self, active: Active) -> None:
        profiles = self._views[active.view_digest]
        plan = active.plan
        for member in plan.members:
            profile = profiles.get(member.device)
            if profile is None or profile.life != member.life:
                self._findings.add(f"generation {active.generation} has {member.device} in a life that its view lacks")
                return
        if plan.has_work:
            self._findings.texts.extend(
                f"S2: {device} holds {held}, but generation {active.generation} places {placed}"
                for device, held, placed in misplaced(plan, profiles)
            )
        for assignment in plan.assignments:
            lends = assignment.lender != assignment.trainer
            if lends and profiles[assignment.lender].share is not Share.RAW:
                self._findings.add(
                    f"S4: {assignment.lender} lends in generation {active.generation}, but does not share"
                )

    def completed(self, device: DeviceId, progress: StateProgress) -> None:
        """The device completed a round; its planner, which let it, may have begun another plan since."""
        active = self._accepted.pop((device, progress))
        key = (active.generation, active.plan_digest, progress.round)
        if self._digests.setdefault(key, progress.digest) != progress.digest:
            self._findings.add(f"{device} has another state than its peers after round {progress.round}")
        self.rounds[device] += 1
        if active is self.active[device]:
            self._latest_round[device] = (active.plan_digest, progress.round)

    def suspended(self, device: DeviceId, other: DeviceId) -> None:
        """The device declares that the other one stands still."""
        (plan, number), (theirs, further) = (self._latest_round.get(one, (b"", 0)) for one in (device, other))
        if plan == theirs and further > number + 1:
            self._findings.add(f"{device} says that {other} stands still, which is {further - number} rounds ahead")


def misplaced(
    plan: Plan, profiles: dict[DeviceId, Profile]
) -> Iterable[tuple[DeviceId, tuple[int, ...], tuple[int, ...]]]:
    """Members whose samples are not each assigned or idle once: what they hold, and what the plan places."""
    for member in plan.members:
        held = profiles[member.device].label_counts
        placed = [0] * len(held)
        parts = [assignment.counts for assignment in plan.assignments if assignment.lender == member.device]
        parts += [idle.counts for idle in plan.idle if idle.device == member.device]
        for counts in parts:
            for label, count in enumerate(counts):
                placed[label] += count
        if tuple(placed) != held:
            yield member.device, held, tuple(placed)


class Departures:
    """Nobody is evicted who was not asked first, and nobody evicts who is cut off himself."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._probed_s: dict[tuple[DeviceId, DeviceId], float] = {}

    def probed(self, device: DeviceId, suspect: DeviceId, now_s: float) -> None:
        """The device asks the suspect whether it lives."""
        self._probed_s[device, suspect] = now_s

    def evicted(self, device: DeviceId, departed: DeviceId, reason: str, state: State, cut_for_s: float) -> None:
        """The device, which has been cut off for so long (0: it is not), declares the other one dead."""
        now_s = state.now_us / SECOND_US
        if reason == "it did not answer":
            asked_s = self._probed_s.get((device, departed))
            if asked_s is None or now_s - asked_s < state.timing.probe_timeout_us / SECOND_US - 0.01:
                self._findings.add(f"{device} evicted {departed} without asking, or without waiting for the answer")
        if not state.own.connected or cut_for_s > 1.2 * state.silence_us / SECOND_US:
            self._findings.add(f"{device} evicted {departed}, though it is cut off itself")


class Envelopes:
    """Every envelope is let in once, but for those that the broker keeps and hands out again."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._seen: dict[DeviceId, set[tuple[DeviceId, bytes, int]]] = defaultdict(set)

    def process_began(self, device: DeviceId) -> None:
        self._seen.pop(device, None)

    def let_in(self, device: DeviceId, address: Address, opened: Opened) -> None:
        if address.channel in (Channel.PROFILE, Channel.ACK, Channel.RESULT):
            return
        envelope = (opened.sender, opened.life.boot, opened.sequence)
        if envelope in self._seen[device]:
            self._findings.add(f"{device} let in number {opened.sequence} of {opened.sender} twice")
        self._seen[device].add(envelope)


@attrs.define
class _Register:
    """What one trainer has been shown in one generation."""

    assigned: dict[DeviceId, int]
    """By owner."""
    size: int
    shown: int = 0
    epoch: set[int] = attrs.field(factory=set)
    owners: Counter[int] = attrs.field(factory=Counter)
    """How many of whose samples this epoch had so far."""


class Lessons:
    """One trainer per sample in a generation, each assigned sample exactly once in an epoch, and none that its owner
    did not have in the data that the plan means."""

    def __init__(self, findings: Findings, agreement: Agreement) -> None:
        self._findings = findings
        self._agreement = agreement
        self._generation: dict[DeviceId, int] = {}
        self._registers: dict[tuple[DeviceId, Life, int], _Register] = {}
        self._held: dict[tuple[DeviceId, bytes, int], range] = {}
        """The samples of each data set, by its number in a life."""
        self._read: dict[DeviceId, range] = {}
        self._latest: dict[DeviceId, tuple[int, range]] = {}
        self._lives: dict[DeviceId, Life] = {}
        self._teacher: dict[tuple[int, bytes], dict[int, DeviceId]] = defaultdict(dict)
        self.shown = 0

    def process_began(self, device: DeviceId) -> None:
        self._generation.pop(device, None)
        self._latest.pop(device, None)
        self._lives.pop(device, None)

    def life_began(self, device: DeviceId, life: Life) -> None:
        self._lives[device] = life
        number, held = self._latest[device]
        self._held[device, life.boot, number] = held

    def read(self, device: DeviceId, held: range) -> None:
        """The device's process has read its data, and these are its samples; the first are its data set 0."""
        self._read[device] = held
        self._latest.setdefault(device, (0, held))

    def data_put(self, device: DeviceId) -> None:
        """What the device's process has read last is its next data set."""
        number, _ = self._latest[device]
        self._latest[device] = (number + 1, self._read[device])
        if device in self._lives:
            self.life_began(device, self._lives[device])

    def order_drawn(self, device: DeviceId, generation: int) -> None:
        """From now on the device trains for this generation."""
        self._generation[device] = generation

    def trained(self, device: DeviceId, numbers: list[int]) -> None:
        """The device's network was shown these samples in a training step."""
        generation = self._generation.get(device)
        if generation is None:  # it is only being tried out
            return
        active = self._agreement.active[device]
        life = active.plan.life_of(device)
        if active.generation != generation or life is None:
            self._findings.add(f"{device} trains for generation {generation}, but {active.generation} is active")
            return
        register = self._register(device, life, active)
        for number in numbers:
            self._note(device, active, register, number)

    def _register(self, device: DeviceId, life: Life, active: Active) -> _Register:
        key = (device, life, active.generation)
        if key not in self._registers:
            mine = [assignment for assignment in active.plan.assignments if assignment.trainer == device]
            self._registers[key] = _Register(
                assigned={assignment.lender: assignment.samples for assignment in mine},
                size=sum(assignment.samples for assignment in mine),
            )
        return self._registers[key]

    def _note(self, device: DeviceId, active: Active, register: _Register, number: int) -> None:
        generation = active.generation
        if register.size and register.shown % register.size == 0:
            register.epoch.clear()
            register.owners.clear()
        register.shown += 1
        self.shown += 1
        if number in register.epoch:
            self._findings.add(f"{device} trained sample {number} twice in an epoch of generation {generation}")
        register.epoch.add(number)
        register.owners[owner_of(number)] += 1
        owner = DeviceId(f"d{owner_of(number)}")
        if register.owners[owner_of(number)] > register.assigned.get(owner, 0):
            self._findings.add(f"{device} trained more of {owner}'s samples than generation {generation} gives it")
        member = active.plan.member(owner)
        if member is None or index_of(number) not in self._held[owner, member.life.boot, member.data_epoch]:
            self._findings.add(f"{device} trained sample {number}, which is not of the data of generation {generation}")
        teacher = self._teacher[generation, active.plan_digest].setdefault(number, device)
        if teacher != device:
            self._findings.add(f"{teacher} and {device} both trained sample {number} in generation {generation}")
