"""The merged slices that have come to one device in one generation: `MergedParts`. Pure."""

from crowd.actors.trainer.effects import MergedPart
from crowd.planning.plan import Plan, SliceOwner
from crowd.protocol.messages import KEPT_ROUNDS, MergedSlice
from crowd.units import DeviceId

ROUNDS_AHEAD_MAX = 4
"""Rounds before the latest it heard of whose merged slices a lagging device keeps."""


class MergedParts:
    """Merged slices of the round in hand, and of later ones as far as there is room."""

    def __init__(self, plan: Plan, me: DeviceId) -> None:
        self._slices = plan.slices
        self._me = me
        self._parts: dict[int, dict[int, MergedPart]] = {}

    def __len__(self) -> int:
        """Rounds of which something has come."""
        return len(self._parts)

    def take(self, header: MergedSlice, data: bytes) -> None:
        """Keep a slice, unless it is here already; make room for the latest rounds."""
        key = header.key
        self._parts.setdefault(key.round, {}).setdefault(key.index, MergedPart(header=header, data=data))
        for number in [number for number in self._parts if number < max(self._parts) - ROUNDS_AHEAD_MAX]:
            del self._parts[number]

    def drop(self, number: int, index: int) -> None:
        self._parts.get(number, {}).pop(index, None)

    def forget_before(self, number: int) -> None:
        self._parts = {known: parts for known, parts in self._parts.items() if known >= number}

    def complete(self, number: int) -> tuple[MergedPart, ...] | None:
        """All slices of round `number`, in the order of the plan's; `None`: some are missing."""
        parts = self._parts.get(number, {})
        if len(parts) < len(self._slices):
            return None
        return tuple(parts[index] for index in range(len(self._slices)))

    def missing(self, number: int) -> tuple[tuple[int, SliceOwner], ...]:
        """Slices of other owners that round `number` still lacks."""
        have = self._parts.get(number, {})
        spans = enumerate(self._slices)
        return tuple((index, span) for index, span in spans if index not in have and span.owner != self._me)

    def ahead(self, number: int) -> frozenset[DeviceId]:
        """Owners of which a slice of a later round than `number` is here."""
        later = (parts for known, parts in self._parts.items() if known > number)
        return frozenset(self._slices[index].owner for parts in later for index in parts)

    def is_left_behind(self, number: int) -> bool:
        """Whether others have merged rounds so far beyond `number` that owners no longer keep what is missing of it."""
        return bool(self.missing(number)) and max(self._parts, default=0) >= number + KEPT_ROUNDS
