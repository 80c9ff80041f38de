"""What became of a device's contributions to a complete round: `fates_of`. Pure."""

from collections.abc import Iterable, Sequence

from crowd.learning.fate import Fate
from crowd.planning.plan import SliceOwner
from crowd.protocol.messages import MergedSlice
from crowd.units import DeviceId


def fates_of(
    sender: DeviceId, slices: Sequence[SliceOwner], merged: Iterable[MergedSlice]
) -> dict[tuple[int, int], Fate]:
    """What the owner of each slice, of which `merged` came, did with the sender's contribution; by `(start, stop)`."""
    return {(span.start, span.stop): _fate(sender, header) for span, header in zip(slices, merged, strict=True)}


def _fate(sender: DeviceId, header: MergedSlice) -> Fate:
    if sender in header.refused:
        return Fate.REFUSED
    return Fate.MERGED if sender in header.senders else Fate.MISSED
