"""Parameters that a run begins with, trained elsewhere: `WarmStart`, from a safetensors file."""

from collections.abc import Collection, Mapping
from pathlib import Path

import attrs
import safetensors
import safetensors.torch
import structlog
import torch
from torch import Tensor

from crowd.errors import BadConfig
from crowd.learning.replica import named_tensors

NAMED_MAX = 5
"""Tensors that are named of those that do not fit."""

log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class WarmStart:
    """Tensors by their names in the network's `state_dict`, all of them with its shapes."""

    path: Path
    tensors: Mapping[str, Tensor] = attrs.field(repr=lambda tensors: str(len(tensors)))

    @torch.no_grad()
    def load_into(self, model: torch.nn.Module) -> None:
        """Copy them into `model`; what it has beside them stays as it is."""
        own = named_tensors(model)
        for name, tensor in self.tensors.items():
            own[name].copy_(tensor)


def read_warm_start(path: Path, model: torch.nn.Module) -> WarmStart:
    """The tensors of the safetensors file `path` that have the names and shapes of `model`'s `state_dict`. Which of
    them have not is logged: a new head for a trained backbone is drawn. Raises `BadConfig` if none fits, or the file
    cannot be read."""
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise BadConfig(f"{path}: no safetensors file that can be read: {error}") from error
    own = named_tensors(model)
    fitting = {name: tensor for name, tensor in tensors.items() if name in own and tensor.shape == own[name].shape}
    if not fitting:
        raise BadConfig(
            f"{path}: none of its tensors fits the task's network: it has {_named(tensors)}, the network {_named(own)}"
        )
    for name, tensor in fitting.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BadConfig(f"{path}: {name} is not finite")
    missing = sorted(own.keys() - tensors.keys())
    strange = sorted(tensors.keys() - own.keys())
    reshaped = sorted(name for name in tensors.keys() & own.keys() if name not in fitting)
    if missing or strange or reshaped:
        log.warning(
            "start_fits_in_part",
            file=str(path),
            taken=len(fitting),
            drawn=_named(missing + reshaped),
            of_another_shape=_named(reshaped),
            not_in_the_network=_named(strange),
        )
    return WarmStart(path=path, tensors=fitting)


def _named(names: Collection[str]) -> str:
    """Some of these names, for a line."""
    first = sorted(names)[:NAMED_MAX]
    more = [f"and {len(names) - len(first)} more"] if len(names) > len(first) else []
    return ", ".join([*first, *more]) or "nothing"
