"""The messages between a lab and the process of one of its devices, as lines of JSON: `WorkerOrder` and
`WorkerReport`."""

from typing import Any, cast

import attrs
from cattrs.preconf.json import make_converter
from cattrs.strategies import configure_tagged_union

from crowd.experiment.metering import Span
from crowd.experiment.plan_summary import PlanSummary


@attrs.frozen(kw_only=True)
class Measure:
    """Train the task on a throw-away network for about so long, and report how fast that was."""

    duration_s: float


@attrs.frozen(kw_only=True)
class MeasureEnvelopes:
    """Seal and open envelopes for about so long, and report how long one took."""

    duration_s: float


@attrs.frozen(kw_only=True)
class Go:
    """Take part in the run."""


WorkerOrder = Measure | MeasureEnvelopes | Go


@attrs.frozen(kw_only=True)
class Ready:
    """The process has all that it needs and waits for orders."""

    target_accuracy: float


@attrs.frozen(kw_only=True)
class Measured:
    """The answer to `Measure`."""

    speed_kflops: int


@attrs.frozen(kw_only=True)
class EnvelopesMeasured:
    """The answer to `MeasureEnvelopes`."""

    envelope_s: float


@attrs.frozen(kw_only=True)
class Told:
    """The node has published a speed."""

    speed_kflops: int


@attrs.frozen(kw_only=True)
class Working:
    """A plan with work is active."""

    plan: PlanSummary | None
    """The plan, if what trains here has plans."""


@attrs.frozen(kw_only=True)
class Advanced:
    """The node's progress."""

    round: int
    accuracy: float | None
    bytes_up: int
    bytes_down: int
    elapsed_s: float
    finished: bool
    digest: str | None
    samples_trained: int
    generations: int


@attrs.frozen(kw_only=True)
class Computed:
    """Pieces of training that have ended since the last such report, by the machine's monotonic clock."""

    spans: tuple[Span, ...]


@attrs.frozen(kw_only=True)
class Ended:
    """The run is over for everybody."""

    result: str
    """This device's `ResultMessage`, encoded, in hexadecimal."""


WorkerReport = Ready | Measured | EnvelopesMeasured | Told | Working | Advanced | Computed | Ended

_converter = make_converter()
for _union in (WorkerOrder, WorkerReport):
    configure_tagged_union(_union, _converter)


def order_to_line(order: WorkerOrder) -> str:
    """The order as one line of JSON."""
    return _converter.dumps(order, unstructure_as=WorkerOrder)


def order_from_line(line: str) -> WorkerOrder:
    """The order that `order_to_line` wrote in another process of this project."""
    return cast(WorkerOrder, _converter.loads(line, cast(Any, WorkerOrder)))


def news_to_line(news: WorkerReport) -> str:
    """The report as one line of JSON."""
    return _converter.dumps(news, unstructure_as=WorkerReport)


def news_from_line(line: str) -> WorkerReport:
    """The report that `news_to_line` wrote in another process of this project."""
    return cast(WorkerReport, _converter.loads(line, cast(Any, WorkerReport)))
