"""Validators of attrs fields that people fill in: each raises a `BadConfig` that says what was expected; and `whole`, a
converter."""

import contextlib
import itertools
import math
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from crowd.errors import BadConfig
from crowd.units import is_identifier

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def must(expected: str, holds: Callable[[Any], bool]) -> Validator:
    """A validator that raises `BadConfig`, with what was `expected` of the field, unless the value `holds`. `None`,
    where a field allows it, is always right."""

    def validate(_: Any, field: "attrs.Attribute[Any]", value: Any) -> None:
        if value is not None and not holds(value):
            raise BadConfig(f"{field.name}: expected {expected}, found {value!r}")

    return validate


def whole(value: Any) -> Any:
    """`value` as an int, if it is a whole number of whatever type, else as it is: a validator may then refuse it."""
    with contextlib.suppress(TypeError):
        return operator.index(value)
    return int(float(value)) if isinstance(value, numbers.Real) and float(value).is_integer() else value


def increasing(values: Sequence[float]) -> bool:
    """Whether each value is greater than the one before."""
    return all(earlier < later for earlier, later in itertools.pairwise(values))


identifier = must("a-z, 0-9 and inner hyphens, at most 48 characters", is_identifier)
not_empty = must("some text", bool)
finite = must("a number", lambda value: math.isfinite(value))
positive = must("a number above 0", lambda value: 0 < value < math.inf)
not_negative = must("a number of at least 0", lambda value: 0 <= value < math.inf)
some_or_all = must("a number above 0 and at most 1", lambda value: 0 < value <= 1)
not_all = must("a number of at least 0 and below 1", lambda value: 0 <= value < 1)
at_least_one = must("at least 1", lambda value: isinstance(value, int) and value >= 1)
times_s = must(
    "seconds of at least 0, each later than the one before",
    lambda times: all(0 <= time < math.inf for time in times) and increasing(times),
)
