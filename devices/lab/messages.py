"""The messages between a lab and the process of one of its devices: `WorkerOrder` and `WorkerReport`, and as lines
`ORDERS` and `REPORTS`."""

import attrs

from crowd.experiment.message_lines import MessageLines
from crowd.experiment.metering import Span
from crowd.experiment.plan_summary import PlanSummary
from crowd.run_record import RunGoal


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

    goal: RunGoal


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
    value: float | None
    loss: float | None
    bytes_up: int
    bytes_down: int
    elapsed_s: float
    finished: bool
    digest: str | None
    samples_trained: int
    generations: int
    hardly_trained: dict[str, tuple[int, str]] | None = None
    """What hardly was of what was planned to be trained, if what trains here has plans."""


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

ORDERS = MessageLines[WorkerOrder](WorkerOrder)
REPORTS = MessageLines[WorkerReport](WorkerReport)
