"""Where one device stands: the generation that is active on it, and the last round that is complete. Pure."""

from crowd.agreement.ack import StateProgress
from crowd.agreement.state import Active
from crowd.protocol.messages import SliceKey, WholeState
from crowd.units import DeviceId


class Course:
    """What belongs to the generation that is active on one device, and what to another."""

    def __init__(self, me: DeviceId) -> None:
        self._me = me
        self._active: Active | None = None
        self._progress = StateProgress()
        self._frozen = True
        self._fetching = False
        """Whether the start of the generation has not come yet."""

    @property
    def active(self) -> Active | None:
        return self._active

    @property
    def progress(self) -> StateProgress:
        return self._progress

    @property
    def in_hand(self) -> int:
        """The round that is being worked on, or that will be when the start has come."""
        if self._fetching and self._active is not None:
            return self._active.start.round + 1
        return self._progress.round + 1

    @property
    def frozen(self) -> bool:
        return self._frozen

    @property
    def lineage(self) -> tuple[int, bytes]:
        """Generation and digest of the plan to whose lineage the present state belongs; 0 and empty before its start
        has come."""
        if self._active is None or self._fetching:
            return 0, b""
        return self._active.generation, self._active.plan_digest

    def serves(self, arrived: WholeState, wanted: StateProgress) -> bool:
        """Whether `arrived` is the wanted state, or a later one of the plan that is active here: another plan's rounds,
        however many, belong to another lineage."""
        active, told = self._active, arrived.progress
        lineage = None if active is None else (active.generation, active.plan_digest)
        is_of_course = (arrived.generation, arrived.plan_digest) == lineage
        return told == wanted or (is_of_course and told >= max(wanted, self._progress))

    def reset(self, progress: StateProgress) -> None:
        """Begin with a state from outside any generation, and forget everything else."""
        self._active = None
        self._progress = progress
        self._frozen, self._fetching = True, False

    def is_ahead(self, generation: int) -> bool:
        """Whether this generation is not active here yet, so that its messages are kept and tried again then."""
        return self._active is None or generation > self._active.generation

    def is_mine(self, key: SliceKey) -> bool:
        """Whether this device merges that slice, about now."""
        active = self._active
        return (
            active is not None
            and key.generation == active.generation
            and key.plan_digest == active.plan_digest
            and 0 <= key.index < len(active.plan.slices)
            and active.plan.slices[key.index].owner == self._me
            and self.in_hand - 1 - active.plan.staleness_max <= key.round <= self.in_hand + 1
        )

    def _key(self, number: int, index: int) -> SliceKey:
        assert self._active is not None
        return SliceKey(
            generation=self._active.generation, plan_digest=self._active.plan_digest, round=number, index=index
        )

    def freeze(self) -> None:
        """Stop merging and completing rounds, as a plan of a later generation is acked."""
        self._frozen = True
