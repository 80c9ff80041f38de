"""One slice that this device owns, as all get it round by round: `PublishedSlice`."""

import torch

from crowd.learning.encoding import with_feedback
from crowd.learning.layout import Pieces
from crowd.learning.merge import SliceMerge
from crowd.learning.outliers import Outliers
from crowd.planning.plan import Encoding
from crowd.protocol.messages import MergedSlice, SliceKey


class PublishedSlice:
    """Merges and encodes a slice under one plan, and keeps what the last encoding could not say."""

    def __init__(self, elements: int) -> None:
        self._elements = elements
        self._residual: torch.Tensor | None = None
        """What was lost so far, (elements,) float32; `None`: nothing was published yet."""

    def merged(
        self,
        key: SliceKey,
        merge: SliceMerge,
        pieces: Pieces,
        encoding: Encoding,
        outliers: Outliers,
        evaluation: tuple[int, int] | None,
    ) -> tuple[MergedSlice, bytes]:
        """The mean of what came but of what is out of all proportion, encoded with what earlier encodings lost.
        `pieces` says how the slice's tensors lie. `evaluation` is what members made of the present state, if that is
        not only with the contributions: `(correct, evaluated)`.

        That needs no commit: what is published is applied, or its whole generation is abandoned.
        """
        refused = outliers.among(merge.sizes(pieces))
        if not merge.can_do_without(refused):
            refused = frozenset()
        merged = merge.merged(without=refused)
        residual = torch.zeros(self._elements) if self._residual is None else self._residual
        data, self._residual = with_feedback(merged.mean, residual, encoding, pieces)
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
