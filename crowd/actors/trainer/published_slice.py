"""One slice that this device owns, as all get it round by round: `PublishedSlice`."""

import torch

from crowd.actors.trainer.effects import Merge
from crowd.learning.encoding import with_feedback
from crowd.learning.layout import Pieces
from crowd.learning.outliers import Outliers
from crowd.learning.quality import Quality
from crowd.planning.plan import Encoding
from crowd.protocol.messages import MergedSlice


class PublishedSlice:
    """Merges and encodes a slice under one plan, and keeps what the last encoding could not say."""

    def __init__(self, elements: int) -> None:
        self._elements = elements
        self._residual: torch.Tensor | None = None
        """What was lost so far, (elements,) float32; `None`: nothing was published yet."""

    def merged(
        self, due: Merge, pieces: Pieces, encoding: Encoding, outliers: Outliers, quality: Quality
    ) -> tuple[MergedSlice, bytes]:
        """The mean of what came but of what is out of all proportion, encoded with what earlier encodings lost.
        `pieces` says how the slice's tensors lie. The value of the present state by the task's `quality` is worked out
        here, and nowhere else.

        That needs no commit: what is published is applied, or its whole generation is abandoned.
        """
        merge = due.merge
        refused = outliers.among(merge.sizes(pieces))
        if not merge.can_do_without(refused):
            refused = frozenset()
        merged = merge.merged(without=refused)
        residual = torch.zeros(self._elements) if self._residual is None else self._residual
        data, self._residual = with_feedback(merged.mean, residual, encoding, pieces)
        told = merged.evaluation if due.evaluation is None else due.evaluation
        header = MergedSlice(
            key=due.key,
            encoding=encoding,
            senders=merged.senders,
            refused=tuple(sorted(refused)),
            counters=merged.counters,
            value=quality.value(told),
            evaluated=told.samples,
            loss=None if due.key.index else merged.loss,
            busy_us={} if due.key.index else merged.busy_us,
        )
        return header, data
