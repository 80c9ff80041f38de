"""Error feedback on one trainer (Seide et al. 2014; Karimireddy et al. 2019, algorithm 2): what an encoding lost,
and what an owner did not take, is added to the next round's delta.

A residual is committed slice by slice when a round completes, and only then; an abandoned round leaves no trace.
"""

import torch

from crowd.learning.encoding import with_feedback
from crowd.planning.plan import Encoding


class Feedback:
    """The residual of one device, as long as the flat state vector."""

    def __init__(self, elements: int) -> None:
        self._residual = torch.zeros(elements)
        self._sent: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def residual(self) -> torch.Tensor:
        """The residual (elements,) float32 after the last complete round; not to be written to."""
        return self._residual

    def contribute(self, delta: torch.Tensor, start: int, stop: int, encoding: Encoding) -> bytes:
        """Encode the slice `[start, stop)` of `delta` (elements,) together with what is left from earlier rounds."""
        residual = self._residual[start:stop]  # (stop - start,)
        data, left = with_feedback(delta[start:stop], residual, encoding)
        self._sent[start, stop] = (delta[start:stop] + residual, left)
        return data

    def commit(self, delta: torch.Tensor | None, taken: dict[tuple[int, int], bool]) -> None:
        """Update the residual after a complete round. `taken` says of each slice whether its owner merged this device's
        contribution; `delta` (elements,) is what was trained, sent or not (`None`: nothing)."""
        residual = self._residual.clone()
        for (start, stop), named in taken.items():
            if (start, stop) in self._sent:
                carried, left = self._sent[start, stop]
                residual[start:stop] = left if named else carried
            elif delta is not None:
                residual[start:stop] = delta[start:stop] + self._residual[start:stop]
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
