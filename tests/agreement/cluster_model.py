"""A cluster of the production agreement and round bookkeeping on a network that loses, repeats, reorders and delays.

`Model` runs devices against each other on a virtual clock; everything random comes from one seed. The checks that must
hold at every moment (S1 to S4, equal replicas, no delta lost or counted twice) are in `Checks`, apart from the model.

Deltas are counted, not trained: in each round a device adds 1 at its own place in every slice, so a state says how many
of its deltas were merged into it. That makes conservation exact: merged + residual = made.
"""

import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import assert_never

import attrs
import torch

from crowd.actors.lives import LIFE_FILE, Lives
from crowd.actors.trainer import effects as round_effects
from crowd.actors.trainer.course import Waypoint
from crowd.actors.trainer.effects import AskForSlice, Begin, Complete, Fetch, Merge, ReportHeldUp, ReportSilence
from crowd.actors.trainer.fates import fates_of
from crowd.actors.trainer.rounds import Rounds
from crowd.actors.trainer.wanted import Wanted
from crowd.agreement import events
from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.predicates import is_former_life
from crowd.agreement.state import Active, Decision, Own, State
from crowd.agreement.step import next_deadline_us, step
from crowd.agreement.view import View
from crowd.learning.encoding import decode
from crowd.learning.feedback import Feedback
from crowd.learning.layout import Layout, Pieces
from crowd.learning.merge import SliceMerge
from crowd.planning.check import violations
from crowd.planning.plan import Assignment, Encoding, Plan, SliceOwner, TrainerRole, plan_digest
from crowd.planning.policy import Cluster, Policy, decide
from crowd.protocol.messages import KEPT_ROUNDS, Contribution, MergedSlice, SliceKey, WholeState
from crowd.units import SECOND_US, DeviceId, Life
from devices.store import MemoryStore
from policies.baselines.fedavg import FedAvg
from policies.baselines.ship_once import ShipOnce
from policies.crowd_learning.policy import CrowdLearning
from tests.support.profiles import make_profile, task_facts

ROUND_US = SECOND_US
ENCODING = Encoding.FLOAT32
RECORDED_MAX = 200


class Everybody(Policy):
    """Everybody trains its own samples; the first two devices own a slice each."""

    def plan(self, cluster: Cluster) -> Plan:
        names = [profile.device for profile in cluster.members]
        elements = cluster.members[0].task.state_elements
        half = elements // 2
        spans = [(0, half), (half, elements)] if len(names) > 1 else [(0, elements)]
        return Plan(
            members=(),
            trainers=tuple(TrainerRole(device=name, round_samples=1) for name in names),
            assignments=tuple(
                Assignment(lender=profile.device, trainer=profile.device, counts=profile.label_counts)
                for profile in cluster.members
            ),
            slices=tuple(
                SliceOwner(owner=name, start=start, stop=stop)
                for name, (start, stop) in zip(names, spans, strict=False)
            ),
            round_us=ROUND_US,
            samples_total=sum(profile.samples for profile in cluster.members),
        )


@attrs.frozen(kw_only=True)
class Fault:
    """Something that goes wrong at a time, for a while (a crash that returns, a partition that heals)."""

    at_us: int
    kind: str  # crash | cut | slow | broker | update | stale_will | deaf
    device: int
    lasts_us: int


@attrs.frozen(kw_only=True)
class Scenario:
    devices: int = 3
    seed: int = 0
    loss_permille: int = 0
    duplicate_permille: int = 0
    delay_max_us: int = 20_000
    members_min: int = 1
    faults: tuple[Fault, ...] = ()
    faults_until_us: int = 60 * SECOND_US
    rounds_max: int = 10_000
    policy: str = "everybody"


POLICIES: dict[str, Callable[[], Policy]] = {
    "everybody": Everybody,
    "crowd_learning": CrowdLearning,
    "fedavg": FedAvg,
    "ship_once": ShipOnce,
}


class Violation(AssertionError):
    """A promise of the protocol was broken."""


class Checks:
    """What must hold at every moment; knows only what devices did, not how."""

    def __init__(self) -> None:
        self.activations: dict[int, dict[tuple[DeviceId, Life], Active]] = {}
        self.acks: dict[tuple[DeviceId, Life, int], bytes] = {}
        self.states: dict[tuple[int, bytes, int], bytes] = {}
        self.generation: dict[tuple[DeviceId, Life], int] = {}
        self.rounds_completed = 0

    def acked(self, ack: Ack) -> None:
        content = repr(ack).encode()
        if self.acks.setdefault((ack.device, ack.life, ack.generation), content) != content:
            raise Violation(f"{ack.device} gave two acks in generation {ack.generation}")

    def activated(self, device: DeviceId, life: Life, active: Active) -> None:
        if active.generation <= self.generation.get((device, life), 0):
            raise Violation(f"S3: {device} went back to generation {active.generation}")
        self.generation[device, life] = active.generation
        peers = self.activations.setdefault(active.generation, {})
        for (other, _), theirs in peers.items():
            shared = {(m.device, m.life) for m in active.plan.members} & {
                (m.device, m.life) for m in theirs.plan.members
            }
            if shared and theirs.plan_digest != active.plan_digest:
                raise Violation(f"S1: {device} and {other} run different plans in generation {active.generation}")
            if shared and theirs.start != active.start:
                raise Violation(f"S1: {device} and {other} start generation {active.generation} from different states")
        peers[device, life] = active

    def completed(self, device: DeviceId, active: Active, progress: StateProgress) -> None:
        key = (active.generation, active.plan_digest, progress.round)
        if self.states.setdefault(key, progress.digest) != progress.digest:
            raise Violation(f"{device} has another state than its peers after round {progress.round}")
        self.rounds_completed += 1

    def conserved(self, device: "Device") -> None:
        merged = device.vector[device.index :: device.model.scenario.devices] - device.base
        left = device.feedback.residual[device.index :: device.model.scenario.devices]
        if not torch.equal(merged + left, torch.full_like(merged, float(device.made))):
            raise Violation(
                f"{device.name}: {device.made} deltas made, but {merged.tolist()} merged and {left.tolist()} left"
            )


class Device:
    """One device of the model: the production state machines, and the thinnest of drivers."""

    def __init__(self, model: "Model", index: int) -> None:
        self.model = model
        self.index = index
        self.name = DeviceId(f"d{index}")
        self.alive = False
        self.cut = False
        self.deaf = False
        self.slow_factor = 1
        self.disk = MemoryStore()
        self.boots = 0
        self.epoch = 0
        self.wakes_us: int | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        self.boots += 1
        self.epoch += 1
        self.wakes_us = None
        elements = self.model.elements
        self.alive, self.deaf = True, False
        self.lives = Lives(self.disk, self.model.random)
        profile = make_profile(
            self.name,
            life=self.lives.begin(),
            members_min=self.model.scenario.members_min,
            task=task_facts(state_elements=elements, evaluation_samples=0),
        )
        # every process initialises its network differently, as the random numbers of real ones would
        self.vector = torch.full((elements,), float(self.model.random.randrange(1000)))
        self.base = self.vector[self.index :: self.model.scenario.devices].clone()
        self.made = 0
        self.feedback = Feedback(Layout.plain(elements))
        self.rounds = Rounds(self.name, SliceMerge)
        self.snapshots: dict[bytes, tuple[StateProgress, torch.Tensor]] = {}
        self.published: dict[SliceKey, tuple[MergedSlice, bytes]] = {}
        self.local: torch.Tensor | None = None
        self.wanted: Wanted | None = None
        self.early: list[Callable[[], None]] = []
        progress = StateProgress(run=1, digest=self.digest(self.vector, 0))
        self.snapshots[progress.digest] = (progress, self.vector)
        self.rounds.reset(Waypoint(progress=progress))
        self.state = State(own=Own(profile=profile, progress=progress))
        if not self.cut:
            self.step(events.Connected())
            self.model.deliver_retained(self)
        self.wake()

    def crash(self) -> None:
        self.alive = False
        self.epoch += 1

    def change_disk(self, what: str) -> None:
        """While it is off: the disk is lost, set back to an earlier time, or a copy of another device's."""
        known = self.disk.read(LIFE_FILE) or b"0"
        match what:
            case "lost":
                self.disk = MemoryStore()
            case "rolled back":
                self.disk.write(LIFE_FILE, str(int(known) // 2).encode())
            case "cloned":
                self.disk.write(LIFE_FILE, self.model.random.choice(self.model.devices).disk.read(LIFE_FILE) or b"0")
            case "kept":
                pass
            case _:
                raise ValueError(what)

    @staticmethod
    def digest(vector: torch.Tensor, number: int) -> bytes:
        return hashlib.blake2b(vector.numpy().tobytes() + number.to_bytes(4, "big"), digest_size=8).digest()

    def later(self, delay_us: int, action: Callable[[], None]) -> None:
        """Do it if the process is still the same then."""
        epoch = self.epoch
        self.model.at(self.model.now_us + delay_us, lambda: action() if self.epoch == epoch else None)

    def wake(self) -> None:
        due = [next_deadline_us(self.state), self.rounds.next_deadline_us()]
        times = [time for time in due if time is not None]
        if not times:
            return
        at_us = max(min(times), self.model.now_us + 1_000)
        if self.wakes_us is None or at_us < self.wakes_us:
            self.wakes_us = at_us
            self.later(at_us - self.model.now_us, lambda: self.tick() if self.wakes_us == at_us else None)

    def tick(self) -> None:
        self.wakes_us = None
        self.step(events.Tick())
        self.run_rounds(self.rounds.tick(self.model.now_us))
        self.wake()

    # --- agreement ----------------------------------------------------------------------------------------------------

    def step(self, event: events.Event) -> None:
        self.state, effects = step(self.state, event, self.model.decide, now_us=self.model.now_us)
        for effect in effects:
            self.carry_out(effect)

    def hear(self, event: events.Event, signed: tuple[DeviceId, Life] | None = None) -> None:
        """`signed`: by whom, and in which life."""
        if self.alive and not self.cut:
            if signed is not None and is_former_life(self.state, *signed):
                event = events.FormerLifeHeard(device=signed[0])
            self.step(event)
            self.wake()

    def carry_out(self, effect: events.Effect) -> None:
        model = self.model
        match effect:
            case events.PublishProfile(profile=profile):
                self.lives.reach(profile.life.incarnation)
                model.retain(self, "profile", events.Learned(profiles=(profile,), source=self.name))
            case events.PublishAck(ack=ack):
                if self.deaf:
                    return
                model.checks.acked(ack)
                model.retain(self, "ack", events.AckHeard(ack=ack))
            case events.SendAck(device=device, ack=ack):
                if self.deaf:
                    return
                model.checks.acked(ack)
                model.send(self, model.named(device), events.AckHeard(ack=ack))
            case events.PublishEvictions(lives=lives):
                model.broadcast(self, events.Learned(tombstones=lives, source=self.name))
            case events.PublishSuspensions(suspensions=suspensions):
                model.broadcast(self, events.Learned(suspensions=suspensions, source=self.name))
            case events.ShowProgress():
                self.later(1_000, lambda: self.hear(events.Progressed()))
            case events.SendBeat(view_digest=view_digest, generation=generation):
                beat = events.BeatHeard(
                    device=self.name, life=self.state.own.profile.life, view_digest=view_digest, generation=generation
                )
                model.broadcast(self, beat)
                model.send(self, self, beat)
            case events.AskView(device=device):
                view = self.state.view
                request = events.ViewRequested(
                    device=self.name,
                    versions={name: profile.version for name, profile in view.profiles.items()},
                    tombstones=dict(view.tombstones),
                    suspensions=dict(view.suspensions),
                )
                model.send(self, model.named(device), request)
            case events.SendView(device=device, profiles=names, tombstones=tombstones, suspensions=suspensions):
                profiles = tuple(self.state.view.profiles[name] for name in names if name in self.state.view.profiles)
                model.send(
                    self,
                    model.named(device),
                    events.Learned(profiles=profiles, tombstones=tombstones, suspensions=suspensions, source=self.name),
                )
            case events.SendProbe(device=device):
                model.probe(self, model.named(device))
            case events.Freeze():
                self.rounds.freeze()
                self.feedback.abandon()
                self.local = None
            case events.Activate(active=active):
                model.checks.activated(self.name, self.state.own.profile.life, active)
                self.feedback.abandon()
                self.local = self.wanted = None
                self.begin(self.rounds.activate(active, model.now_us))
            case events.RoundAccepted(progress=progress):
                self.commit(progress)
            case events.Excluded():
                if self.name not in self.state.view.suspended:
                    raise Violation(f"{self.name} is left out, but it is like the others")
            case events.Evicted():
                model.evictions += 1
            case events.Suspended():
                model.suspensions += 1
            case events.Resumed() | events.Departed():
                pass
            case _:
                assert_never(effect)

    # --- rounds -------------------------------------------------------------------------------------------------------

    def begin(self, effects: tuple[round_effects.Effect, ...]) -> None:
        self.run_rounds(effects)
        early, self.early = self.early, []
        for replay in early:
            replay()

    def run_rounds(self, effects: tuple[round_effects.Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case Begin(round=number):
                    active = self.rounds.active
                    if active is None or active.plan.trainer(self.name) is None:
                        continue
                    generation = self.generation
                    duration = self.model.random.randint(ROUND_US // 2, ROUND_US) * self.slow_factor
                    self.later(duration, lambda g=generation, n=number: self.trained(g, n))  # type: ignore[misc]
                case Fetch(progress=progress, holders=holders):
                    self.fetch(Wanted(progress=progress, holders=holders))
                case Merge(key=key, merge=merge):
                    merged = merge.merged()
                    header = MergedSlice(key=key, encoding=ENCODING, senders=merged.senders)
                    # sums instead of means keep the counts exact
                    data = (merged.mean * float(len(merged.senders))).round().numpy().tobytes()
                    self.published[key] = (header, data)
                    for old in [old for old in self.published if old.round <= key.round - KEPT_ROUNDS]:
                        del self.published[old]
                    for other in self.model.devices:
                        if other is not self:
                            self.model.send_bulk(self, other, partial(other.merged, self.name, header, data), once=True)
                    self.merged(self.name, header, data)
                case Complete(parts=parts):
                    self.complete(parts)
                case AskForSlice(owner=owner, key=key):
                    asked = self.model.named(owner)
                    self.model.send_bulk(self, asked, partial(asked.serve, self, key), once=True)
                case ReportSilence(device=device):
                    self.step(events.OwnerSilent(device=device))
                case ReportHeldUp(devices=devices, since_us=since_us, links=links):
                    self.step(events.HeldUp(devices=devices, since_us=since_us, links=links))
                case _:
                    assert_never(effect)
        self.wake()

    @property
    def generation(self) -> int:
        return self.rounds.active.generation if self.rounds.active is not None else 0

    def trained(self, generation: int, number: int) -> None:
        active = self.rounds.active
        if active is None or not self.rounds.may_contribute(generation, number):
            return
        delta = torch.zeros(self.model.elements)
        delta[self.index :: self.model.scenario.devices] = 1.0
        self.local = delta
        self.rounds.trained(number)
        for index, span in enumerate(active.plan.slices):
            key = SliceKey(generation=generation, plan_digest=active.plan_digest, round=number, index=index)
            data = self.feedback.contribute(delta, span.start, span.stop, ENCODING)
            header = Contribution(key=key, encoding=ENCODING, samples=1)
            owner = self.model.named(span.owner)
            if owner is self:
                self.contributed(self.name, header, data)
            else:
                self.model.send_bulk(self, owner, partial(owner.contributed, self.name, header, data))

    def contributed(self, sender: DeviceId, header: Contribution, data: bytes) -> None:
        if self.rounds.is_ahead(header.key.generation, header.key.round):
            return self.early.append(partial(self.contributed, sender, header, data))
        delta = decode(data, ENCODING, Pieces((len(data) // 4,)))
        self.run_rounds(self.rounds.contribute(sender, header, delta, self.model.now_us))

    def merged(self, sender: DeviceId, header: MergedSlice, data: bytes) -> None:
        if self.rounds.is_ahead(header.key.generation):
            return self.early.append(partial(self.merged, sender, header, data))
        self.run_rounds(self.rounds.merged(sender, header, data, self.model.now_us))

    def serve(self, asker: "Device", key: SliceKey) -> None:
        if key not in self.published:
            self.model.send_bulk(
                self, asker, lambda: asker.rounds.not_yet(self.name, key, self.model.now_us), once=True
            )
        else:
            self.model.send_bulk(self, asker, partial(asker.merged, self.name, *self.published[key]), once=True)

    def complete(self, parts: tuple[round_effects.MergedPart, ...]) -> None:
        vector = self.vector + torch.cat(
            [decode(part.data, ENCODING, Pieces((len(part.data) // 4,))) for part in parts]
        )
        number = self.rounds.in_hand
        samples = self.rounds.progress.samples + sum(parts[0].header.senders.values())
        progress = StateProgress(
            run=1,
            samples=samples,
            round=number,
            digest=self.digest(vector, number),
            finished=number >= self.model.scenario.rounds_max,
        )
        self.pending = (progress, vector, parts)
        senders = frozenset(parts[0].header.senders)
        self.step(events.RoundReady(generation=self.generation, progress=progress, senders=senders))

    def commit(self, progress: StateProgress) -> None:
        active = self.rounds.active
        assert active is not None
        expected, vector, parts = self.pending
        assert expected == progress
        fates = fates_of(self.name, active.plan.slices, [part.header for part in parts])
        self.feedback.commit(self.local, fates)
        self.made += 1 if self.local is not None else 0
        self.vector, self.local, self.wanted = vector, None, None
        self.snapshots = {digest: held for digest, held in self.snapshots.items() if digest == active.start.digest} | {
            progress.digest: (progress, vector)
        }
        self.model.checks.completed(self.name, active, progress)
        self.model.checks.conserved(self)
        self.begin(self.rounds.accepted(Waypoint(progress=progress), self.model.now_us))

    # --- fetching -----------------------------------------------------------------------------------------------------

    def fetch(self, wanted: Wanted) -> None:
        self.wanted, again, beyond = wanted, wanted.once_more, partial(self.rounds.beyond, wanted.progress.round)
        holder = self.model.named(wanted.holder)
        self.model.send_bulk(self, holder, partial(holder.give_state, self, wanted.progress.digest), once=True)
        self.later(2 * SECOND_US, lambda: self.fetch(again(beyond())) if self.wanted is wanted else None)

    def give_state(self, asker: "Device", digest: bytes) -> None:
        progress, vector = self.snapshots.get(digest, (self.rounds.progress, self.vector))
        generation, plan_digest = self.rounds.lineage
        header = WholeState(progress=progress, generation=generation, plan_digest=plan_digest)
        self.model.send_bulk(self, asker, partial(asker.take_state, header, vector), once=True)

    def take_state(self, header: WholeState, vector: torch.Tensor) -> None:
        wanted, progress = self.wanted, header.progress
        if wanted is None or not self.rounds.serves(header, wanted.progress):
            return
        self.wanted = None
        self.vector = vector
        self.feedback.drop()
        self.local = None
        self.base = vector[self.index :: self.model.scenario.devices].clone()
        self.made = 0
        self.snapshots[progress.digest] = (progress, vector)
        self.step(events.StateReached(progress=progress))
        self.begin(self.rounds.fetched(Waypoint(progress=progress), self.model.now_us))


class Model:
    """The network, the clock and the faults."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.random = random.Random(scenario.seed)
        self.checks = Checks()
        self.policies = {"test": POLICIES[scenario.policy]()}
        self.memo: dict[bytes, Decision] = {}
        self.now_us = 0
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.count = 0
        self.evictions = self.suspensions = self.replayed = 0
        self.healed = False
        self.elements = 2 * scenario.devices
        self.retained: dict[tuple[DeviceId, str], tuple[events.Event, Life]] = {}
        self.recorded: deque[tuple[DeviceId, Life, events.Event]] = deque(maxlen=RECORDED_MAX)
        """What was said to all, for whoever says it again."""
        self.devices = [Device(self, index) for index in range(scenario.devices)]

    def decide(self, view: View) -> Decision:
        if view.digest not in self.memo:
            plan = decide(view.living, self.policies, view.suspended)
            for broken in violations(plan, view.living):
                raise Violation(f"S2 or S4: {broken}")
            self.memo[view.digest] = Decision(plan=plan, plan_digest=plan_digest(plan))
        return self.memo[view.digest]

    def named(self, name: DeviceId) -> Device:
        return self.devices[int(name[1:])]

    def at(self, time_us: int, action: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.queue, (time_us, self.count, action))

    # --- the network --------------------------------------------------------------------------------------------------

    def _copies(self) -> int:
        if self.healed:
            return 1
        if self.random.randrange(1000) < self.scenario.loss_permille:
            return 0
        return 2 if self.random.randrange(1000) < self.scenario.duplicate_permille else 1

    def send(self, source: Device, target: Device, event: events.Event) -> None:
        if source.cut or not source.alive:
            return
        signed = source.name, source.state.own.profile.life
        for _ in range(self._copies()):
            delay_us = self.random.randint(1_000, self.scenario.delay_max_us)
            self.at(self.now_us + delay_us, lambda: target.hear(event, signed))

    def broadcast(self, source: Device, event: events.Event) -> None:
        self.recorded.append((source.name, source.state.own.profile.life, event))
        for target in self.devices:
            if target is not source:
                self.send(source, target, event)

    def retain(self, source: Device, kind: str, event: events.Event) -> None:
        if not source.cut:
            self.retained[source.name, kind] = event, source.state.own.profile.life
        self.broadcast(source, event)

    def deliver_retained(self, target: Device) -> None:
        for (name, _), (event, life) in list(self.retained.items()):
            hear = partial(target.hear, event, (name, life))
            delay_us = self.random.randint(1_000, self.scenario.delay_max_us)
            self.at(self.now_us + delay_us, lambda h=hear, x=target.epoch: h() if target.epoch == x else None)  # type: ignore[misc]

    def probe(self, source: Device, target: Device) -> None:
        def answer() -> None:
            if target.alive and not target.cut:
                self.send(target, source, events.ProbeAnswered(device=target.name, life=target.state.own.profile.life))

        if not source.cut and self._copies():
            self.at(self.now_us + self.random.randint(1_000, self.scenario.delay_max_us), answer)

    def send_bulk(self, source: Device, target: Device, action: Callable[[], None], *, once: bool = False) -> None:
        """A transfer: repeated until it arrives, while both processes live; with `once` it may be lost."""
        epochs = (source.epoch, target.epoch)

        def attempt() -> None:
            if (source.epoch, target.epoch) != epochs or not (source.alive and target.alive):
                return
            if source.cut or target.cut or not self._copies():
                if not once:
                    self.at(self.now_us + SECOND_US, attempt)
                return
            action()
            target.wake()

        self.at(self.now_us + self.random.randint(1_000, self.scenario.delay_max_us), attempt)

    # --- faults -------------------------------------------------------------------------------------------------------

    def begin(self, fault: Fault) -> None:
        device = self.devices[fault.device % len(self.devices)]
        match fault.kind:
            case "crash":
                if device.alive:
                    device.crash()
                    self._will(device)
                    self.at(self.now_us + fault.lasts_us, lambda: None if device.alive else device.boot())
            case "cut":
                if device.alive and not device.cut:
                    device.cut = True
                    device.step(events.Disconnected())
                    self._will(device)
                    self.at(self.now_us + fault.lasts_us, lambda: self._reconnect(device))
            case "slow":
                device.slow_factor = 8
                self.at(self.now_us + fault.lasts_us, lambda: setattr(device, "slow_factor", 1))
            case "deaf":
                device.deaf = True
                self.at(self.now_us + fault.lasts_us, lambda: setattr(device, "deaf", False))
            case "broker":
                self.retained.clear()
                for other in self.devices:
                    if other.alive and not other.cut:
                        other.cut = True
                        other.step(events.Disconnected())
                        self.at(self.now_us + fault.lasts_us, lambda o=other: self._reconnect(o))  # type: ignore[misc]
            case "update":
                if device.alive:
                    speed = self.random.randint(1, 100) * 10_000
                    memory = self.random.choice([1, 2, 4]) << 28
                    device.hear(
                        events.OwnProfile(
                            profile=attrs.evolve(device.state.own.profile, speed_kflops=speed, memory_bytes=memory)
                        )
                    )
            case "stale_will":
                self._will(device)
            case "replay":
                self._replay(fault.lasts_us)
            case "lost" | "rolled back" | "cloned" if not device.alive:
                device.change_disk(fault.kind)
            case "lost" | "rolled back" | "cloned":
                device.crash()
                self._will(device)
                device.change_disk(fault.kind)
                self.at(self.now_us + fault.lasts_us, lambda: None if device.alive else device.boot())
            case kind:
                raise ValueError(kind)

    def _replay(self, lasts_us: int) -> None:
        """Somebody says again what was said in former lives, to everybody; whatever is of a process that still runs its
        hearers know by its number."""
        for name, life, event in tuple(self.recorded):
            device = self.named(name)
            if not device.alive or life.boot != device.state.own.profile.life.boot:
                self.replayed += 1
                for target in self.devices:
                    hear = partial(target.hear, event, (name, life))
                    self.at(self.now_us + self.random.randint(0, lasts_us), hear)

    def _will(self, device: Device) -> None:
        """The broker tells everybody, sooner or later."""
        event = events.StatusHeard(device=device.name, online=False)
        for target in self.devices:
            if target is not device:
                delay_us = self.random.randint(0, 3 * SECOND_US)
                self.at(self.now_us + delay_us, lambda t=target: t.hear(event))  # type: ignore[misc]

    def _reconnect(self, device: Device) -> None:
        if device.cut:
            device.cut = False
            if device.alive:
                device.step(events.Connected())
                self.deliver_retained(device)
                device.wake()

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self, until_us: int) -> None:
        while self.queue and self.queue[0][0] <= until_us:
            self.now_us, _, action = heapq.heappop(self.queue)
            action()
        self.now_us = until_us

    def start(self) -> None:
        for device in self.devices:
            self.at(self.random.randint(0, SECOND_US), lambda d=device: None if d.alive else d.boot())  # type: ignore[misc]
        for fault in self.scenario.faults:
            self.at(fault.at_us, lambda f=fault: self.begin(f))  # type: ignore[misc]

    def heal(self) -> None:
        """From now on nothing goes wrong any more."""
        self.healed = True
        for device in self.devices:
            device.deaf, device.slow_factor = False, 1
            if not device.alive:
                device.cut = False
                device.boot()
            self._reconnect(device)
