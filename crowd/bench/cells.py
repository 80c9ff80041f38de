"""The cells of the comparison: `Cell` (one training), `Provenance` (what decides its result, and so its key), and
`Entry` (its result) in a file of the cache."""

import enum
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs

from crowd import plugins
from crowd.bench.activity import Activity, activity
from crowd.bench.processor import processor
from crowd.bench.runs import is_run
from crowd.bench.source import data_beside, source_digest
from crowd.experiment.experiment import Experiment, ExperimentResult, backends, record
from crowd.whole_files import write_whole

WORLD = "simulation"


@attrs.frozen(kw_only=True, eq=False)
class Cell:
    """One training of the comparison."""

    file: Path
    """The cluster file."""
    experiment: Experiment
    """The experiment of the cell, without a limit of time."""
    key: str
    path: Path
    """Path of the cell's entry, which need not be there yet."""

    @classmethod
    def of(cls, file: Path, experiment: Experiment, *, cache: Path, spare: Path) -> "Cell":
        """Make the cell of `experiment`. A task of one's own may read data from anywhere: its entry goes into `spare`,
        where none is from before."""
        key = key_of(experiment)
        return cls(
            file=file, experiment=experiment, key=key, path=(spare if ":" in experiment.task else cache) / f"{key}.json"
        )

    @property
    def group(self) -> tuple[str, str, int]:
        """The task, cluster and seed that the cell has in common with those that it is compared with."""
        return self.experiment.task, self.experiment.cluster.name, self.experiment.seed

    @property
    def label(self) -> str:
        """The name of the cell for people."""
        experiment = self.experiment
        return f"{experiment.cluster.name}, {experiment.task}, {experiment.policy}, seed {experiment.seed}"


_text = attrs.validators.instance_of(str)


def _tuple(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(words)


@attrs.frozen(kw_only=True)
class Provenance:
    """All that decides the result of an experiment, but how much time it is given."""

    asked: str = attrs.field(validator=_text)
    """A digest of the experiment: of plain values and the names of the fields that they are in, wherever its classes
    are and whatever they are called."""
    source: str = attrs.field(validator=_text)
    """A digest of the engine, of the policy and of the task, and of the task's data where they come with it."""
    versions: Mapping[str, str] = attrs.field(validator=attrs.validators.deep_mapping(_text, _text))
    """Versions of what does the arithmetic and counts the bytes, by name."""
    processor: tuple[str, ...] = attrs.field(converter=_tuple, validator=attrs.validators.deep_iterable(_text))
    """Kind of the processor."""

    @property
    def key(self) -> str:
        """The name under which the result of the experiment is kept."""
        return _digest(attrs.asdict(self))

    def differs_in_source_alone(self, other: "Provenance") -> bool:
        """Whether the two differ in their source at most."""
        return attrs.evolve(self, source=other.source) == other


@attrs.frozen(kw_only=True)
class Entry:
    """The result of a cell."""

    run: dict[str, Any]
    """The run as JSON (docs/experiments.md); `stopped_after_s` is the limit of time that ended it, else `None`. With
    `diverged` it ends with the last round before the loss was no longer a number."""
    activity: Mapping[str, Activity]
    """Activity of each device, in the order of the cluster file."""
    provenance: Provenance

    @property
    def seconds_to_target(self) -> float | None:
        """Seconds of the cluster's clock to the target; `None` if the run did not reach it."""
        seconds: float | None = self.run["seconds_to_target"]
        return seconds

    def serves(self, limit_s: float | None) -> bool:
        """Whether a run that may take `limit_s` would tell no more: this one was not stopped, or not before that."""
        stopped_after_s: float | None = self.run["stopped_after_s"]
        return stopped_after_s is None or (limit_s is not None and limit_s <= stopped_after_s)

    def to_json(self) -> str:
        """The content of the entry's file."""
        return json.dumps(attrs.asdict(self), allow_nan=False)


def key_of(experiment: Experiment) -> str:
    """The name under which the result of `experiment` with the present code and processor is kept."""
    return provenance_of(experiment).key


def provenance_of(experiment: Experiment) -> Provenance:
    """The provenance of `experiment` with the present code and processor."""
    own_task = ":" in experiment.task
    task_module = experiment.task.partition(":")[0] if own_task else plugins.tasks.module_of(experiment.task)
    roots = (
        backends.module_of(WORLD),
        plugins.policies.module_of(experiment.policy),
        task_module,
    )
    return Provenance(
        asked=_digest(attrs.asdict(attrs.evolve(experiment, seconds_max=None), value_serializer=_plain)),
        source=source_digest(roots, data=() if own_task else data_beside(task_module)),
        versions={
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            **{name: version(name) for name in ("torch", "numpy", "anyio", "cbor2")},
        },
        processor=processor(),
    )


def _plain(_owner: object, _field: object, value: object) -> object:
    return value.value if isinstance(value, enum.Enum) else value


def _digest(values: object) -> str:
    return blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


def make_entry(experiment: Experiment, outcome: ExperimentResult) -> Entry:
    """The entry that keeps `outcome`."""
    run = record(experiment, outcome)
    limit_s = experiment.seconds_max
    stopped = limit_s is not None and not outcome.reached and run["seconds_total"] >= round(limit_s, 3)
    return Entry(
        run=run | {"stopped_after_s": limit_s if stopped else None},
        activity={
            name: activity(outcome.compute_traces[name], outcome.transfers.get(name), end_s=run["seconds_total"])
            for name in outcome.devices
        },
        provenance=provenance_of(experiment),
    )


def read_entry(path: Path) -> Entry | None:
    """The entry in the file `path`; `None` if there is none, or nothing that was one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        devices = {name: Activity(**lanes) for name, lanes in values["activity"].items()}
        run, provenance = values["run"], Provenance(**values["provenance"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return Entry(run=run, activity=devices, provenance=provenance) if is_run(run) else None


def write_entry(path: Path, entry: Entry) -> None:
    """Write `entry` to the file `path`: whoever reads finds the old content or all of the new. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, entry.to_json().encode(), draft=path.with_name(f".{path.name}.{os.getpid()}"))


def groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that are compared with each other, together; all in order of their first."""
    found: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.group, []).append(cell)
    return list(found.values())
