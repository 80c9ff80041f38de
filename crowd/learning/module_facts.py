"""What each module of a network takes, and how that becomes facts for planning: `ModuleCounter`, `module_facts`."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import attrs
import torch
from torch import Tensor

from crowd.learning.layout import Layout, Role
from crowd.planning.profile import MODULE_NAME_MAX, MODULES_MAX, Module
from crowd.units import ceil_div


class _Stretch(NamedTuple):
    """What was done from one module's beginning or end to the next one's."""

    within: tuple[str, ...]
    """The modules that were being computed, the innermost first."""
    flops: int
    """Forward and backward, the latter reckoned by the former."""


@attrs.frozen(kw_only=True)
class ModuleWork:
    """What a batch took in a network, module by module."""

    samples: int
    stretches: tuple[_Stretch, ...]
    """In order of time."""
    output_bytes: Counter[str]
    """Of all outputs of a module, by its path."""


class ModuleCounter:
    """Counts what the modules of `model` take while they compute in its context; `flops` says how many FLOPs have been
    made so far.

    Only forward passes are looked at: of each product backward makes one for the gradient of the weights, if there are
    any to train, and one for that of the inputs, if there is something to train before them.
    """

    def __init__(self, model: torch.nn.Module, flops: Callable[[], int]) -> None:
        self._model = model
        self._flops = flops
        self._counted = 0
        self._within: list[tuple[str, int]] = []
        """Modules that are being computed, the outermost first: path, and products backward for each forward."""
        self._stretches: list[_Stretch] = []
        self._output_bytes: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._handles = []
        for path, module in self._model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
                continue
            self._handles.append(
                module.register_forward_pre_hook(
                    lambda module, inputs, named, path=path: self._begin(path, module, (inputs, named)),
                    with_kwargs=True,
                )
            )
            self._handles.append(module.register_forward_hook(lambda _, __, outputs, path=path: self._end(outputs)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def work(self, samples: int) -> ModuleWork:
        """What so many samples took."""
        return ModuleWork(samples=samples, stretches=tuple(self._stretches), output_bytes=self._output_bytes)

    def _begin(self, path: str, module: torch.nn.Module, inputs: Any) -> None:
        self._note()
        trains = any(parameter.requires_grad for parameter in module.parameters())
        self._within.append((path, trains + any(tensor.requires_grad for tensor in _tensors(inputs))))

    def _end(self, outputs: Any) -> None:
        self._note()
        path, _ = self._within.pop()
        self._output_bytes[path] += sum(tensor.numel() * tensor.element_size() for tensor in _tensors(outputs))

    def _note(self) -> None:
        """Note what has been done since the last module began or ended."""
        before, self._counted = self._counted, self._flops()
        if self._within:
            _, backward = self._within[-1]
            paths = tuple(path for path, _ in reversed(self._within))
            self._stretches.append(_Stretch(paths, (self._counted - before) * (1 + backward)))


def module_facts(layout: Layout, work: ModuleWork, flops_per_sample: int) -> tuple[Module, ...]:
    """The modules of a state vector with this `layout`, by what a batch took.

    What is computed outside of them counts to the innermost one around it, else to the one that was computed before it.
    The FLOPs are divided as those of the batch, or where none was counted by parameters. If there are too many modules,
    neighbours count as one, which is called by the first of them.
    """
    names = [name for name, _, _ in layout.named_modules]
    flops = _flops_by_module(names, work.stretches)
    if not any(flops.values()):
        for slot in layout.slots:
            flops[slot.module] += slot.stop - slot.start if slot.role is Role.PARAMETER else 0
    shares = _divided(flops_per_sample, [flops[name] for name in names])
    modules = [
        Module(
            name=name[-MODULE_NAME_MAX:],
            elements=stop - start,
            flops=share,
            activation_bytes=ceil_div(work.output_bytes[name], work.samples),
        )
        for (name, start, stop), share in zip(layout.named_modules, shares, strict=True)
    ]
    size = ceil_div(len(modules), MODULES_MAX)
    return tuple(_as_one(modules[first : first + size]) for first in range(0, len(modules), size))


def _flops_by_module(names: Sequence[str], stretches: Iterable[_Stretch]) -> Counter[str]:
    known, flops, last = frozenset(names), Counter[str](), names[0]
    for stretch in stretches:
        last = next((path for path in stretch.within if path in known), last)
        flops[last] += stretch.flops
    return flops


def _divided(total: int, weights: Sequence[int]) -> Iterator[int]:
    """`total` in parts like the `weights`, of which some are not 0; the parts add up to it."""
    ends = [total * weight // sum(weights) for weight in itertools.accumulate(weights, initial=0)]
    return (after - before for before, after in itertools.pairwise(ends))


def _as_one(modules: Sequence[Module]) -> Module:
    return attrs.evolve(
        modules[-1],
        name=modules[0].name,
        elements=sum(module.elements for module in modules),
        flops=sum(module.flops for module in modules),
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in tuples, lists and dicts of whatever depth."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
