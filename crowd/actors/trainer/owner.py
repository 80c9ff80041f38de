"""An owner's side of a round: its merged slice; and what every owner did with this device's contribution."""

from collections.abc import Iterable

import structlog
import torch

from crowd.learning.encoding import with_feedback
from crowd.learning.feedback import Fate
from crowd.learning.layout import Layout
from crowd.learning.merge import SliceMerge
from crowd.learning.outliers import Outliers
from crowd.planning.plan import Encoding, SliceOwner
from crowd.protocol.messages import MergedSlice, SliceKey
from crowd.units import DeviceId

log = structlog.get_logger()


class Owner:
    """Merges and encodes the slices that this device owns, and says whose contributions any owner refused."""

    def __init__(self, device: DeviceId, layout: Layout) -> None:
        self._me = device
        self._layout = layout
        self._outliers = Outliers()
        self._residuals: dict[int, torch.Tensor] = {}
        self._refusals: set[tuple[int, DeviceId]] = set()
        """Generation and sender of those that were said."""

    def plan_begun(self) -> None:
        """Forget what was not said of merged slices, as the slices are others now."""
        self._residuals = {}

    def merged_slice(
        self, key: SliceKey, span: SliceOwner, merge: SliceMerge, encoding: Encoding, evaluation: tuple[int, int] | None
    ) -> tuple[MergedSlice, bytes]:
        """The mean of what came for a slice but of what is out of all proportion, encoded with what earlier encodings
        lost. `evaluation` is what members made of the present state, if that is not only with the contributions:
        `(correct, evaluated)`.

        That needs no commit: what is published is applied, or its whole generation is abandoned.
        """
        residuals = self._residuals  # of this plan, should another begin meanwhile
        pieces = self._layout.pieces(span.start, span.stop)
        refused = self._outliers.among(merge.sizes(pieces))
        if not merge.can_do_without(refused):
            refused = frozenset()
        merged = merge.merged(without=refused)
        residual = residuals.get(key.index, torch.zeros(span.stop - span.start))
        data, residuals[key.index] = with_feedback(merged.mean, residual, encoding, pieces)
        correct, evaluated = evaluation or (merged.correct, merged.evaluated)
        header = MergedSlice(
            key=key,
            encoding=encoding,
            senders=merged.senders,
            refused=tuple(sorted(refused)),
            counters=merged.counters,
            correct=correct,
            evaluated=evaluated,
        )
        return header, data

    def completed(self, headers: Iterable[MergedSlice]) -> None:
        """The slices with these headers made a round. Says whose contributions were refused, once in a generation."""
        for header in headers:
            for sender in header.refused:
                if (header.key.generation, sender) not in self._refusals:
                    self._refusals.add((header.key.generation, sender))
                    log.warning(
                        "contribution_out_of_proportion",
                        sender="this device" if sender == self._me else sender,
                        round=header.key.round,
                        slice=header.key.index,
                        hint="over ten times as large as the others': look at its data and at its memory",
                    )


def fate_of(sender: DeviceId, header: MergedSlice) -> Fate:
    """What became of a trainer's contribution to this merged slice."""
    if sender in header.refused:
        return Fate.REFUSED
    return Fate.MERGED if sender in header.senders else Fate.MISSED
