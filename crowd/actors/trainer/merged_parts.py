"""The merged slices that have come to one device in one generation: `MergedParts`. Pure."""

from crowd.actors.trainer.effects import MergedPart
from crowd.planning.plan import SliceOwner
from crowd.protocol.messages import KEPT_ROUNDS, MergedSlice
from crowd.units import DeviceId

ROUNDS_AHEAD_MAX = 4
"""Rounds before the latest it heard of whose merged slices a lagging device keeps."""


class MergedParts:
    """Merged slices of the round in hand, and of later ones as far as there is room. Whose slices a later round has is
    not known before it begins, so that until then what anybody sends of it is kept."""

    def __init__(self, me: DeviceId) -> None:
        self._me = me
        self._slices: tuple[SliceOwner, ...] = ()
        """Of the round in hand."""
        self._parts: dict[int, dict[tuple[int, DeviceId], MergedPart]] = {}
        """By round, and by index and sender."""

    def __len__(self) -> int:
        """Rounds of which something has come."""
        return len(self._parts)

    def take(self, sender: DeviceId, header: MergedSlice, data: bytes) -> None:
        """Keep a slice, unless it is here already; make room for the latest rounds."""
        key = header.key
        part = MergedPart(header=header, data=data)
        self._parts.setdefault(key.round, {}).setdefault((key.index, sender), part)
        for number in [number for number in self._parts if number < max(self._parts) - ROUNDS_AHEAD_MAX]:
            del self._parts[number]

    def drop(self, number: int, index: int) -> None:
        parts = self._parts.get(number, {})
        for key in [key for key in parts if key[0] == index]:
            del parts[key]

    def begin(self, number: int, slices: tuple[SliceOwner, ...]) -> None:
        """Round `number`, which has these slices, is in hand from now on."""
        self._slices = slices
        self._parts = {known: parts for known, parts in self._parts.items() if known >= number}

    def complete(self, number: int) -> tuple[MergedPart, ...] | None:
        """All slices of round `number`, the one in hand, in their order and from their owners; `None`: some are
        missing."""
        parts = self._parts.get(number, {})
        found = [parts.get((index, span.owner)) for index, span in enumerate(self._slices)]
        there = [part for part in found if part is not None]
        return tuple(there) if there and len(there) == len(found) else None

    def missing(self, number: int) -> tuple[tuple[int, SliceOwner], ...]:
        """Slices of other owners that round `number`, the one in hand, still lacks."""
        have = self._parts.get(number, {})
        spans = enumerate(self._slices)
        return tuple(
            (index, span) for index, span in spans if (index, span.owner) not in have and span.owner != self._me
        )

    def ahead(self, number: int) -> frozenset[DeviceId]:
        """Devices of which a slice of a later round than `number` is here."""
        later = (parts for known, parts in self._parts.items() if known > number)
        return frozenset(sender for parts in later for _, sender in parts)

    def is_left_behind(self, number: int) -> bool:
        """Whether others have merged rounds so far beyond `number` that owners no longer keep what is missing of it."""
        return bool(self.missing(number)) and max(self._parts, default=0) >= number + KEPT_ROUNDS
