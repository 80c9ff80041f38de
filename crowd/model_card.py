"""What is known of a trained network, as JSON beside its file: `ModelCard`. Read without torch."""

import datetime
import hashlib
import json
from pathlib import Path
from typing import NoReturn

import attrs

from crowd.config import validators
from crowd.config.node_file import MODEL_FILE
from crowd.config.toml import structure
from crowd.config.validators import Validator, must
from crowd.errors import BadConfig
from crowd.metric_facts import HIGHER, LOWER
from crowd.units import DIGEST_BYTES

CARD_FILE = Path(MODEL_FILE).with_suffix(".json").name
"""The card's file in the `state_dir`, written after that of the network."""


def _digest(size_bytes: int) -> Validator:
    def is_digest(text: str) -> bool:
        return len(text) == 2 * size_bytes and set(text) <= set("0123456789abcdef")

    return must(f"{2 * size_bytes} hexadecimal digits", is_digest)


def _is_time(text: str) -> bool:
    try:
        return datetime.datetime.fromisoformat(text).utcoffset() is not None
    except ValueError:
        return False


@attrs.frozen(kw_only=True)
class ModelCard:
    """What is known of a trained network: which run it is of, and how good it is. Raises `BadConfig` for a value out of
    range.

    Args:
        task: The task, as `node.toml` names it; of an application's own function the name that it gave the `Task`.
        cluster: Name of the cluster that trained it.
        run: Number of the run in its cluster, from 1 on.
        metric: Name of the task's metric.
        better: Which of two values of the metric is better: "higher" or "lower".
        value: Value of the metric of this very network; `None`: not known.
        target: The value that the run was to reach; `None`: the best that it could.
        reached: Whether the run met its target; without one, whether it came to its end.
        rounds: Rounds of the run.
        epochs: Epochs of the run; a part of one counts as such.
        samples_trained: Samples trained in the run over all devices, each as often as it was.
        digest: Digest of the state that this device kept of the run, 32 hexadecimal digits, as all commands print it.
        sha256: SHA-256 of `model.safetensors`, as `sha256sum` prints it; `None`: not written yet.
        when: When the run ended on this device: its local time, ISO 8601 with the offset from UTC.
        data: On whose data it was trained: by device, how many of its samples the run's last plan gave to a trainer;
            without those of which none were. `None`: not known, as this device came when the run was over.
        held: Samples that the members of that plan had, whether some device trained them or not; `None`: not known.
        crowd_version: Version of `crowd` on this device.
        torch_version: Version of torch on this device.
    """

    task: str = attrs.field(validator=validators.not_empty)
    cluster: str = attrs.field(validator=validators.identifier)
    run: int = attrs.field(validator=validators.at_least_one)
    metric: str = attrs.field(validator=validators.not_empty)
    better: str = attrs.field(validator=must(f"{HIGHER!r} or {LOWER!r}", lambda value: value in (HIGHER, LOWER)))
    value: float | None = attrs.field(validator=validators.finite)
    target: float | None = attrs.field(validator=validators.finite)
    reached: bool
    rounds: int = attrs.field(validator=validators.not_negative)
    epochs: float = attrs.field(validator=validators.not_negative)
    samples_trained: int = attrs.field(validator=validators.not_negative)
    digest: str = attrs.field(validator=_digest(DIGEST_BYTES))
    sha256: str | None = attrs.field(validator=_digest(hashlib.sha256().digest_size))
    when: str = attrs.field(validator=must("a time as '2026-11-30T22:06:14+01:00'", _is_time))
    data: dict[str, int] | None = attrs.field(
        validator=must("numbers of samples above 0", lambda data: all(count > 0 for count in data.values()))
    )
    held: int | None = attrs.field(validator=validators.not_negative)
    crowd_version: str = attrs.field(validator=validators.not_empty)
    torch_version: str = attrs.field(validator=validators.not_empty)

    @property
    def time(self) -> datetime.datetime:
        """When the run ended on that device, with its offset from UTC."""
        return datetime.datetime.fromisoformat(self.when)

    def of_file(self, data: bytes) -> "ModelCard":
        """The same, where `model.safetensors` has this content."""
        return attrs.evolve(self, sha256=hashlib.sha256(data).hexdigest())

    def to_bytes(self) -> bytes:
        """The card's file: a JSON object with the names of the fields."""
        return (json.dumps(attrs.asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> "ModelCard":
        """The card that `to_bytes` made, read from the file `path`. Raises `BadConfig`, in one line that names the
        file, for anything else."""
        try:
            read = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise BadConfig(f"{path}: no valid JSON: {error}") from error
        return structure(read, cls, path=path)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
