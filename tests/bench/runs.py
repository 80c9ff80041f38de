"""Runs as `crowd bench` leaves them, made up."""

from pathlib import Path
from typing import Any

import attrs

from crowd.bench.activity import PARTS, Activity
from crowd.bench.cells import Cell, Entry, Provenance
from tests.devices.simulation.test_simulation import experiment

PROVENANCE = Provenance(asked="a1", source="b2", versions={"torch": "2"}, processor=("Z80", "DEFAULT"))


def run(policy: str, seconds: float, *, reached: bool = True, seed: int = 0, **values: Any) -> dict[str, Any]:
    """It sends a megabyte a second, unless `bytes_total` says otherwise."""
    size_bytes = values.get("bytes_total", round(1e6 * seconds))
    return {
        "policy": policy,
        "cluster": "home",
        "task": "digits",
        "seed": seed,
        "metric": "accuracy",
        "better": "higher",
        "target": 0.95,
        "reached": reached,
        "seconds_to_target": seconds if reached else None,
        "seconds_total": seconds,
        "bytes_to_target": size_bytes if reached else None,
        "bytes_total": size_bytes,
        "rounds": 2,
        "final_value": 0.96 if reached else 0.5,
        "curve": [[seconds / 2, 0.4, size_bytes // 2], [seconds, 0.96 if reached else 0.5, size_bytes]],
        "balance_efficiency": None,
        "stopped_after_s": None if reached else seconds,
    } | values


def cell(policy: str, *, file: Path = Path("home.toml"), seed: int = 0, path: Path | None = None) -> Cell:
    asked = attrs.evolve(experiment(policy=policy, rounds_max=None), seed=seed)
    return Cell(file=file, experiment=asked, key=f"{policy}-{seed}", path=path or Path("nowhere"))


def entry(of: dict[str, Any]) -> Entry:
    part = PARTS // 2
    lanes = Activity(compute=[100] * part + [0] * part, up=[0] * part + [50] * part, down=[0] * PARTS, off=[0] * PARTS)
    return Entry(run=of, activity={"fast": lanes, "slow": lanes}, provenance=PROVENANCE)
