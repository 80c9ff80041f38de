"""The messages that devices send each other; `Message` is the tagged union that the codec reads and writes.

Layout: what is retained (`ProfileMessage`, `AckMessage`, `ResultMessage`), what keeps views equal (`Beat`, `Evictions`,
`Suspensions`, `ViewRequest`, `ViewReply`, `ProbeRequest`, `ProbeAnswer`), what moves bulk (`Offer`, `Want`, `Done` and
the `Cargo` they name) and what asks for it (`AskSamples`, `AskState`, `AskSlice`, `NoSlice`, `Revoke`).
"""

import attrs

from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.suspension import Suspension
from crowd.planning.plan import Encoding, Range
from crowd.planning.profile import Profile
from crowd.protocol.tagged import Tagged, ToDataMover, ToPlanner, ToTrainer
from crowd.units import DeviceId, Life

PROTOCOL_VERSION = 5
"""Version of the wire protocol; devices of different versions do not train together."""


# --- retained ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ProfileMessage(ToPlanner, tag="profile"):
    """The sender's newest profile; retained."""

    profile: Profile


@attrs.frozen(kw_only=True)
class AckMessage(ToPlanner, tag="ack"):
    """The sender's newest ack; retained."""

    ack: Ack


@attrs.frozen(kw_only=True)
class CurvePoint:
    """The measurements after one evaluated round, as one device saw it. Counts since the run's beginning, but for the
    evaluation."""

    round: int
    elapsed_us: int
    value: float | None
    """Value of the task's metric of the state before the round; `None` where there was none."""
    evaluated: int
    """Samples that it is of."""
    loss: float | None
    """Mean training loss in the round; `None` where nothing was trained."""
    bytes_up: int
    bytes_down: int


@attrs.frozen(kw_only=True)
class ResultMessage(ToPlanner, tag="result"):
    """The end of a device's run. Times in microseconds since the run's first plan with work was activated here."""

    progress: StateProgress
    reached: bool
    """Whether the run met its target; without one, whether it came to its end."""
    value: float | None
    """Value of the task's metric of the state that the run ended in; `None` where it is not known here."""
    elapsed_us: int
    busy_us: int
    bytes_up: int
    bytes_down: int
    samples_trained: int
    """Samples that this device trained, each as often as it did."""
    speed_kflops: int
    generations: int
    model_digest: bytes
    """Digest of the state that this device keeps: the run's, or one of its own where replicas never become equal."""
    curve: tuple[CurvePoint, ...]


# --- agreement --------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Beat(ToPlanner, tag="beat"):
    """The heartbeat: the sender lives, and this is its view and its generation."""

    life: Life
    view_digest: bytes
    generation: int


@attrs.frozen(kw_only=True)
class Evictions(ToPlanner, tag="evictions"):
    """Lives that are evicted, of devices that left or that others found silent."""

    lives: dict[DeviceId, Life]


@attrs.frozen(kw_only=True)
class Suspensions(ToPlanner, tag="suspensions"):
    """Devices whose work stands still, as the sender has found; or that the sender's own goes on again."""

    devices: dict[DeviceId, Suspension]


@attrs.frozen(kw_only=True)
class Version:
    """The version of a profile: the life it is of, and its number within that."""

    life: Life
    revision: int


@attrs.frozen(kw_only=True)
class ViewRequest(ToPlanner, tag="view?"):
    """A request for newer profiles: the versions that the sender has, for the receiver to send what is newer."""

    versions: dict[DeviceId, Version]
    tombstones: dict[DeviceId, Life]
    suspended: dict[DeviceId, Suspension]
    """The last suspension of each device, lifted or not."""


@attrs.frozen(kw_only=True)
class ViewReply(ToPlanner, tag="view"):
    """The answer to `ViewRequest`: profiles as their devices signed them, in whole envelopes that a relay cannot
    change."""

    envelopes: tuple[bytes, ...]
    tombstones: dict[DeviceId, Life]
    suspended: dict[DeviceId, Suspension]


@attrs.frozen(kw_only=True)
class ProbeRequest(ToPlanner, tag="probe?"):
    """A question whether the receiver lives."""

    nonce: int


@attrs.frozen(kw_only=True)
class ProbeAnswer(ToPlanner, tag="probe"):
    """The answer to the `ProbeRequest` with this `nonce`, by the receiver in its present life."""

    nonce: int
    life: Life


# --- bulk -------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class SliceKey:
    """The name of one slice of one round of one plan; anything under another key is discarded."""

    generation: int
    plan_digest: bytes
    round: int
    index: int
    """Index of the slice in `Plan.slices`."""


KEPT_ROUNDS = 2
"""Rounds whose slices an owner keeps; a device further behind fetches a whole state."""


@attrs.frozen(kw_only=True)
class Contribution(Tagged, tag="delta"):
    """One trainer's encoded delta of one slice."""

    key: SliceKey
    encoding: Encoding
    """Encoding of the delta."""
    samples: int
    """Samples that the sender trained in this round, the weight of its delta."""
    counters: tuple[int, ...] = ()
    """Integer buffers of the sender's model; only with slice 0."""
    sums: tuple[float, ...] = ()
    """Sums of the task's metric over the sender's share of the evaluation of the state before this round; only with
    slice 0, and empty where nothing was evaluated. A member that trains nothing sends its evaluation alone."""
    evaluated: int = 0
    """Samples of that share."""
    loss_sum: float = 0.0
    """Sum over the trained samples of the mean loss of the batch that each was in; only with slice 0."""
    busy_us: int = 0
    """Microseconds that the steps in which they were trained took; only with slice 0."""


@attrs.frozen(kw_only=True)
class MergedSlice(Tagged, tag="merged"):
    """The weighted mean of the contributions named in `senders`, encoded; everybody applies these very bytes."""

    key: SliceKey
    encoding: Encoding
    """Encoding of the mean."""
    senders: dict[DeviceId, int]
    """Samples of each merged trainer."""
    refused: tuple[DeviceId, ...] = ()
    """Trainers whose contributions were out of all proportion, by ID."""
    counters: tuple[int, ...] = ()
    value: float | None = None
    """Value of the task's metric of the state before this round, by all evaluations together; only in slice 0. `None`
    where nothing was evaluated, or the metric is undefined. Worked out here alone, so that all go by the same."""
    evaluated: int = 0
    """Samples on which the state before this round was evaluated, summed over the senders; only in slice 0. Without a
    common evaluation set the latest evaluations of all members, of this state or somewhat earlier ones."""
    loss: float | None = None
    """Mean training loss over the senders' samples; only in slice 0, `None` where nothing was trained."""
    busy_us: dict[DeviceId, int] = attrs.field(factory=dict)
    """Microseconds that the steps of each merged trainer took; only in slice 0."""


@attrs.frozen(kw_only=True)
class Parameters(Tagged, tag="parameters"):
    """One trainer's own parameters as they are before an exchange with its neighbours, encoded."""

    generation: int
    plan_digest: bytes
    round: int
    exchange: int
    """Number of the exchange, counted from 0 in each round."""
    encoding: Encoding
    """Encoding of the parameters."""


@attrs.frozen(kw_only=True)
class Samples(Tagged, tag="samples"):
    """Some of a lender's samples: `inputs` and `labels` as raw tensors, one after the other."""

    lender: DeviceId
    life: Life
    data_epoch: int
    ranges: tuple[Range, ...]
    input_dtype: str
    input_shape: tuple[int, ...]
    """Shape of the input of one sample."""
    label_dtype: str
    label_shape: tuple[int, ...]
    """Shape of the label of one sample."""


@attrs.frozen(kw_only=True)
class SampleNames(Tagged, tag="names"):
    """The keys of some of a lender's samples, by which a borrower finds those it has from earlier."""

    lender: DeviceId
    life: Life
    data_epoch: int
    ranges: tuple[Range, ...]


@attrs.frozen(kw_only=True)
class WholeState(Tagged, tag="state"):
    """A whole replicated state, as a safetensors file."""

    progress: StateProgress
    generation: int = 0
    plan_digest: bytes = b""
    """Digest of the plan of `generation`, under which the state was reached, or which starts from it; 0 and empty where
    that is not known."""


Cargo = Contribution | MergedSlice | Parameters | Samples | SampleNames | WholeState


@attrs.frozen(kw_only=True)
class Offer(ToDataMover, tag="offer"):
    """The manifest of a transfer. Bytes that fit travel `inline`; else chunks of `chunk_bytes` follow as blobs."""

    transfer: str
    cargo: Cargo
    size_bytes: int
    chunk_bytes: int
    digests: tuple[bytes, ...]
    """BLAKE2b digests (16 bytes) of all chunks; of the one inline chunk too."""
    inline: bytes = attrs.field(default=b"", repr=lambda data: f"<{len(data)} bytes>")


@attrs.frozen(kw_only=True)
class Want(ToDataMover, tag="want"):
    """The receiver's credit: a request to send these chunks `[start, stop)` now."""

    transfer: str
    chunks: tuple[tuple[int, int], ...]


@attrs.frozen(kw_only=True)
class Done(ToDataMover, tag="done"):
    """The receiver's end of a transfer: it has all bytes, or (`refused`) wants none of them. The sender may forget the
    transfer."""

    transfer: str
    refused: bool = False


@attrs.frozen(kw_only=True)
class AskSamples(ToTrainer, tag="samples?"):
    """A borrower's request for samples, or for their `names` alone, under the plan that assigns them."""

    generation: int
    plan_digest: bytes
    data_epoch: int
    ranges: tuple[Range, ...]
    names: bool


@attrs.frozen(kw_only=True)
class AskState(ToTrainer, tag="state?"):
    """A request for the whole state with this digest."""

    digest: bytes


@attrs.frozen(kw_only=True)
class AskSlice(ToDataMover, tag="slice?"):
    """A request to the owner of a slice for the merged slice, which has not come."""

    key: SliceKey


@attrs.frozen(kw_only=True)
class NoSlice(ToTrainer, tag="slice"):
    """The answer to `AskSlice` while contributions are missing: the owner lives, and waits for others. Where the round
    is `over`, the owner has gone on and no longer keeps the slice."""

    key: SliceKey
    over: bool


@attrs.frozen(kw_only=True)
class Revoke(ToTrainer, tag="revoke"):
    """An order to delete, before the next step, all samples that the sender has lent in this life or before."""

    data_epoch: int
    """The lender's data set that the order is about."""


ForPlanner = (
    ProfileMessage
    | AckMessage
    | ResultMessage
    | Beat
    | Evictions
    | Suspensions
    | ViewRequest
    | ViewReply
    | ProbeRequest
    | ProbeAnswer
)
ForDataMover = Offer | Want | Done | AskSlice
ForTrainer = AskSamples | AskState | NoSlice | Revoke
Message = ForPlanner | ForDataMover | ForTrainer
