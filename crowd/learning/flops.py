"""How much arithmetic it is to train a network: `FlopCounter`."""

from types import TracebackType
from typing import Self

import structlog
import torch
from torch.utils.flop_counter import FlopCounterMode

FLOP_PER_ELEMENT = 6
"""Work that stands for what cannot be counted: of a dense layer each parameter is multiplied and added once forward and
twice backward."""

log = structlog.get_logger()


class FlopCounter:
    """Counts the matrix products and convolutions of all that is computed in its context, in FLOP."""

    def __init__(self) -> None:
        self._counter = FlopCounterMode(display=False)

    def __enter__(self) -> Self:
        # oneDNN computes a whole LSTM in one operation, of which the counter knows nothing; without it the LSTM is the
        # matrix products that it is elsewhere
        self._fused = bool(torch.backends.mkldnn.enabled)
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]  # a property of the module
        self._counter.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._counter.__exit__(kind, error, traceback)
        torch.backends.mkldnn.enabled = self._fused  # type: ignore[assignment]  # as above

    @property
    def total(self) -> int:
        """FLOP so far."""
        return int(self._counter.get_total_flops())

    def flops_per_sample(self, samples: int, model: torch.nn.Module) -> int:
        """FLOP for each of the `samples` that went through `model` in the context, at least 1. Where nothing could be
        counted, an estimate by the number of its parameters, with a warning: on a device all times are measured, and
        right, but simulations and plans made beforehand have nothing better."""
        counted = self.total // samples
        if counted:
            return counted
        assumed = FLOP_PER_ELEMENT * sum(parameter.numel() for parameter in model.parameters())
        log.warning("work_cannot_be_counted", network=type(model).__name__, assumed_flops_per_sample=assumed)
        return assumed
