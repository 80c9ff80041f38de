"""Where a network's tensors are in the flat state vector, and which of them are parameters."""

import enum
import functools
import itertools
from collections.abc import Collection, Iterator

import attrs
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase


class Role(enum.Enum):
    """What a tensor of the state is."""

    PARAMETER = "parameter"
    STATISTIC = "statistic"
    """A floating-point buffer that training changes, such as a running mean."""
    VARIANCE = "variance"
    """A statistic that is never negative."""


@attrs.frozen
class Slot:
    """The place `[start, stop)` of one tensor, flattened, in the state vector."""

    name: str
    """Name of the tensor in the network, `module.path.tensor`."""
    role: Role
    start: int
    stop: int

    @property
    def module(self) -> str:
        """Path of the module that the tensor belongs to; empty for the network itself."""
        return self.name.rpartition(".")[0]


@attrs.frozen
class Pieces:
    """How the tensors lie in a part of the state vector. An encoding treats each tensor for itself."""

    parameters: tuple[int, ...]
    """Elements of each parameter, in order, that are in the part."""
    statistics: tuple[tuple[int, int], ...] = ()
    """Elements `[start, stop)` of the part that are statistics, in order; neighbours are one."""

    @property
    def statistics_elements(self) -> int:
        """How many elements of the part are statistics."""
        return sum(stop - start for start, stop in self.statistics)

    @property
    def elements(self) -> int:
        """Length of the part."""
        return sum(self.parameters) + self.statistics_elements


@attrs.frozen(kw_only=True)
class Layout:
    """The tensors of the state vector, module by module in the network's order: of each module its own parameters,
    then its statistics. Buffers that training does not change are constants, and no part of the state."""

    slots: tuple[Slot, ...]
    """All tensors, in order and without gaps."""
    counters: tuple[str, ...] = ()
    """Names of the integer buffers that training changes; they are not in the vector."""

    @classmethod
    def of(cls, model: torch.nn.Module, changed: Collection[str]) -> "Layout":
        """The layout of a network whose training changes the buffers called `changed`. Those of batch and instance
        normalisation need not be named. What several modules share has its place at the first of them."""
        slots: list[Slot] = []
        counters: list[str] = []
        shared: set[int] = set()
        for path, module in model.named_modules():
            prefix = f"{path}." if path else ""
            for name, tensor, role in _own_tensors(module, prefix, changed):
                if id(tensor) in shared:
                    continue
                shared.add(id(tensor))
                if role is None:
                    counters.append(name)
                    continue
                start = slots[-1].stop if slots else 0
                slots.append(Slot(name, role, start, start + tensor.numel()))
        return cls(slots=tuple(slots), counters=tuple(counters))

    @classmethod
    def plain(cls, elements: int) -> "Layout":
        """The layout of so many elements that are one parameter."""
        return cls(slots=(Slot("vector", Role.PARAMETER, 0, elements),))

    @functools.cached_property
    def elements(self) -> int:
        """Length of the vector."""
        return self.slots[-1].stop if self.slots else 0

    @functools.cached_property
    def modules(self) -> tuple[tuple[int, int], ...]:
        """Elements `[start, stop)` of each module that has some, in order."""
        return tuple((start, stop) for _, start, stop in self.named_modules)

    @functools.cached_property
    def named_modules(self) -> tuple[tuple[str, int, int], ...]:
        """Path in the network and elements `[start, stop)` of each module that has some, in order."""
        groups = [list(slots) for _, slots in itertools.groupby(self.slots, key=lambda slot: slot.module)]
        return tuple((group[0].module, group[0].start, group[-1].stop) for group in groups)

    @functools.cached_property
    def statistics(self) -> tuple[tuple[int, int], ...]:
        """Elements `[start, stop)` of the vector that are statistics; neighbours are one."""
        return self.pieces(0, self.elements).statistics

    @functools.cached_property
    def variances(self) -> tuple[tuple[int, int], ...]:
        """Elements `[start, stop)` of the vector that are never negative."""
        return tuple((slot.start, slot.stop) for slot in self.slots if slot.role is Role.VARIANCE)

    def pieces(self, start: int, stop: int) -> Pieces:
        """How the tensors lie in the elements `[start, stop)`."""
        parameters: list[int] = []
        statistics: list[tuple[int, int]] = []
        for slot in self.slots:
            first, last = max(slot.start, start), min(slot.stop, stop)
            if first >= last:
                continue
            if slot.role is Role.PARAMETER:
                parameters.append(last - first)
            elif statistics and statistics[-1][1] == first - start:
                statistics[-1] = (statistics[-1][0], last - start)
            else:
                statistics.append((first - start, last - start))
        return Pieces(tuple(parameters), tuple(statistics))

    def tensors(self, model: torch.nn.Module) -> list[Tensor]:
        """The network's own tensors, one for each slot."""
        named = dict(model.named_parameters()) | dict(model.named_buffers())
        return [named[slot.name] for slot in self.slots]

    def counting_tensors(self, model: torch.nn.Module) -> list[Tensor]:
        """The network's own integer buffers, one for each of `counters`."""
        named = dict(model.named_buffers()) if self.counters else {}
        return [named[name] for name in self.counters]


def _own_tensors(
    module: torch.nn.Module, prefix: str, changed: Collection[str]
) -> Iterator[tuple[str, Tensor, Role | None]]:
    """What a module itself holds and training may change: name, tensor, and role (`None`: it counts)."""
    for name, parameter in module.named_parameters(recurse=False):
        yield prefix + name, parameter, Role.PARAMETER
    normalises = isinstance(module, _NormBase)
    for name, buffer in module.named_buffers(recurse=False):
        if not (normalises or prefix + name in changed):
            continue
        if not buffer.is_floating_point():
            yield prefix + name, buffer, None
        elif normalises and name == "running_var":
            yield prefix + name, buffer, Role.VARIANCE
        else:
            yield prefix + name, buffer, Role.STATISTIC
