"""Where arithmetic runs: `Placement`, by which tensors go to the processor that trains, and come back.

Networks train on a torch device of any kind; whatever devices have in common (states, deltas, samples) is on the CPU.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Transfer = Callable[[Tensor, torch.device], Tensor]
"""A function that gives a tensor with the values of one on that device; the tensor itself if it is there."""

_HERE = torch.device("cpu")


def transferred(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; itself if it is there."""
    return tensor if tensor.device == device else tensor.to(device)  # asking is a tenth of what `to` costs


class Placement:
    """The torch device on which a network trains, and all that crosses to it and back.

    Args:
        device: Name of the torch device, as `cpu` or `cuda:0`.
        transfer: The way of every tensor from one device to the other.
    """

    def __init__(self, device: str = "cpu", *, transfer: Transfer = transferred) -> None:
        self._device = torch.device(device)
        self._transfer = transfer

    def place(self, model: torch.nn.Module) -> torch.nn.Module:
        """The network itself, with its parameters and buffers where it trains."""
        return model.to(self._device)

    def there(self, tensor: Tensor) -> Tensor:
        """`tensor` where the network trains; itself if it is there."""
        return self._transfer(tensor, self._device)

    def here(self, tensor: Tensor) -> Tensor:
        """`tensor` on the CPU; itself if it is there."""
        return self._transfer(tensor, _HERE)


CPU = Placement()
"""Networks train where all else is."""
