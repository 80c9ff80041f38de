"""All train for the same round, which everybody follows; the next begins when it is complete. Pure."""

from crowd.actors.trainer.schedules.schedule import Schedule
from crowd.planning.round_plan import RoundPlan
from crowd.protocol.messages import SliceKey
from crowd.units import DeviceId


class SynchronousSchedule(Schedule):
    follows = True
    awaits_own_steps = True
    exchanges = 0
    detached = False
    begins_apart = False
    ends_apart = False
    is_free = True

    def awaited_from(self, *, closing: bool) -> frozenset[DeviceId] | None:
        return None

    def is_due(self, round_plan: RoundPlan) -> bool:
        return round_plan.evaluated

    def sent(self, keys: frozenset[SliceKey]) -> None:
        """Nothing here depends on it."""

    def ended(self, key: SliceKey) -> None:
        """Nothing here depends on it."""

    def keep_waiting(self, device: DeviceId) -> None:
        raise AssertionError("whoever asks for a state gets it: there are no evaluators to wait for")

    def waiting(self) -> tuple[DeviceId, ...]:
        return ()
