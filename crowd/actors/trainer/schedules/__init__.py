"""How local steps and rounds go together: a class for each manner of training, and which one a plan asks for.

Layout:
    schedule.py      the port
    synchronous.py   all train for the same round
    asynchronous.py  trainers do not wait for rounds
    gossip.py        trainers go on from parameters of their own
"""

from crowd.actors.trainer.schedules.asynchronous import AsynchronousSchedule
from crowd.actors.trainer.schedules.gossip import GossipSchedule
from crowd.actors.trainer.schedules.schedule import Schedule
from crowd.actors.trainer.schedules.synchronous import SynchronousSchedule
from crowd.agreement.state import Active
from crowd.planning.plan import Consistency
from crowd.units import DeviceId

__all__ = ["Schedule", "schedule_of"]


def schedule_of(active: Active, me: DeviceId) -> Schedule:
    """The schedule that the plan asks for, for device `me`, from its beginning."""
    if active.plan.asynchronous:
        return AsynchronousSchedule(active, me)
    if active.plan.consistency is not Consistency.EVERY_ROUND:
        return GossipSchedule(active, me)
    return SynchronousSchedule(active, me)
