"""The bookkeeping of merged rounds on a few devices, where each fate of each contribution and slice is chosen.

Agreement is played by the machine: it freezes devices, begins generations, and accepts or forgets proposed rounds.
The reference is a ledger in float64 of what was sent under which key, and of what every device made of it.
"""

from collections import defaultdict
from typing import Any, TypeAlias, assert_never

import attrs
import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from crowd.actors.trainer.course import Waypoint
from crowd.actors.trainer.effects import AskForSlice, Begin, Complete, Effect, Fetch, Merge, ReportHeldUp, ReportSilence
from crowd.actors.trainer.fates import fates_of
from crowd.actors.trainer.rounds import Rounds
from crowd.agreement.ack import StateProgress
from crowd.agreement.state import Active
from crowd.learning.encoding import decode
from crowd.learning.feedback import Feedback
from crowd.learning.layout import Layout, Pieces
from crowd.learning.merge import Merged, SliceMerge
from crowd.planning import round_plan
from crowd.planning.encoding_size import encoded_bytes
from crowd.planning.plan import Encoding, plan_digest
from crowd.protocol.messages import KEPT_ROUNDS, Contribution, MergedSlice, SliceKey
from crowd.units import DeviceId
from tests.agreement.cluster_model import Device as Modelled
from tests.learning.drawn_plans import (
    DEVICES_MAX,
    ELEMENTS,
    LAST_PLAN,
    Choices,
    in_round,
    make_plan,
    numbers,
    plan_in_turn,
    plans,
)

ROUNDS_AFTER = 3
places = st.integers(0, 99)
wrong_keys = st.sampled_from(["generation", "plan_digest", "round", "index", "target"])
Ledger: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


@attrs.frozen
class Sent:
    """A contribution or a merged slice in the air."""

    source: "Device"
    target: "Device"
    header: Contribution | MergedSlice
    data: bytes


@attrs.define(eq=False)
class Device:
    name: DeviceId
    rounds: Rounds
    vector: torch.Tensor
    feedback: Feedback = attrs.field(factory=lambda: Feedback(Layout.plain(ELEMENTS)))
    promised: int = 0
    activated: int = 0
    delta: torch.Tensor | None = None
    """Of the round in hand, trained and perhaps not sent."""
    proposal: Complete | None = None
    wanted: Fetch | None = None
    early: list[Sent] = attrs.field(factory=list)
    published: dict[SliceKey, Sent] = attrs.field(factory=dict)
    made: Ledger = attrs.field(factory=lambda: np.zeros(ELEMENTS))
    """All deltas since its state was last fetched."""
    merged: Ledger = attrs.field(factory=lambda: np.zeros(ELEMENTS))
    """What of them merged slices contain."""


def _float64(data: bytes, encoding: Encoding, elements: int) -> Ledger:
    return decode(data, encoding, Pieces((elements,))).numpy().astype(np.float64)


class Cluster(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_us = 0
        self.devices: list[Device] = []
        self.air: list[Sent] = []
        self.plans: dict[int, Active] = {}
        self.contributed: dict[tuple[SliceKey, DeviceId], tuple[int, Ledger]] = {}
        """What each trainer really sent, and with how many samples."""
        self.held_up = False
        """Whether a device was reported, which ends the generation."""
        self.contributions: list[Sent] = []
        self.arrived: defaultdict[SliceKey, set[DeviceId]] = defaultdict(set)
        """Whose contribution came to the owner under this key."""
        self.merges: dict[SliceKey, bytes] = {}
        """What owners published."""
        self.taken: list[tuple[SliceMerge, tuple[DeviceId, ...]]] = []
        """Every merge that was handed out, and whom it lacked then."""
        self.states: dict[bytes, tuple[StateProgress, torch.Tensor]] = {}
        self.after: dict[tuple[int, int], bytes] = {}
        """The state after each round of each generation."""

    @initialize(count=st.integers(2, DEVICES_MAX), plan=plans, rounds=st.integers(0, 2))
    def devices_start(self, count: int, plan: Choices, rounds: int) -> None:
        for index in range(count):
            name = DeviceId(f"d{index}")
            self.devices.append(Device(name, Rounds(name, SliceMerge), torch.full((ELEMENTS,), float(index))))
        for device in self.devices:
            progress = self._keep(device.vector, round=0, samples=0)
            device.rounds.reset(Waypoint(progress=progress))
            self._freeze(device, plan)
        for device in self.devices:
            self._activate(device)
        for device in self.devices:
            self._fetch(device, place=0)
        for _ in range(rounds):
            self.a_round_goes_by(number=0, sent=True, wrong="round")

    def _keep(self, vector: torch.Tensor, *, round: int, samples: int) -> StateProgress:
        progress = StateProgress(run=1, digest=Modelled.digest(vector, round), round=round, samples=samples)
        self.states[progress.digest] = (progress, vector)
        return progress

    # --- generations --------------------------------------------------------------------------------------------------

    @rule(number=numbers, plan=plans)
    def a_device_promises_another_plan(self, number: int, plan: Choices) -> None:
        self._freeze(self._device(number), plan)

    @rule(number=numbers)
    def a_device_begins_the_promised_plan(self, number: int) -> None:
        self._activate(self._device(number))

    @rule(plan=plans, number=numbers)
    def all_go_over_to_another_plan(self, plan: Choices, number: int) -> None:
        """Those that lack its start fetch it, but for one that takes its time."""
        generation = max(device.promised for device in self.devices) + 1
        for device in self.devices:
            while device.promised < generation and device.promised <= max(self.plans):
                self._freeze(device, plan)
        for device in self.devices:
            self._activate(device)
        for device in self.devices:
            if device is not self._device(number):
                self._fetch(device, place=0)

    def _freeze(self, device: Device, plan: Choices) -> None:
        if device.promised > max(self.plans, default=0):
            return  # the others have not followed yet
        device.promised += 1
        device.rounds.freeze()
        device.feedback.abandon()
        device.proposal = device.wanted = device.delta = None
        if all(other.promised == device.promised for other in self.devices):
            self.plans[device.promised] = self._agree(device.promised, plan)

    def _agree(self, generation: int, choices: Choices) -> Active:
        """The start is the best state that is promised."""
        plan = make_plan([device.name for device in self.devices], choices, seed=generation)
        start = max(device.rounds.progress for device in self.devices)
        return Active(
            generation=generation,
            view_digest=b"",
            plan_digest=plan_digest(plan),
            plan=plan,
            start=start,
            holders=tuple(device.name for device in self.devices if device.rounds.progress == start),
        )

    def _activate(self, device: Device) -> None:
        active = self.plans.get(device.promised)
        if active is None or device.activated == device.promised:
            return
        device.activated = device.promised
        self._carry_out(device, device.rounds.activate(active, self.now_us))
        self._hear_early(device)

    def _hear_early(self, device: Device) -> None:
        early, device.early = device.early, []
        for sent in early:
            self._deliver(sent)

    def _is_early(self, device: Device, header: Contribution | MergedSlice) -> bool:
        """As a trainer asks (`backlog.place_of`)."""
        return device.rounds.is_ahead(header.key.generation, header.key.round * isinstance(header, Contribution))

    # --- a round ------------------------------------------------------------------------------------------------------

    @rule(
        number=numbers, values=st.lists(st.integers(-50, 50), min_size=ELEMENTS, max_size=ELEMENTS), sent=st.booleans()
    )
    def a_device_has_trained(self, number: int, values: list[int], sent: bool) -> None:
        """Its delta may be sent later, or never."""
        device = self._device(number)
        self._train(device, values)
        if sent:
            self._contribute(device)

    @rule(number=numbers)
    def a_device_sends_what_it_has_trained(self, number: int) -> None:
        self._contribute(self._device(number))

    def _train(self, device: Device, values: list[int]) -> None:
        if device.delta is None and not device.rounds.frozen and device.wanted is None:
            device.delta = torch.tensor(values) / 7

    def _contribute(self, device: Device) -> None:
        active = device.rounds.active
        if device.delta is None or active is None or device.rounds.frozen:
            return
        samples = active.plan.trainers[self.devices.index(device)].round_samples
        planned = in_round(active.plan, device.rounds.in_hand)
        for index, span in enumerate(planned.slices):
            key = SliceKey(
                generation=active.generation,
                plan_digest=active.plan_digest,
                round=device.rounds.in_hand,
                index=index,
            )
            if (key, device.name) in self.contributed:
                return
            encoding = planned.encoding
            data = device.feedback.contribute(device.delta, span.start, span.stop, encoding)
            self.contributed[key, device.name] = (samples, _float64(data, encoding, span.stop - span.start))
            header = Contribution(key=key, encoding=encoding, samples=samples)
            self.contributions.append(Sent(device, self._named(span.owner), header, data))
            self.air.append(self.contributions[-1])

    @rule(number=numbers)
    def a_proposed_round_is_accepted(self, number: int) -> None:
        self._accept(self._device(number))

    def _accept(self, device: Device) -> None:
        proposal, active = device.proposal, device.rounds.active
        if proposal is None or active is None:
            return
        device.proposal = None
        slices = in_round(active.plan, proposal.round).slices
        for index, (span, part) in enumerate(zip(slices, proposal.parts, strict=True)):
            key, place = part.header.key, slice(span.start, span.stop)
            assert (key.generation, key.plan_digest) == (active.generation, active.plan_digest)
            assert (key.round, key.index) == (proposal.round, index) == (device.rounds.progress.round + 1, index)
            assert part.data == self.merges[key], "not what its owner published"
            if device.name in part.header.senders:
                device.merged[place] += self.contributed[key, device.name][1]
        if device.delta is not None:
            device.made += device.delta.numpy()
        headers = [part.header for part in proposal.parts]
        device.feedback.commit(device.delta, fates_of(device.name, slices, headers))
        device.delta = None
        step = torch.cat(
            [decode(part.data, part.header.encoding, Pieces((len(part.data) // 4,))) for part in proposal.parts]
        )
        samples = device.rounds.progress.samples + sum(proposal.parts[0].header.senders.values())
        device.vector = device.vector + step
        progress = self._keep(device.vector, round=proposal.round, samples=samples)
        reached = (active.generation, proposal.round)
        assert self.after.setdefault(reached, progress.digest) == progress.digest, "replicas differ after a round"
        self._carry_out(device, device.rounds.accepted(Waypoint(progress=progress), self.now_us))
        self._hear_early(device)

    @rule(number=numbers, sent=st.booleans(), wrong=wrong_keys)
    def a_round_goes_by(self, number: int, sent: bool, wrong: str) -> None:
        """In which one device trains, and perhaps is too late to send."""
        device = self._device(number)
        for other in self.devices:
            if other is not device or sent:
                self._train(other, [3, 1, -4, 1, 5, -9, 2])
                self._contribute(other)
        self._forge_all(number, wrong)
        self.everything_sent_so_far_arrives(backwards=False)
        self._forge_all(number, wrong)
        self._pass()
        self._train(device, [2, -7, 1, 8, -2, 8, 1])
        self.everything_sent_so_far_arrives(backwards=False)
        for other in self.devices:
            self._accept(other)

    # --- the fate of messages -----------------------------------------------------------------------------------------

    @precondition(lambda self: self.air)
    @rule(place=places)
    def a_message_arrives(self, place: int) -> None:
        self._deliver(self.air.pop(place % len(self.air)))

    @precondition(lambda self: self.air)
    @rule(place=places)
    def a_message_arrives_and_will_come_again(self, place: int) -> None:
        self._deliver(self.air[place % len(self.air)])

    @precondition(lambda self: self.air)
    @rule(place=places)
    def a_message_is_lost(self, place: int) -> None:
        self.air.pop(place % len(self.air))

    @precondition(lambda self: self.air)
    @rule(backwards=st.booleans())
    def everything_sent_so_far_arrives(self, backwards: bool) -> None:
        air, self.air = self.air, []
        for sent in reversed(air) if backwards else air:
            self._deliver(sent)

    @precondition(lambda self: self.air)
    @rule()
    def everything_sent_so_far_is_lost(self) -> None:
        self.air.clear()

    @precondition(lambda self: self.air)
    @rule(number=numbers, wrong=wrong_keys)
    def everything_sent_so_far_comes_under_another_key_too(self, number: int, wrong: str) -> None:
        self._forge_all(number, wrong)

    def _forge_all(self, number: int, wrong: str) -> None:
        """Of a former generation, another plan, a round long over, a slice that is not there, or to another device."""
        for sent in self.air:
            key = sent.header.key
            changes: dict[str, dict[str, Any]] = {
                "generation": {"generation": key.generation - 1},
                "plan_digest": {"plan_digest": b"another"},
                "round": {"round": sent.target.rounds.in_hand - 2},
                "index": {"index": 9 if number % 2 else -1},
                "target": {},
            }
            forged = attrs.evolve(sent.header, key=attrs.evolve(key, **changes[wrong]))
            self._expect_discarded(attrs.evolve(sent, header=forged, data=bytes(len(sent.data))))
            if wrong == "target":
                self._expect_discarded(attrs.evolve(sent, target=self._device(number), data=bytes(len(sent.data))))

    def _expect_discarded(self, sent: Sent) -> None:
        key, device, source = sent.header.key, sent.target, sent.source
        if device.rounds.is_ahead(key.generation, key.round):
            return  # it would be looked at later
        real = any(key == known for known, _ in self.contributed)
        if real and isinstance(sent.header, Contribution) and self._owner(key) == device.name:
            return  # the right key, at the right device
        if real and isinstance(sent.header, MergedSlice):
            source = next(other for other in self.devices if other.name != self._owner(key))
        before = (device.rounds.next_deadline_us(), device.rounds.progress, device.rounds.in_hand)
        assert self._hand_over(device, attrs.evolve(sent, source=source)) == ()
        assert before == (device.rounds.next_deadline_us(), device.rounds.progress, device.rounds.in_hand)

    def _owner(self, key: SliceKey) -> DeviceId:
        return in_round(self.plans[key.generation].plan, key.round).slices[key.index].owner

    def _deliver(self, sent: Sent) -> None:
        device, key = sent.target, sent.header.key
        if self._is_early(device, sent.header):
            device.early.append(sent)
            return
        if isinstance(sent.header, Contribution):
            self.arrived[key].add(sent.source.name)
        self._carry_out(device, self._hand_over(device, sent))

    def _hand_over(self, device: Device, sent: Sent) -> tuple[Effect, ...]:
        match sent.header:
            case Contribution() as header:
                codes = decode(sent.data, header.encoding, Pieces((self._elements(sent),)))
                return device.rounds.contribute(sent.source.name, header, codes, self.now_us)
            case MergedSlice() as header:
                return device.rounds.merged(sent.source.name, header, sent.data, self.now_us)
            case _:
                assert_never(sent.header)

    def _elements(self, sent: Sent) -> int:
        """How long the slice is that was sent, whatever its key says."""
        size_bytes, encoding = len(sent.data), sent.header.encoding
        return next(elements for elements in range(size_bytes + 1) if encoded_bytes(encoding, elements) == size_bytes)

    # --- time ---------------------------------------------------------------------------------------------------------

    @rule()
    def time_passes_to_the_next_deadline(self) -> None:
        self._pass()

    @rule(number=numbers)
    def a_connection_was_lost_and_is_back(self, number: int) -> None:
        self._device(number).rounds.restart_clocks(self.now_us)

    def _pass(self) -> None:
        deadlines = [device.rounds.next_deadline_us() for device in self.devices]
        self.now_us = max(self.now_us, min((due for due in deadlines if due is not None), default=0))
        for device in self.devices:
            self._carry_out(device, device.rounds.tick(self.now_us))

    # --- effects ------------------------------------------------------------------------------------------------------

    def _carry_out(self, device: Device, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case Begin(round=number):
                    assert not device.rounds.frozen
                    assert number == device.rounds.in_hand
                    device.delta = None
                case Fetch(holders=holders):
                    assert device.name not in holders
                    device.wanted = effect
                case Merge(key=key, merge=merge):
                    self.taken.append((merge, merge.missing))
                    self._publish(device, key, merge.merged())
                case Complete():
                    assert not device.rounds.frozen
                    assert device.wanted is None or device.wanted.progress.digest == b""
                    device.proposal = effect
                case AskForSlice(owner=owner, key=key):
                    assert key.round == device.rounds.in_hand
                    assert self._owner(key) == owner != device.name
                    self._answer(device, self._named(owner), key)
                case ReportSilence(device=other):
                    assert other != device.name
                case ReportHeldUp(devices=others):
                    assert device.name not in others
                    self.held_up = True
                case _:
                    assert_never(effect)

    def _publish(self, owner: Device, key: SliceKey, merged: Merged) -> None:
        """Against the ledger: only what came, each once, at least half of the plan's weight, and its mean."""
        plan = self.plans[key.generation].plan
        planned = {trainer.device: trainer.round_samples for trainer in plan.trainers}
        assert not owner.rounds.frozen
        assert (key.generation, self._owner(key)) == (owner.activated, owner.name)
        assert set(merged.senders) <= self.arrived[key]
        assert 2 * sum(planned[sender] for sender in merged.senders) >= sum(planned.values())
        came = {sender: self.contributed[key, sender] for sender in merged.senders}
        assert merged.senders == {sender: samples for sender, (samples, _) in came.items()}
        mean = np.average([delta for _, delta in came.values()], axis=0, weights=list(merged.senders.values()))
        np.testing.assert_allclose(merged.mean.numpy(), mean, rtol=1e-5, atol=1e-5)
        data = merged.mean.numpy().tobytes()
        assert key not in self.merges, "merged twice"
        self.merges[key] = data
        header = MergedSlice(key=key, encoding=Encoding.FLOAT32, senders=merged.senders)
        owner.published[key] = Sent(owner, owner, header, data)
        for old in [old for old in owner.published if old.round <= key.round - KEPT_ROUNDS]:
            del owner.published[old]
        self.air += [Sent(owner, other, header, data) for other in self.devices if other is not owner]
        self._carry_out(owner, owner.rounds.merged(owner.name, header, data, self.now_us))

    def _answer(self, asker: Device, owner: Device, key: SliceKey) -> None:
        if key in owner.published:
            self.air.append(attrs.evolve(owner.published[key], target=asker))
        else:
            asker.rounds.not_yet(owner.name, key, self.now_us)

    # --- whole states -------------------------------------------------------------------------------------------------

    @rule(number=numbers, place=places)
    def a_state_is_fetched(self, number: int, place: int) -> None:
        self._fetch(self._device(number), place)

    def _fetch(self, device: Device, place: int) -> None:
        """The wanted state, or what the holder has now if that goes further."""
        wanted = device.wanted
        if wanted is None:
            return
        holder = self._named(wanted.holders[place % len(wanted.holders)])
        progress, vector = self.states.get(wanted.progress.digest, (holder.rounds.progress, holder.vector))
        if holder.activated != device.activated or progress < wanted.progress:
            return
        device.wanted = device.proposal = device.delta = None
        device.vector = vector
        device.feedback.drop()
        device.made, device.merged = np.zeros(ELEMENTS), np.zeros(ELEMENTS)
        self._carry_out(device, device.rounds.fetched(Waypoint(progress=progress), self.now_us))
        self._hear_early(device)

    # --- checks -------------------------------------------------------------------------------------------------------

    @invariant()
    def what_a_device_made_is_merged_or_left(self) -> None:
        for device in self.devices:
            left = device.feedback.residual.numpy()
            np.testing.assert_allclose(device.merged + left, device.made, rtol=1e-5, atol=1e-4)

    @invariant()
    def nothing_is_added_to_what_has_been_merged(self) -> None:
        for merge, missing in self.taken:
            assert merge.missing == missing

    @invariant()
    def a_state_is_what_its_device_says(self) -> None:
        for device in self.devices:
            progress = device.rounds.progress
            assert progress.digest == Modelled.digest(device.vector, progress.round)

    # --- the end ------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Nothing is lost any more, and all begin the plan that was promised: rounds go on, on every device.

        Contributions are repeated until they arrive; merged slices that were lost have to be asked for; who holds the
        others up for too long is reported, and another plan follows."""
        if not self.devices:
            return
        for device in self.devices:
            if device.promised < max(other.promised for other in self.devices):
                self._freeze(device, LAST_PLAN)
        for device in self.devices:
            self._activate(device)
        self.air, self.held_up = list(self.contributions), False
        goal = max(device.rounds.progress.round for device in self.devices) + ROUNDS_AFTER
        for _ in range(300):
            if all(device.rounds.progress.round >= goal for device in self.devices):
                return
            if self.held_up:
                self.held_up = False
                self.all_go_over_to_another_plan(plan=LAST_PLAN, number=0)
            for device in self.devices:
                self._fetch(device, place=0)
                self._train(device, [1] * ELEMENTS)
                self._contribute(device)
            while self.air:
                self._deliver(self.air.pop(0))
            if any(device.proposal for device in self.devices):
                for device in self.devices:
                    self._accept(device)
            else:
                self._pass()
            self.what_a_device_made_is_merged_or_left()
        raise AssertionError(f"rounds do not go on: {[device.rounds.progress.round for device in self.devices]}")

    def _device(self, number: int) -> Device:
        return self.devices[number % len(self.devices)]

    def _named(self, name: DeviceId) -> Device:
        return next(device for device in self.devices if device.name == name)


def test_every_delta_is_merged_at_most_once_and_never_forgotten_whatever_arrives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(round_plan, "plan_round", plan_in_turn)
    run_state_machine_as_test(Cluster, settings=settings(max_examples=70, stateful_step_count=50, deadline=None))
