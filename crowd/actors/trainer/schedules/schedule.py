"""How local steps and rounds go together under one plan: the port `Schedule`. Pure."""

import abc

from crowd.agreement.state import Active
from crowd.planning.round_plan import RoundPlan
from crowd.protocol.messages import SliceKey
from crowd.units import DeviceId


class Schedule(abc.ABC):
    """One device's schedule in one generation. `Rounds` asks it what the round being merged waits for, the trainer when
    and from where the next round is trained; nobody else looks at how the plan trains."""

    def __init__(self, active: Active, me: DeviceId) -> None:
        self._plan = active.plan
        self._me = me

    # --- the round being merged ---------------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def follows(self) -> bool:
        """Whether this device completes every round; else it gets a new state when it needs one."""

    @property
    @abc.abstractmethod
    def awaits_own_steps(self) -> bool:
        """Whether a trainer that has not trained its part of the round being merged may be what the others wait for."""

    @property
    @abc.abstractmethod
    def exchanges(self) -> int:
        """How many others a trainer may be waiting for in turn, beside the owners."""

    @abc.abstractmethod
    def awaited_from(self, *, closing: bool) -> frozenset[DeviceId] | None:
        """The trainers from which alone contributions to a round are awaited, and then from all of them, whatever the
        plan's quorum; `None`: as the plan says. `closing`: the round only evaluates the present state."""

    # --- the round being trained --------------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def detached(self) -> bool:
        """Whether local steps belong to no one round: some round merges what is sent, the steps in hand outlast rounds,
        and the next ones begin as soon as nothing of the last is on its way."""

    @property
    @abc.abstractmethod
    def ends_apart(self) -> bool:
        """Whether each trainer keeps parameters of its own at the end."""

    @property
    @abc.abstractmethod
    def begins_apart(self) -> bool:
        """Whether local steps begin away from the common state, by what is left of earlier deltas."""

    @abc.abstractmethod
    def is_due(self, round_plan: RoundPlan) -> bool:
        """Whether local steps for this round, which begin now, begin with an evaluation."""

    @property
    @abc.abstractmethod
    def is_free(self) -> bool:
        """Whether the next local steps need not wait for contributions that are on their way. Asked when a round
        begins, and where local steps are `detached` again when a contribution has ended; elsewhere it must be true."""

    @abc.abstractmethod
    def sent(self, keys: frozenset[SliceKey]) -> None:
        """Contributions under these keys are on their way to other devices."""

    @abc.abstractmethod
    def ended(self, key: SliceKey) -> None:
        """A contribution has arrived, or never will."""

    # --- whole states -------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def keep_waiting(self, device: DeviceId) -> None:
        """`device` gets the next state, not the present one."""

    @abc.abstractmethod
    def waiting(self) -> tuple[DeviceId, ...]:
        """Devices that were kept waiting for a state, each once, by ID."""
