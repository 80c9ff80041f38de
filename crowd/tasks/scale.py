"""The first layer of the built-in networks: samples travel small, as they were recorded, and are scaled here."""

import torch


class Scale(torch.nn.Module):
    """Cast samples of any shape and dtype to float32 and divide them by `divisor`. Holds neither parameters nor
    buffers."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return samples.to(torch.float32) / self.divisor

    def extra_repr(self) -> str:
        return f"divisor={self.divisor}"
