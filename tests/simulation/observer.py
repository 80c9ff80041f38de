"""Everything that is checked of a simulation, in one place: what the nodes tell goes to the check that it concerns."""

from typing import Any

import anyio

from crowd.actors.planner import PlanActivated
from crowd.actors.trainer.trainer import RoundDone
from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.state import Active, State
from crowd.agreement.view import View
from crowd.learning.replica import ReplicaState
from crowd.planning.plan import Plan
from crowd.protocol.codec import Opened
from crowd.protocol.messages import Contribution, MergedSlice
from crowd.units import Address, DeviceId, device_id
from tests.simulation.bounds import Bounds, Logs, Wire
from tests.simulation.checks import Agreement, Departures, Envelopes, Findings, Lessons
from tests.simulation.merging import Ledger, Merging, Round, Sent
from tests.simulation.scenario import Scenario


class Observer:
    """The checks of one simulation; the `Watcher` of its nodes."""

    def __init__(self, scenario: Scenario) -> None:
        self.findings = Findings()
        self.agreement = Agreement(self.findings)
        self.lessons = Lessons(self.findings, self.agreement)
        self.merging = Merging(self.findings)
        self.departures = Departures(self.findings)
        self.envelopes = Envelopes(self.findings)
        self.bounds = Bounds(self.findings)
        self.logs = Logs(self.findings)
        self.wire = Wire(self.findings, {device_id(part.name): part.share for part in scenario.devices})
        self.actors: dict[DeviceId, dict[type, Any]] = {device_id(part.name): {} for part in scenario.devices}
        """Of each device, the latest of each kind."""
        self.cut_s: dict[DeviceId, float] = {}
        """Since when who is cut off."""

    def process_began(self, device: DeviceId) -> None:
        self.lessons.process_began(device)
        self.envelopes.process_began(device)
        self.actors[device].clear()

    def observed(self, device: DeviceId, news: Any) -> None:
        """What a node tells its observers."""
        match news:
            case PlanActivated(active=active):
                self.agreement.began(device, active)
            case RoundDone(progress=progress):
                self.agreement.completed(device, progress)
            case _:
                pass

    def patrol(self) -> bool:
        """Look at what is kept; whether all is well so far."""
        for device, actors in self.actors.items():
            if actors:
                self.bounds.check(device, actors, len(self.actors))
        return not self.findings.texts

    def actor_began(self, device: DeviceId, actor: object) -> None:
        self.actors[device][type(actor).__mro__[1]] = actor

    def promised(self, device: DeviceId, ack: Ack, view: View) -> None:
        self.agreement.promised(device, ack, view, anyio.current_time())

    def accepted(self, device: DeviceId, active: Active, progress: StateProgress) -> None:
        self.agreement.accepted(device, active, progress)

    def probed(self, device: DeviceId, suspect: DeviceId) -> None:
        self.departures.probed(device, suspect, anyio.current_time())

    def buried(self, device: DeviceId, departed: DeviceId, reason: str, state: State) -> None:
        cut_s = self.cut_s.get(device)
        cut_for_s = 0.0 if cut_s is None else anyio.current_time() - cut_s
        self.departures.buried(device, departed, reason, state, cut_for_s)

    def let_in(self, device: DeviceId, address: Address, opened: Opened) -> None:
        self.envelopes.let_in(device, address, opened)

    def kept_residual(self, device: DeviceId) -> None:
        self.findings.add(f"{device} kept its residual, though its state was replaced by another device's")

    def order_drawn(self, device: DeviceId, generation: int) -> None:
        self.lessons.order_drawn(device, generation)

    def published(self, device: DeviceId, plan: Plan, header: MergedSlice, data: bytes) -> None:
        self.agreement.merged(device, header.key.generation, anyio.current_time())
        self.merging.published(device, plan, header, data)

    def travelled(self, device: DeviceId, header: Contribution, data: bytes) -> None:
        self.merging.travelled(device, header, data)

    def contributed(self, device: DeviceId, key: Round, index: int, sent: Sent) -> None:
        self.merging.contributed(device, key, index, sent)

    def named(self, device: DeviceId, key: Round, index: int) -> bool:
        return self.merging.named(device, key, index)

    def followed(self, device: DeviceId, active: Active, before: ReplicaState, after: ReplicaState) -> None:
        self.merging.followed(device, active, before, after)

    def ledger(self, device: DeviceId, elements: int) -> Ledger:
        return Ledger(self.findings, device, elements)
