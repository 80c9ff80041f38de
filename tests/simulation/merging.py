"""What becomes of deltas: no contribution is merged twice or forgotten, no merged slice is applied twice, no residual
is lost but where the state itself was replaced. All sums are done again here, in float64.

Layout: `Round` (names one), `Merging` (merged slices and the states that they lead to), `Ledger` (one device's deltas).
"""

from collections import defaultdict
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from crowd.agreement.state import Active
from crowd.learning.encoding import CODINGS, decode
from crowd.learning.layout import Layout, Pieces
from crowd.learning.replica import ReplicaState
from crowd.planning.plan import Consistency, Encoding, Outer, OuterKind, Plan, SliceOwner
from crowd.planning.round_plan import RoundPlan
from crowd.protocol.messages import Contribution, MergedSlice, SliceKey
from crowd.units import DeviceId
from tests.simulation.checks import Findings

Vector: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

ROUNDING = 1e-6
"""Of the arithmetic in float32, relative to the largest element."""
NOISE = 1e-5
"""Of float32 sums, relative to the largest element."""


class Round(NamedTuple):
    generation: int
    plan_digest: bytes
    number: int


class Sent(NamedTuple):
    samples: int
    encoding: Encoding
    data: bytes


def expand(data: bytes, encoding: Encoding, pieces: Pieces) -> Vector:
    """(elements,) float64."""
    return decode(data, encoding, pieces).numpy().astype(np.float64)


class Merging:
    """Every merged slice is the mean of the contributions that it names, and every state follows from the one before by
    the merged slices, applied once."""

    def __init__(self, findings: Findings, layout: Layout) -> None:
        self._findings = findings
        self._layout = layout
        self._contributions: dict[tuple[Round, int], dict[DeviceId, Sent]] = defaultdict(dict)
        self._round_plans: dict[Round, RoundPlan] = {}
        self._merged: dict[SliceKey, tuple[MergedSlice, bytes]] = {}
        self._carried: dict[tuple[int, bytes, int], Vector] = {}
        """What the encodings of an owner's merged slice have not said yet."""
        self._followed: set[bytes] = set()
        self._ledgers: dict[DeviceId, Ledger] = {}
        self._residuals: dict[tuple[DeviceId, bytes], list[Vector]] = defaultdict(list)
        """What each device had left in a state of that digest: when it completed the round, and nothing where it
        fetched the state."""
        self._begins: set[DeviceId] = set()
        """Devices that have made no state in their present lives yet."""

    def life_began(self, device: DeviceId) -> None:
        """What the device had trained and not sent is gone with its former life."""
        self._ledgers[device] = Ledger(self._findings, device, self._layout)
        self._begins.add(device)

    def contributed(self, device: DeviceId, header: Contribution, data: bytes) -> None:
        """The device encoded this for a slice of a round."""
        key, sent = _round_of(header.key), Sent(header.samples, header.encoding, data)
        known = self._contributions[key, header.key.index].setdefault(device, sent)
        if known != sent:
            self._findings.add(f"{device} contributed two things to slice {header.key.index} of {_name(key)}")

    def sent(self, device: DeviceId, header: Contribution, data: bytes) -> None:
        """A contribution is on its way."""
        key = _round_of(header.key)
        sent = self._contributions[key, header.key.index].get(device)
        if sent != Sent(header.samples, header.encoding, data):
            self._findings.add(f"{device} sent a contribution to {_name(key)} that it never made")

    def published(self, owner: DeviceId, plan: RoundPlan, header: MergedSlice, data: bytes) -> None:
        """An owner told everybody, or one who asked, what it merged in the round of this plan."""
        key = header.key
        known = self._round_plans.setdefault(_round_of(key), plan)
        if known != plan:
            self._findings.add(f"{owner} takes round {key.round} for another one than others do: {plan}, not {known}")
        if key in self._merged:
            if self._merged[key] != (header, data):
                self._findings.add(f"{owner} published slice {key.index} of round {key.round} in two versions")
            return
        self._merged[key] = (header, data)
        span = plan.slices[key.index]
        if span.owner != owner:
            self._findings.add(f"{owner} published a slice of {span.owner}'s")
        planned = plan.quotas
        if not header.senders.keys() <= planned.keys():
            self._findings.add(f"{owner} merged {sorted(header.senders)}, but only {sorted(planned)} train")
        elif 2 * sum(planned[sender] for sender in header.senders) < sum(planned.values()):
            self._findings.add(f"{owner} merged round {key.round} with less than half of the plan's samples")
        else:
            self._check_mean(owner, span, header, data)

    def _check_mean(self, owner: DeviceId, span: SliceOwner, header: MergedSlice, data: bytes) -> None:
        key = header.key
        elements, pieces = span.stop - span.start, self._layout.pieces(span.start, span.stop)
        came = self._contributions[_round_of(key), key.index]
        mean = np.zeros(elements)
        total = sum(header.senders.values())
        for sender, samples in header.senders.items():
            sent = came.get(sender)
            if sent is None or sent.samples != samples:
                self._findings.add(f"{owner} names {sender} in round {key.round}, which contributed nothing like that")
                return
            weight = samples / total if total else 1 / len(header.senders)
            mean += expand(sent.data, header.encoding, pieces) * weight
        place = (key.generation, key.plan_digest, key.index)
        wanted = mean + self._carried.get(place, np.zeros(elements))
        left = wanted - expand(data, header.encoding, pieces)
        self._carried[place] = left
        if np.abs(left).max() > (CODINGS[header.encoding].lost + ROUNDING) * np.abs(wanted).max() + NOISE:
            self._findings.add(
                f"slice {key.index} of round {key.round} of generation {key.generation} is not the mean of what "
                f"{sorted(header.senders)} contributed: {np.abs(left).max():.3g} off of {np.abs(wanted).max():.3g}"
            )

    def completed(
        self,
        device: DeviceId,
        active: Active,
        before: ReplicaState,
        after: ReplicaState,
        trained: Vector | None,
        residual: Vector,
    ) -> None:
        """The device went from one state to the next; `trained` is its own part in that, `residual` what is left."""
        key = Round(active.generation, active.plan_digest, after.round)
        taken, refused = [], []
        stays = _stays(active.plan, before, after)
        for index, span in enumerate(active.plan.slices if not stays else ()):
            merged = self._merged.get(_slice_of(key, index))
            if merged is not None and device in merged[0].refused:
                refused.append(slice(span.start, span.stop))
            sent = self._contributions[key, index].get(device)
            if sent is not None and merged is not None and device in merged[0].senders:
                pieces = self._layout.pieces(span.start, span.stop)
                taken.append((slice(span.start, span.stop), expand(sent.data, sent.encoding, pieces)))
        self._ledgers[device].completed(trained, taken, refused, residual)
        self._residuals[device, after.digest].append(residual)
        self._check_state(device, active, before, after)

    def round_abandoned(self, device: DeviceId, residual: Vector) -> None:
        self._ledgers[device].abandoned(residual)

    def residual_dropped(self, device: DeviceId) -> None:
        self._ledgers[device].dropped()

    def state_replaced(self, device: DeviceId, state: ReplicaState, residual: Vector) -> None:
        self._ledgers[device].state_replaced(residual)
        if device not in self._begins:
            self._residuals[device, state.digest].append(residual)
        self._begins.discard(device)

    def resumed(self, device: DeviceId, state: ReplicaState, residual: Vector) -> None:
        """The device goes on with what a former life has saved."""
        had = [] if state.finished else self._residuals[device, state.digest]
        if not any(np.array_equal(residual, each) for each in had or [np.zeros_like(residual)]):
            self._findings.add(f"{device} goes on from round {state.round} with a residual that it had not then")
        self._ledgers[device].resumed(residual)

    def _check_state(self, device: DeviceId, active: Active, before: ReplicaState, after: ReplicaState) -> None:
        """Replicas are compared elsewhere, so each state is checked once."""
        if after.digest in self._followed:
            return
        self._followed.add(after.digest)
        key = Round(active.generation, active.plan_digest, after.round)
        stays = _stays(active.plan, before, after)
        parts = []
        for index, span in enumerate(active.plan.slices):
            merged = self._merged.get(_slice_of(key, index))
            if merged is None:
                self._findings.add(f"{device} completed {_name(key)} without slice {index}, which nobody published")
                return
            header, data = merged
            parts.append(expand(data, header.encoding, self._layout.pieces(span.start, span.stop)))
            if index == 0 and not stays and after.samples != before.samples + sum(header.senders.values()):
                self._findings.add(f"{device} counts {after.samples} samples after {_name(key)}")
        if stays:
            kept = [before.vector, *([] if after.best is None else [after.best.vector])]
            if all(after.vector is not vector for vector in kept) or after.momentum is not before.momentum:
                self._findings.add(f"{device} changed a state that {_name(key)} was to leave as it is")
            return
        vector, momentum = step(active.plan.outer, before, np.concatenate(parts))
        if any(after.vector[start:stop].min() < 0 for start, stop in self._layout.variances):
            self._findings.add(f"{device} has a negative variance after {_name(key)}")
        close = NOISE * (1 + np.abs(vector).max())
        if after.round != before.round + 1 or np.abs(vector - after.vector.numpy()).max() > close:
            self._findings.add(f"{device} applied something else than the merged slices of {_name(key)}, once")
        elif (after.momentum is None) != (momentum is None) or (
            after.momentum is not None
            and momentum is not None
            and np.abs(momentum - after.momentum.numpy()).max() > NOISE * (1 + np.abs(momentum).max())
        ):
            self._findings.add(f"{device} has another outer momentum after {_name(key)}")


def _stays(plan: Plan, before: ReplicaState, after: ReplicaState) -> bool:
    """Whether a round only evaluates the state before it, or drops what was trained in it, as that state is kept or the
    model with which the run began."""
    drops = plan.consistency is not Consistency.AT_END or (before.continues and _is_best(after))
    return before.closing or (after.finished and drops)


def _is_best(state: ReplicaState) -> bool:
    return state.best is not None and state.vector is state.best.vector


def step(outer: Outer, before: ReplicaState, merged: Vector) -> tuple[Vector, Vector | None]:
    """The vector and the momentum after one outer step (Sutskever et al. 2013, in the form of PyTorch's SGD), which is
    of the parameters: statistics move by what was merged."""
    vector = before.vector.numpy().astype(np.float64)
    decay = outer.momentum_ppm / 1e6 if outer.kind is OuterKind.NESTEROV else 0.0
    momentum = merged if before.momentum is None else decay * before.momentum.numpy().astype(np.float64) + merged
    moves = outer.rate_ppm / 1e6 * (merged + decay * momentum)
    for start, stop in before.layout.statistics:
        moves[start:stop], momentum[start:stop] = merged[start:stop], 0.0
    return vector + moves, momentum if outer.kind is OuterKind.NESTEROV else None


def _round_of(key: SliceKey) -> Round:
    return Round(key.generation, key.plan_digest, key.round)


def _slice_of(key: Round, index: int) -> SliceKey:
    return SliceKey(generation=key.generation, plan_digest=key.plan_digest, round=key.number, index=index)


def _name(key: Round) -> str:
    return f"round {key.number} of generation {key.generation}"


class Ledger:
    """One life's deltas: made = merged + residual, whenever a round is completed or abandoned. Starts anew where the
    state was replaced, as nobody knows what became of the residual then. Statistics are not counted: what an owner did
    not take of them is out of date."""

    def __init__(self, findings: Findings, device: DeviceId, layout: Layout) -> None:
        self._counted = np.ones(layout.elements, dtype=bool)
        for start, stop in layout.statistics:
            self._counted[start:stop] = False
        self._findings = findings
        self._device = device
        self._made: Vector = np.zeros(())
        self._merged: Vector = np.zeros(())
        self._dropped = False
        """The residual, and nothing has become of the state since."""

    def completed(
        self, delta: Vector | None, merged: list[tuple[slice, Vector]], refused: list[slice], residual: Vector
    ) -> None:
        """A round is complete: what was trained in it, what of it owners took, what they refused, with all that was
        left, and what is left to send."""
        self._made = self._made + (np.zeros_like(residual) if delta is None else delta)
        self._merged = self._merged + np.zeros_like(residual)
        for span, vector in merged:
            self._merged[span] += vector
        for span in refused:
            self._merged[span] = self._made[span]
        self._check(residual)

    def abandoned(self, residual: Vector) -> None:
        """A round will never be complete; this is left to send."""
        if not residual.any() and self._missing(residual):
            self._dropped = True
        self._check(residual)

    def dropped(self) -> None:
        """Nothing is left to send."""
        self._dropped = True

    def state_replaced(self, residual: Vector) -> None:
        """By one that does not follow from it; this is left to send."""
        if residual.any() or not self._dropped:
            self._findings.add(f"{self._device} kept its residual, though its state was replaced by another device's")
        self._begin_anew()

    def resumed(self, residual: Vector) -> None:
        """This is left to send of a former life."""
        self._made, self._merged = residual, np.zeros(())

    def _begin_anew(self) -> None:
        self._made = self._merged = np.zeros(())
        self._dropped = False

    def _check(self, residual: Vector) -> None:
        if self._dropped:
            self._findings.add(f"{self._device} dropped its residual, but kept its state")
            self._begin_anew()
            return
        missing = self._missing(residual)
        if missing:
            self._findings.add(f"{self._device} lost or doubled {missing:.3g} of its deltas")

    def _missing(self, residual: Vector) -> float:
        """How far off the sum is; 0 if by no more than rounding."""
        missing = float(np.abs(self._made - self._merged - residual)[self._counted].max())
        return missing if missing > NOISE * (1 + np.abs(self._made).max() + np.abs(self._merged).max()) else 0.0
