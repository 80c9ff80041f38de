"""Error feedback on one trainer (Seide et al. 2014; Karimireddy et al. 2019, algorithm 2): what an encoding lost,
and what an owner did not take, is added to the next round's delta.

A residual is committed slice by slice when a round completes, and only then; an abandoned round leaves no trace.
Statistics have none: what an owner did not take of them is out of date by the next round.
"""

from collections.abc import Mapping

import torch

from crowd.learning.encoding import with_feedback
from crowd.learning.fate import Fate
from crowd.learning.layout import Layout
from crowd.planning.plan import Encoding


class Feedback:
    """The residual of one device, as long as the flat state vector."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._residual = torch.zeros(layout.elements)
        self._sent: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def residual(self) -> torch.Tensor:
        """The residual (elements,) float32 after the last complete round; not to be written to."""
        return self._residual

    def contribute(self, delta: torch.Tensor, start: int, stop: int, encoding: Encoding) -> bytes:
        """Encode the slice `[start, stop)` of `delta` (elements,) together with what is left from earlier rounds."""
        residual = self._residual[start:stop]  # (stop - start,)
        data, left = with_feedback(delta[start:stop], residual, encoding, self._layout.pieces(start, stop))
        self._sent[start, stop] = (delta[start:stop] + residual, left)
        return data

    def commit(self, delta: torch.Tensor | None, fates: Mapping[tuple[int, int], Fate], *, apart: bool = False) -> None:
        """The round is complete. `fates` says of each slice what its owner did with this device's; `delta` is what was
        trained, sent or not (`None`: nothing). `apart`: this device goes on from parameters and statistics of its own,
        which the residual is."""
        residual = self._residual.clone()
        for (start, stop), fate in fates.items():
            if fate is Fate.REFUSED:
                residual[start:stop] = 0.0
            elif (start, stop) in self._sent:
                carried, left = self._sent[start, stop]
                residual[start:stop] = left if fate is Fate.MERGED else carried
            elif delta is not None:
                residual[start:stop] = delta[start:stop] + self._residual[start:stop]
        if not apart:
            for start, stop in self._layout.statistics:
                residual[start:stop] = 0.0
        self._residual = residual
        self._sent = {}

    def resume(self, residual: torch.Tensor) -> None:
        """Go on with a `residual` (elements,) float32 that was saved with the state from which this device goes on."""
        self._residual = residual
        self._sent = {}

    def abandon(self) -> None:
        """Forget what was sent in this round, as it will be redone."""
        self._sent = {}

    def drop(self) -> None:
        """Clear the residual, as another device's state has replaced this one: what became of the residual is not
        known, and it counts at most once, never twice."""
        self._residual = torch.zeros_like(self._residual)
        self._sent = {}
