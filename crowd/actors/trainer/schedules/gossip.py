"""Each trainer goes on from parameters of its own, which it may exchange with neighbours within a round; rounds carry
evaluations, and bring all together at the end, if at all. Pure."""

import torch

from crowd.actors.trainer.schedules.synchronous import SynchronousSchedule
from crowd.agreement.state import Active
from crowd.learning.ending import is_last
from crowd.learning.replica import ReplicaState
from crowd.planning.plan import Consistency, Encoding
from crowd.units import DeviceId


class GossipSchedule(SynchronousSchedule):
    def __init__(self, active: Active, me: DeviceId) -> None:
        super().__init__(active, me)
        # an exchange that was held up ends at the time at which a round without one would be
        self.exchanges = int(self._plan.mixing is not None)
        self.ends_apart = self._plan.consistency is Consistency.NONE

    def offset(self, residual: torch.Tensor) -> torch.Tensor | None:
        return residual

    def encoding(self, state: ReplicaState) -> Encoding:
        return super().encoding(state) if is_last(self._plan, state) else Encoding.NONE
