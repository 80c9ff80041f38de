"""Each trainer goes on from parameters of its own, which it may exchange with neighbours within a round; rounds carry
evaluations, and bring all together at the end, if at all. Pure."""

from crowd.actors.trainer.schedules.synchronous import SynchronousSchedule
from crowd.agreement.state import Active
from crowd.planning.plan import Consistency
from crowd.units import DeviceId


class GossipSchedule(SynchronousSchedule):
    begins_apart = True

    def __init__(self, active: Active, me: DeviceId) -> None:
        super().__init__(active, me)
        # an exchange that was held up ends at the time at which a round without one would be
        self.exchanges = int(self._plan.mixing is not None)
        self.ends_apart = self._plan.consistency is Consistency.NONE
