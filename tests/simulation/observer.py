"""Everything that is checked of a simulation, in one place: what the nodes tell goes to the check that it concerns.

Layout: `Observer` (the checks), `Watch` (the probe of one device, which tells them).
"""

import anyio
import numpy as np
import torch

from crowd.actors.probe import Probe
from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.state import Active, State
from crowd.learning.replica import ReplicaState
from crowd.planning.round_plan import RoundPlan
from crowd.protocol.codec import Opened
from crowd.protocol.messages import Cargo, Contribution, MergedSlice
from crowd.units import Address, DeviceId, Life, device_id
from tests.simulation.bounds import Bounds, Logs, Wire
from tests.simulation.checks import Agreement, Departures, Envelopes, Findings, Lessons
from tests.simulation.merging import Merging, Vector
from tests.simulation.savings import Savings
from tests.simulation.scenario import Scenario
from tests.simulation.work import layout


class Observer:
    """The checks of one simulation."""

    def __init__(self, scenario: Scenario) -> None:
        self.findings = Findings()
        self.agreement = Agreement(self.findings)
        self.lessons = Lessons(self.findings, self.agreement)
        self.merging = Merging(self.findings, layout(scenario.normalises))
        self.savings = Savings(self.findings)
        self.departures = Departures(self.findings)
        self.envelopes = Envelopes(self.findings)
        self.bounds = Bounds(self.findings, len(scenario.devices))
        self.logs = Logs(self.findings)
        self.wire = Wire(self.findings, {device_id(part.name): part.share for part in scenario.devices})
        self.cut_s: dict[DeviceId, float] = {}
        """Since when who is cut off."""

    def process_began(self, device: DeviceId) -> None:
        self.lessons.process_began(device)
        self.envelopes.process_began(device)


class Watch(Probe):
    """What happens on one device, in all its lives."""

    def __init__(self, observer: Observer, device: DeviceId) -> None:
        self._observer = observer
        self._device = device
        self._active: Active | None = None
        """The plan that its planner last began."""
        self.state: State | None = None
        """Of its agreement; `None` before that begins."""

    def life_began(self, life: Life) -> None:
        self._active = self.state = None
        self._observer.merging.life_began(self._device)
        self._observer.lessons.life_began(self._device, life)

    # --- the agreement ------------------------------------------------------------------------------------------------

    def agreement_moved(self, state: State) -> None:
        self.state = state

    def promised(self, ack: Ack) -> None:
        assert self.state is not None
        self._observer.agreement.promised(self._device, ack, self.state.view, anyio.current_time())
        self._observer.savings.promised(self._device, ack)

    def activated(self, active: Active) -> None:
        self._active = active
        self._observer.agreement.began(self._device, active)
        self._observer.savings.began(self._device, active)

    def accepted(self, progress: StateProgress) -> None:
        assert self._active is not None
        self._observer.agreement.accepted(self._device, self._active, progress)

    def probed(self, suspect: DeviceId) -> None:
        self._observer.departures.probed(self._device, suspect, anyio.current_time())

    def evicted(self, departed: DeviceId, reason: str) -> None:
        assert self.state is not None
        cut_s = self._observer.cut_s.get(self._device)
        cut_for_s = 0.0 if cut_s is None else anyio.current_time() - cut_s
        self._observer.departures.evicted(self._device, departed, reason, self.state, cut_for_s)

    def suspended(self, device: DeviceId) -> None:
        if not {self._device, device} & self._observer.cut_s.keys():  # else neither can know of the other
            self._observer.agreement.suspended(self._device, device)

    # --- messages and transfers ---------------------------------------------------------------------------------------

    def let_in(self, address: Address, opened: Opened) -> None:
        self._observer.envelopes.let_in(self._device, address, opened)

    def sent(self, destination: DeviceId | None, cargo: Cargo, data: bytes) -> None:
        match cargo:
            case Contribution():
                self._observer.merging.sent(self._device, cargo, data)
            case _:
                pass

    # --- training -----------------------------------------------------------------------------------------------------

    def order_drawn(self, generation: int) -> None:
        self._observer.lessons.order_drawn(self._device, generation)

    def contributed(self, header: Contribution, data: bytes) -> None:
        self._observer.merging.contributed(self._device, header, data)

    def merged(self, round_plan: RoundPlan, header: MergedSlice, data: bytes) -> None:
        self._observer.agreement.merged(self._device, header.key.generation, anyio.current_time())
        self._observer.merging.published(self._device, round_plan, header, data)

    def completed(
        self,
        active: Active,
        *,
        before: ReplicaState,
        after: ReplicaState,
        trained: torch.Tensor | None,
        residual: torch.Tensor,
    ) -> None:
        made = None if trained is None else _exact(trained)
        self._observer.merging.completed(self._device, active, before, after, made, _exact(residual))
        self._observer.agreement.completed(self._device, after.progress)
        if after.finished:
            self._observer.savings.ended(after.run)

    def round_abandoned(self, residual: torch.Tensor) -> None:
        self._observer.merging.round_abandoned(self._device, _exact(residual))

    def residual_dropped(self) -> None:
        self._observer.merging.residual_dropped(self._device)

    def state_replaced(self, state: ReplicaState, residual: torch.Tensor) -> None:
        self._observer.merging.state_replaced(self._device, state, _exact(residual))

    def saved(self, progress: StateProgress) -> None:
        self._observer.savings.saved(self._device, progress)

    def resumed(self, state: ReplicaState, residual: torch.Tensor) -> None:
        self._observer.merging.resumed(self._device, state, _exact(residual))


def _exact(tensor: torch.Tensor) -> Vector:
    """(elements,) float64."""
    return tensor.numpy().astype(np.float64)
