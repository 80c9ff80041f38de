"""How the checks get to see what happens inside of nodes: the production classes, each with a hook that only reports.

`watched` puts them in the places of the originals for as long as a simulation runs. `PROCESS` says whose code it is
that runs: nodes need not know that they are watched.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol
from unittest import mock

import attrs
import numpy as np
import torch

import crowd.actors.data_mover.intake
import crowd.actors.trainer.trainer
import crowd.node
from crowd.actors.data_mover.data_mover import DataMover
from crowd.actors.inbox import DataMoverMessage, SendCargo
from crowd.actors.planner import Planner
from crowd.actors.profiler import Profiler
from crowd.actors.trainer.trainer import Trainer
from crowd.agreement import events
from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.state import Active, State
from crowd.agreement.view import View
from crowd.learning.feedback import Feedback
from crowd.learning.pool import EpochSampler
from crowd.learning.replica import ReplicaState
from crowd.planning.plan import Encoding, Plan
from crowd.protocol.codec import Opened, Opener
from crowd.protocol.messages import Contribution, MergedSlice
from crowd.runtime import ActorRef
from crowd.units import Address, DeviceId
from devices.simulation.virtual_time import PROCESS
from tests.simulation.merging import Ledger, Round, Sent, Vector, expand


class Watcher(Protocol):
    """Who wants to know."""

    def actor_began(self, device: DeviceId, actor: object) -> None: ...
    def promised(self, device: DeviceId, ack: Ack, view: View) -> None: ...
    def accepted(self, device: DeviceId, active: Active, progress: StateProgress) -> None: ...
    def probed(self, device: DeviceId, suspect: DeviceId) -> None: ...
    def buried(self, device: DeviceId, departed: DeviceId, reason: str, state: State) -> None: ...
    def let_in(self, device: DeviceId, address: Address, opened: Opened) -> None: ...
    def order_drawn(self, device: DeviceId, generation: int) -> None: ...
    def published(self, device: DeviceId, plan: Plan, header: MergedSlice, data: bytes) -> None: ...
    def travelled(self, device: DeviceId, header: Contribution, data: bytes) -> None: ...
    def contributed(self, device: DeviceId, key: Round, index: int, sent: Sent) -> None: ...
    def named(self, device: DeviceId, key: Round, index: int) -> bool: ...
    def followed(self, device: DeviceId, active: Active, before: ReplicaState, after: ReplicaState) -> None: ...
    def kept_residual(self, device: DeviceId) -> None: ...
    def ledger(self, device: DeviceId, elements: int) -> Ledger: ...


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Every node that is made meanwhile reports to `watcher`."""

    class WatchedPlanner(Planner):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.following: Active | None = None
            """The state is ahead: one step may complete a round and begin the next plan."""
            watcher.actor_began(device(), self)

        async def _carry_out(self, effect: events.Effect) -> None:
            assert self._state is not None
            match effect:
                case events.PublishAck(ack=ack) | events.SendAck(ack=ack):
                    watcher.promised(device(), ack, self._state.view)
                case events.RoundAccepted(progress=progress):
                    assert self.following is not None
                    watcher.accepted(device(), self.following, progress)
                case events.Activate(active=active):
                    self.following = active
                case events.SendProbe(device=suspect):
                    watcher.probed(device(), suspect)
                case events.Evicted(device=departed, reason=reason):
                    watcher.buried(device(), departed, reason, self._state)
                case _:
                    pass
            await super()._carry_out(effect)

    class WatchedDataMover(DataMover):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            watcher.actor_began(device(), self)

    class WatchedProfiler(Profiler):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            watcher.actor_began(device(), self)

    class WatchedOpener(Opener):
        def open(self, address: Address, data: bytes) -> Opened:
            opened = super().open(address, data)
            watcher.let_in(device(), address, opened)
            return opened

    class WatchedSampler(EpochSampler):
        def __init__(self, count: int, *, seed: int, generation: int) -> None:
            super().__init__(count, seed=seed, generation=generation)
            watcher.order_drawn(device(), generation)

    class WatchedFeedback(Feedback):
        def __init__(self, elements: int) -> None:
            super().__init__(elements)
            self.ledger = watcher.ledger(device(), elements)
            self.contribution: Contributing | None = None
            """What is being encoded."""
            self.completing: Round | None = None
            self.state_replaced = False
            self.dropped = False
            self._said: dict[tuple[int, int], Vector] = {}

        def contribute(self, delta: torch.Tensor, start: int, stop: int, form: Encoding) -> bytes:
            data = super().contribute(delta, start, stop, form)
            self._said[start, stop] = expand(data, form, stop - start)
            assert self.contribution is not None
            of = self.contribution
            watcher.contributed(device(), of.key, of.indices[start, stop], Sent(of.samples, data))
            return data

        def commit(self, delta: torch.Tensor | None, taken: dict[tuple[int, int], bool]) -> None:
            super().commit(delta, taken)
            assert self.completing is not None
            merged = [
                (slice(*span), self._said[span])
                for index, span in enumerate(taken)
                if span in self._said and watcher.named(device(), self.completing, index)
            ]
            made = None if delta is None else delta.numpy().astype(np.float64)
            self.ledger.completed(made, merged, self.residual.numpy().astype(np.float64))
            self._said = {}

        def abandon(self) -> None:
            super().abandon()
            self._said = {}

        def drop(self) -> None:
            super().drop()
            self._said, self.dropped = {}, True
            self.ledger.dropped(state_replaced=self.state_replaced)

    class WatchedTrainer(Trainer):
        _feedback: WatchedFeedback

        def __init__(self, **arguments: Any) -> None:
            arguments["data_mover"] = HeardRef(arguments["data_mover"], self._handed_out)
            super().__init__(**arguments)
            watcher.actor_began(device(), self)

        def _handed_out(self, message: DataMoverMessage) -> None:
            match message:
                case SendCargo(cargo=Contribution() as header, data=data):
                    watcher.travelled(device(), header, data)
                case _:
                    pass

        async def _tell_merged(self, active: Active, header: MergedSlice, data: bytes) -> None:
            watcher.published(device(), active.plan, header, data)
            await super()._tell_merged(active, header, data)

        async def _contribute(self, generation: int, number: int) -> None:
            active, shift = self._rounds.active, self._local_round
            if active is not None and shift is not None:
                self._feedback.contribution = Contributing(
                    key=Round(active.generation, active.plan_digest, number),
                    samples=shift.samples,
                    indices={(span.start, span.stop): index for index, span in enumerate(active.plan.slices)},
                )
            await super()._contribute(generation, number)

        async def _begin_run(self, run: int) -> None:
            self._feedback.state_replaced = True
            await super()._begin_run(run)
            self._feedback.state_replaced = False

        async def _take_state(self, arrived: Any) -> None:
            before = self._state
            self._feedback.state_replaced, self._feedback.dropped = True, False
            await super()._take_state(arrived)
            self._feedback.state_replaced = False
            if self._state is not before and not self._feedback.dropped:
                watcher.kept_residual(device())

        async def _complete(self, progress: StateProgress) -> None:
            active, before = self._rounds.active, self._state
            if active is not None:
                self._feedback.completing = Round(active.generation, active.plan_digest, progress.round)
            await super()._complete(progress)
            after = self._state
            if active is not None and before is not None and after is not None and after is not before:
                watcher.followed(device(), active, before, after)

    with ExitStack() as stack:
        for module, name, replacement in (
            (crowd.node, "Planner", WatchedPlanner),
            (crowd.node, "DataMover", WatchedDataMover),
            (crowd.node, "Profiler", WatchedProfiler),
            (crowd.node, "Trainer", WatchedTrainer),
            (crowd.actors.data_mover.intake, "Opener", WatchedOpener),
            (crowd.actors.trainer.trainer, "EpochSampler", WatchedSampler),
            (crowd.actors.trainer.trainer, "Feedback", WatchedFeedback),
        ):
            stack.enter_context(mock.patch.object(module, name, replacement))
        yield


@attrs.frozen(kw_only=True)
class Contributing:
    """A contribution that is being encoded slice by slice."""

    key: Round
    samples: int
    indices: Mapping[tuple[int, int], int]
    """Of the slices, by their spans."""


class HeardRef:
    """A reference to an actor; `heard` is called with every message before it is told."""

    def __init__(self, ref: ActorRef[Any], heard: Callable[[Any], None]) -> None:
        self._ref = ref
        self._heard = heard

    async def tell(self, message: Any) -> None:
        self._heard(message)
        await self._ref.tell(message)


def device() -> DeviceId:
    """Whose code runs."""
    return DeviceId(PROCESS.get())
