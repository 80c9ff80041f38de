"""Everything that devices say to each other; `Message` is the tagged union that the codec reads and writes.

Layout: what is retained (`ProfileMessage`, `AckMessage`, `ResultMessage`), what keeps views equal (`Beat`, `Evictions`,
`ViewRequest`, `ViewReply`, `Probe`, `ProbeAnswer`), what moves bulk (`Offer`, `Want`, `Done` and the `Cargo` they
name) and what asks for it (`AskSamples`, `AskState`, `AskSlice`, `NoSlice`, `Revoke`).
"""

import attrs

from crowd.agreement.ack import Ack, StateProgress
from crowd.planning.plan import Encoding, Range
from crowd.planning.profile import Profile
from crowd.units import DeviceId, Life

PROTOCOL_VERSION = 1


# --- retained ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ProfileMessage:
    profile: Profile


@attrs.frozen(kw_only=True)
class AckMessage:
    ack: Ack


@attrs.frozen(kw_only=True)
class CurvePoint:
    """After one evaluated round, as one device saw it."""

    round: int
    elapsed_us: int
    correct: int
    evaluated: int
    bytes_up: int
    bytes_down: int


@attrs.frozen(kw_only=True)
class ResultMessage:
    """How a device's run ended. Times in microseconds since the run's first plan with work was activated here."""

    progress: StateProgress
    reached: bool
    elapsed_us: int
    busy_us: int
    bytes_up: int
    bytes_down: int
    samples_trained: int
    """By this device."""
    speed_kflops: int
    generations: int
    model_digest: bytes
    """Of the state that this device keeps: the run's, or one of its own where replicas never become equal."""
    curve: tuple[CurvePoint, ...]


# --- agreement --------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Beat:
    life: Life
    view_digest: bytes
    generation: int


@attrs.frozen(kw_only=True)
class Evictions:
    """Lives that are evicted, of devices that left or that others found silent."""

    lives: dict[DeviceId, Life]


@attrs.frozen(kw_only=True)
class Version:
    life: Life
    revision: int


@attrs.frozen(kw_only=True)
class ViewRequest:
    """«This is what I have; send what is newer.»"""

    versions: dict[DeviceId, Version]
    buried: dict[DeviceId, Life]


@attrs.frozen(kw_only=True)
class ViewReply:
    """Profiles as their devices signed them: whole envelopes, so that a relay cannot change them."""

    envelopes: tuple[bytes, ...]
    buried: dict[DeviceId, Life]


@attrs.frozen(kw_only=True)
class Probe:
    nonce: int


@attrs.frozen(kw_only=True)
class ProbeAnswer:
    nonce: int
    life: Life


# --- bulk -------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class SliceKey:
    """Names one slice of one round of one plan; anything under another key is discarded."""

    generation: int
    plan_digest: bytes
    round: int
    index: int


@attrs.frozen(kw_only=True)
class Contribution:
    """One trainer's encoded delta of one slice."""

    key: SliceKey
    form: Encoding
    samples: int
    """Trained in this round: the weight."""
    counters: tuple[int, ...] = ()
    """Integer buffers; only with slice 0."""
    correct: int = 0
    evaluated: int = 0
    """Evaluation of the state before this round, on the sender's share; only with slice 0."""


@attrs.frozen(kw_only=True)
class MergedSlice:
    """The weighted mean of the contributions named in `senders`, encoded; everybody applies these very bytes."""

    key: SliceKey
    form: Encoding
    senders: dict[DeviceId, int]
    """Who is in it, with how many samples."""
    counters: tuple[int, ...] = ()
    correct: int = 0
    evaluated: int = 0
    """Sums over the senders' evaluations of the state before this round; only in slice 0."""


@attrs.frozen(kw_only=True)
class Parameters:
    """One trainer's own parameters as they are before an exchange with its neighbours, encoded."""

    generation: int
    plan_digest: bytes
    round: int
    exchange: int
    """Counted from 0 in each round."""
    form: Encoding


@attrs.frozen(kw_only=True)
class Samples:
    """Some of a lender's samples: `inputs` and `labels` as raw tensors, one after the other."""

    lender: DeviceId
    life: Life
    data_epoch: int
    ranges: tuple[Range, ...]
    input_dtype: str
    input_shape: tuple[int, ...]
    """Of one sample."""
    label_dtype: str
    label_shape: tuple[int, ...]


@attrs.frozen(kw_only=True)
class State:
    """A whole replicated state, as safetensors."""

    progress: StateProgress
    generation: int = 0
    plan_digest: bytes = b""
    """The plan under which it was reached, or which starts from it; 0 and empty where that is not known."""


Cargo = Contribution | MergedSlice | Parameters | Samples | State


@attrs.frozen(kw_only=True)
class Offer:
    """The manifest of a transfer. Bytes that fit travel `inline`; else chunks of `chunk_bytes` follow as blobs."""

    transfer: str
    cargo: Cargo
    size_bytes: int
    chunk_bytes: int
    digests: tuple[bytes, ...]
    """BLAKE2b (16 bytes) of every chunk; of the one inline chunk too."""
    inline: bytes = attrs.field(default=b"", repr=lambda data: f"<{len(data)} bytes>")


@attrs.frozen(kw_only=True)
class Want:
    """The receiver's credit: send these chunks `[start, stop)` now."""

    transfer: str
    chunks: tuple[tuple[int, int], ...]


@attrs.frozen(kw_only=True)
class Done:
    """The receiver has it all, or (`refused`) wants none of it; the sender may forget the transfer."""

    transfer: str
    refused: bool = False


@attrs.frozen(kw_only=True)
class AskSamples:
    """A borrower's request, under the plan that names it."""

    generation: int
    plan_digest: bytes
    data_epoch: int
    ranges: tuple[Range, ...]


@attrs.frozen(kw_only=True)
class AskState:
    digest: bytes


@attrs.frozen(kw_only=True)
class AskSlice:
    """«Its merged slice has not come; send it to me.»"""

    key: SliceKey


@attrs.frozen(kw_only=True)
class NoSlice:
    """The answer to `AskSlice` while contributions are missing: «I live, and wait for others.» Or «I have gone on, and
    no longer keep it», where the round is `over`."""

    key: SliceKey
    over: bool


@attrs.frozen(kw_only=True)
class Revoke:
    """Delete what you borrowed from the sender before your next step."""

    data_epoch: int


Message = (
    ProfileMessage
    | AckMessage
    | ResultMessage
    | Beat
    | Evictions
    | ViewRequest
    | ViewReply
    | Probe
    | ProbeAnswer
    | Offer
    | Want
    | Done
    | AskSamples
    | AskState
    | AskSlice
    | NoSlice
    | Revoke
)
