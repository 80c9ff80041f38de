"""Trainers do not wait for rounds: the owner completes them, and a trainer fetches the newest state whenever its last
contribution has arrived. Pure."""

from crowd.actors.trainer.schedules.schedule import Schedule
from crowd.agreement.state import Active
from crowd.planning.round_plan import RoundPlan
from crowd.protocol.messages import SliceKey
from crowd.units import DeviceId


class AsynchronousSchedule(Schedule):
    awaits_own_steps = False
    exchanges = 0
    detached = True
    begins_apart = False
    ends_apart = False

    def __init__(self, active: Active, me: DeviceId) -> None:
        super().__init__(active, me)
        self._on_their_way: set[SliceKey] = set()
        self._evaluated = 0
        """The last round for which local steps began here."""
        self._waiting: set[DeviceId] = set()

    @property
    def follows(self) -> bool:
        return any(span.owner == self._me for span in self._plan.slices)

    def awaited_from(self, *, closing: bool) -> frozenset[DeviceId] | None:
        if not closing:
            return None
        trainers = self._plan.trainers
        with_share = {trainer.device for trainer in trainers if trainer.evaluation[0] < trainer.evaluation[1]}
        return frozenset(with_share or {trainer.device for trainer in trainers})

    def is_due(self, round_plan: RoundPlan) -> bool:
        # an evaluation that was due in a round without this device is due now
        before, self._evaluated = self._evaluated, round_plan.number
        every = self._plan.evaluate_every
        return round_plan.closing or round_plan.number // every > before // every

    @property
    def is_free(self) -> bool:
        return not self._on_their_way

    def sent(self, keys: frozenset[SliceKey]) -> None:
        self._on_their_way = set(keys)

    def ended(self, key: SliceKey) -> None:
        self._on_their_way.discard(key)

    def keep_waiting(self, device: DeviceId) -> None:
        self._waiting.add(device)

    def waiting(self) -> tuple[DeviceId, ...]:
        waiting, self._waiting = self._waiting, set()
        return tuple(sorted(waiting))
