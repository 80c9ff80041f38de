"""A trained network as a program of `torch.export`, which runs where the code that defines it is not: `as_program`."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any

import attrs
import torch
from torch import Tensor

from crowd.errors import BadConfig
from crowd.learning.replica import named_tensors
from crowd.learning.samples import materialise
from crowd.learning.task import Task
from crowd.user_code import blamed_on, place_and_cause

TRIED = 3
"""Samples on which a program is compared with its network; it was made with another number."""
RELATIVE_MAX, ABSOLUTE_MAX = 1e-4, 1e-5
"""How far the outputs may be apart, as other operations of torch may do the same sums."""


@attrs.frozen(kw_only=True)
class Program:
    """A program with one input (batch, *input_shape), and the network's output in evaluation mode."""

    data: bytes = attrs.field(repr=False)
    """The `.pt2` file, for `torch.export.load`. There is nothing in it of any sample, nor of the place of any code."""
    batch: int | None
    """The number of samples that it takes; `None`: any."""
    input_dtype: str
    """The one dtype that it takes, as "float32": that of the task's data, whatever else the network would convert."""
    input_shape: tuple[int, ...]
    """Shape of one sample."""


def few_inputs(task: Task) -> Tensor:
    """A few inputs (samples, *input_shape) of the task's data; of its evaluation set where this device has none. Raises
    `BadConfig`."""
    evaluation = None
    if task.evaluation is not None:
        evaluation = materialise(task.evaluation, "evaluation", count_max=TRIED)
    like = None if evaluation is None else evaluation.format
    own = materialise(task.data, "data", like=like, count_max=TRIED)
    return own.inputs if evaluation is None or len(own) else evaluation.inputs


@torch.no_grad()
def load_trained(model: torch.nn.Module, trained: Mapping[str, Tensor]) -> None:
    """Copy the tensors of a trained network's file into `model`. Raises `BadConfig` unless these are the names and
    shapes of its `state_dict`."""
    own = named_tensors(model)
    for name in sorted(own.keys() | trained.keys()):
        if name not in trained:
            raise BadConfig(f"the model has no {name}, which the network has")
        if name not in own:
            raise BadConfig(f"the model has {name}, which the network has not")
        if own[name].shape != trained[name].shape:
            shapes = f"{tuple(trained[name].shape)} in the model and {tuple(own[name].shape)} in the network"
            raise BadConfig(f"{name} is of shape {shapes}")
        own[name].copy_(trained[name])


def as_program(model: torch.nn.Module, inputs: Tensor) -> Program:
    """The program of `model` for such `inputs` (samples, *input_shape), one or more. It takes any number of samples if
    torch can leave that open, else one. Raises `BadConfig`, in one line, if torch cannot make one, or if its outputs
    are others than the network's."""
    model.eval()
    inputs = inputs[torch.arange(TRIED) % len(inputs)]
    batch: int | None = None
    with _quiet():
        try:
            data = _traced(model, inputs[:2], {0: torch.export.Dim("batch")})
        except Exception:  # whatever it is, it may be the open number that is in the way
            data, batch = _traced_or_refused(model, inputs[:1]), 1
        _check(model, data, inputs[:batch])
    dtype = str(inputs.dtype).removeprefix("torch.")
    return Program(data=data, batch=batch, input_dtype=dtype, input_shape=tuple(inputs.shape[1:]))


def _traced(model: torch.nn.Module, like: Tensor, dynamic: Mapping[int, Any] | None) -> bytes:
    """The file of the program for inputs `like` these, in which the dimensions that are `dynamic` are left open."""
    # the file keeps the inputs that it is made with: none of anybody's
    example = torch.zeros_like(like)
    program = torch.export.export(
        model, (example,), dynamic_shapes=None if dynamic is None else (dynamic,), strict=False
    )
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths and lines of this machine's files
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def _traced_or_refused(model: torch.nn.Module, like: Tensor) -> bytes:
    try:
        return _traced(model, like, None)
    except Exception as error:  # torch raises of every kind, and so do networks that it traces
        raise BadConfig(
            f"torch.export cannot make a program of the network: {place_and_cause(error, briefly=True)}; write its "
            "forward without that, or export the parameters alone, as .safetensors"
        ) from error


@torch.no_grad()
def _check(model: torch.nn.Module, data: bytes, inputs: Tensor) -> None:
    """Raise `BadConfig` unless the program in a file with this `data` does what the network does with these inputs."""
    loaded = torch.export.load(io.BytesIO(data)).module()
    outputs = []
    for each in (model, loaded):
        with torch.random.fork_rng(devices=[]), blamed_on("the network cannot take this device's samples"):
            torch.manual_seed(0)
            outputs.append(each(inputs.clone()))
    expected, found = outputs
    if not torch.allclose(found, expected, rtol=RELATIVE_MAX, atol=ABSOLUTE_MAX, equal_nan=True):
        apart = (found - expected).abs().max().item()
        raise BadConfig(
            f"the program that torch.export makes of the network computes something else, up to {apart:.2g} apart: "
            "look in its forward for what depends on earlier calls; or export the parameters alone, as .safetensors"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch warns of, logs and prints at length while it traces: what matters is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
