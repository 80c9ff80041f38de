"""A description of a network or a loss in plain values: what of it two devices can compare, whatever their processors,
Python and directories.

Addresses do not count, and numbers that may come out of a computation count to four digits: the same computation may
differ in the last bit between two kinds of processor. The order of operations in a function is not described, only what
it names and the numbers in it.
"""

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch

from crowd.errors import BadConfig

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_PLAIN = (bool, int, float, str)
_SMALL = range(256)
"""Integers that some versions of Python keep among the constants of a function and others within its instructions."""
_DIGITS, _BITS = 4, 12
"""Digits of a number, and bits of a tensor's, that count."""
_ITEMS_MAX = 1_000_000
"""Items of the largest container or tensor that counts by its content, and not by its size alone."""


def network_description(model: torch.nn.Module) -> list[Any]:
    """The network as it is printed; of each module that is not torch's own its plain public attributes, and of each
    kind of these what its `forward` names, which no print need show; and the hooks of all. `model` must be new, as
    training may leave something in attributes."""
    own = [(name, module) for name, module in model.named_modules() if not _is_library(type(module).__module__)]
    attributes = [[name, *_attributes(module)] for name, module in own]
    forwards = {type(module).__qualname__: type(module).forward for _, module in own}
    named = [[name, described(forward)] for name, forward in sorted(forwards.items())]
    hooks = [[name, *_hooks(module)] for name, module in model.named_modules() if any(_hooks(module))]
    return [_printed(model), attributes, named, hooks]


def described(value: Any) -> Any:
    """Plain lists and strings for a function, a module, a tensor or a plain value, with all that it holds on to:
    settings, weights, enclosed variables, arguments given beforehand. Equal things have equal descriptions; of any
    other object within them only its class counts."""
    return _Describing().whole(value)


class _Describing:
    """One description; it goes into each function once, as functions may name each other."""

    def __init__(self, *, trained: bool = True) -> None:
        """`trained`: whether the values of parameters and of modules' tensors count, which devices draw apart."""
        self._entered: set[int] = set()
        self._trained = trained

    def whole(self, value: Any) -> Any:
        """Of a callable object its attributes too."""
        described = self.part(value)
        if described != _class_of(value) or not hasattr(value, "__dict__"):
            return described
        return [described, *self._items(vars(value)), self._function(type(value).__call__)]

    def part(self, value: Any) -> Any:
        match value:
            case None | bool() | int() | str() | bytes():
                return repr(value)
            case float():
                return _smooth(value)
            case Enum():
                return [_class_of(value), value.name]
            case np.generic():
                return self.part(value.item())
            case torch.dtype() | torch.device():
                return str(value)
            case torch.nn.Parameter() if not self._trained:
                return [list(value.shape), str(value.dtype)]
            case torch.Tensor() | np.ndarray():
                return _array(value)
            case torch.nn.Module():
                return self._module(value) if self._trained else _printed(value)
            case partial():
                return ["partial", self.part(value.func), self.part(list(value.args)), self.part(value.keywords)]
            case MethodType():
                return [self.whole(value.__self__), self._function(value.__func__)]
            case list() | tuple() | set() | frozenset() | dict() if len(value) > _ITEMS_MAX:
                return [type(value).__name__, len(value)]
            case list() | tuple():
                return [type(value).__name__, *(self.part(item) for item in value)]
            case set() | frozenset():
                return ["set", *sorted(repr(self.part(item)) for item in value)]
            case dict():
                return ["dict", *sorted([repr(self.part(key)), repr(self.part(value[key]))] for key in value)]
            case FunctionType():
                return self._function(value)
            case _:
                name = getattr(value, "__qualname__", None)
                return name if isinstance(name, str) else _class_of(value)

    def _module(self, module: torch.nn.Module) -> list[Any]:
        tensors = [*module.named_parameters(), *module.named_buffers()]
        forward = [] if _is_library(type(module).__module__) else [self._function(type(module).forward)]
        return [
            _printed(module),
            [[name, *self._items(vars(layer))] for name, layer in module.named_modules()],
            [[name, _array(tensor)] for name, tensor in tensors],
            *forward,
        ]

    def _items(self, attributes: Mapping[str, Any]) -> list[Any]:
        public = {name: value for name, value in attributes.items() if not name.startswith("_") and name != "training"}
        return [[name, self.part(public[name])] for name in sorted(public)]

    def _function(self, function: Any) -> list[Any]:
        name = getattr(function, "__qualname__", type(function).__qualname__)
        code = getattr(function, "__code__", None)
        if code is None or _is_library(function.__module__) or id(function) in self._entered:
            return [name]
        self._entered.add(id(function))
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        enclosed = {name: cell.cell_contents for name, cell in cells if cell != CellType()}
        names = sorted({name for part in _codes(code) for name in part.co_names})
        globals_ = {name: function.__globals__[name] for name in names if name in function.__globals__}
        given = [function.__defaults__, function.__kwdefaults__]
        return [
            name,
            names,
            _constants(code, function.__doc__),
            self.part(given),
            self.part(enclosed),
            [[name, self.part(value)] for name, value in globals_.items() if _counts(value, function.__module__)],
        ]


def _counts(value: Any, module: str) -> bool:
    """Whether a global variable of a function in `module` is a part of what it computes: values, tensors, modules, and
    functions of that very module."""
    if isinstance(value, FunctionType):
        return value.__module__ == module
    return isinstance(value, (*_PLAIN, list, tuple, dict, torch.Tensor, np.ndarray, partial, torch.nn.Module))


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and those of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _constants(code: CodeType, documentation: str | None) -> list[str]:
    """Numbers and words in a function, as a sorted set."""

    def in_place(constant: Any) -> Iterator[str]:
        match constant:
            case bool() | None:
                return
            case int() if constant in _SMALL:
                return
            case float():
                yield _smooth(constant)
            case int() | str() if constant != documentation:
                yield repr(constant)
            case tuple():
                yield repr(described(constant))
            case _:
                return

    return sorted({word for part in _codes(code) for constant in part.co_consts for word in in_place(constant)})


def _hooks(module: torch.nn.Module) -> list[list[str]]:
    """What is called before and after a module's passes, with the values that it encloses; of each kind in order."""
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return [[repr(_Describing(trained=False).whole(hook)) for hook in getattr(module, kind).values()] for kind in kinds]


def _attributes(module: torch.nn.Module) -> list[list[str]]:
    """The public attributes of a module that are plain values or functions, or tuples, lists and dicts of them."""

    def is_plain(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return all(is_plain(item) for item in value)
        if isinstance(value, dict):
            return all(is_plain(key) and is_plain(item) for key, item in value.items())
        return value is None or isinstance(value, (*_PLAIN, FunctionType, BuiltinFunctionType, partial, type))

    public = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
    plain = {name: value for name, value in sorted(public.items()) if is_plain(value)}
    return [[name, repr(_Describing(trained=False).whole(value))] for name, value in plain.items()]


def _array(value: Any) -> list[Any]:
    """Shape, dtype and digest of a tensor or an array; numbers to so many bits."""
    tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value)
    described, tensor = _form_and_numbers(tensor)
    if tensor.numel() > _ITEMS_MAX:
        return described
    if tensor.is_floating_point():
        fractions, exponents = np.frexp(tensor.double().numpy())
        numbers = np.ldexp(np.round(np.ldexp(fractions, _BITS)), exponents - _BITS) + 0.0  # there is one zero
    else:
        numbers = tensor.numpy()
    return [*described, _digest(numbers)]


def sketch(tensor: torch.Tensor) -> list[Any]:
    """What of a constant of the network two devices can compare, however many numbers it has: shape, dtype, how many of
    its numbers are not finite, and of the others their norm and their sum with signs drawn for the shape, divided by
    the norm. A difference in last bits hardly ever shows, another draw nearly always does. Whole numbers count
    exactly."""
    described, tensor = _form_and_numbers(tensor)
    if not tensor.is_floating_point():
        return [*described, _digest(tensor.numpy())]
    values = tensor.double().numpy().ravel()
    finite = np.where(np.isfinite(values), values, 0.0)
    signs = np.where(np.random.default_rng(len(values)).random(len(values)) < 0.5, -1.0, 1.0)
    norm = float(np.linalg.norm(finite))
    others = [int(np.isnan(values).sum()), int(np.isposinf(values).sum()), int(np.isneginf(values).sum())]
    return [*described, others, f"{norm:.3g}", f"{round(float(signs @ finite) / (norm or 1.0), 3) + 0.0:.3f}"]


def _form_and_numbers(tensor: torch.Tensor) -> tuple[list[Any], torch.Tensor]:
    """Shape and dtype, and the real numbers on the CPU."""
    form, tensor = [list(tensor.shape), str(tensor.dtype)], tensor.detach().cpu()
    return form, torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _digest(numbers: Any) -> str:
    return hashlib.blake2b(np.ascontiguousarray(numbers).data, digest_size=16).hexdigest()


def _smooth(value: float) -> str:
    return f"{value:.{_DIGITS}g}"


def _printed(module: torch.nn.Module) -> str:
    try:
        return _ADDRESS.sub("", repr(module))
    except Exception as error:  # whatever a user's network raises, it cannot be compared
        raise BadConfig(f"{type(module).__qualname__} cannot be printed: {error}") from error


def _class_of(value: Any) -> str:
    return type(value).__qualname__


def _is_library(module: str | None) -> bool:
    """Whether this is a module of torch, numpy or Python, whose insides differ between versions."""
    root = (module or "builtins").partition(".")[0]
    return root in {"torch", "numpy"} or root in sys.stdlib_module_names
