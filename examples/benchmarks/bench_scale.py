"""What many devices cost: the control plane, planning, and a whole simulated training.

    python examples/benchmarks/bench_scale.py [--devices 200] [--departures 10] [--cluster examples/clusters/NAME.toml]

1. An idle cluster of production nodes under virtual time for one simulated hour, in which devices fail one after the
   other and come back: wall time, and processor time of this process, which says more on a machine that has other work.
2. One plan of `crowd_learning` for 10 to 1,000 unequal devices, and how the time grows with their number.
3. Eight devices of a cluster file that train the task `digits` for 40 rounds, by `crowd sim`.
"""

import argparse
import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import attrs
import torch
from control_plane import LABELS, BenchCluster, SmallTask
from rich.console import Console
from rich.table import Table

from crowd import plugins
from crowd.planning.policy import decide
from crowd.planning.profile import Module, Prefer, Profile, Share, TaskFacts
from crowd.units import MEBIBYTE, Life, device_id
from devices.simulation.virtual_time import VirtualTimeLoop

HOUR_S = 3600.0
AWAY_S = 60.0
PLANNED = (10, 30, 100, 300, 1000)
RUN_S_MAX, PLAN_S_MAX, TRAINING_S_MAX = 120.0, 1.0, 60.0
MODULES = (
    Module("0", 208, 500_000, 25_088),
    Module("3", 3_216, 800_000, 12_544),
    Module("7", 50_240, 600_000, 256),
    Module("9", 650, 100_000, 40),
)
CLUSTER = Path(__file__).parents[1] / "clusters" / "all-pis.toml"


@attrs.frozen(kw_only=True)
class Took:
    """What was measured, and what is allowed."""

    what: str
    wall_s: float
    cpu_s: float | None
    limit_s: float | None
    growth: float | None = None
    """How many times the one before it, in processor time."""


def timed(what: str, work: Callable[[], object], *, limit_s: float | None) -> Took:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return Took(what=what, wall_s=time.perf_counter() - wall_s, cpu_s=time.process_time() - cpu_s, limit_s=limit_s)


async def live_an_hour(devices: int, departures: int) -> None:
    """Fails an `AssertionError` if at its end not all devices follow one plan."""
    cluster = BenchCluster(devices, members_min=devices + 1, task=SmallTask(samples=64, epochs_max=1))
    with cluster.listening():
        async with anyio.create_task_group() as tasks:
            for device in cluster.devices:
                tasks.start_soon(device.live)
            pause_s = HOUR_S / (departures + 1)
            for departure in range(departures):
                device = cluster.devices[departure * devices // departures]
                await anyio.sleep_until((departure + 1) * pause_s)
                device.fail()
                await anyio.sleep(AWAY_S)
                tasks.start_soon(device.live)
            await anyio.sleep_until(HOUR_S)
            latest = {note.device: note.fields for note in cluster.events if note.name == "plan_activated"}
            plans = {(fields["generation"], fields["plan"], len(fields["members"])) for fields in latest.values()}
            assert {members for _, _, members in plans} == {devices}, plans
            assert len(plans) == 1, plans
            tasks.cancel_scope.cancel()


def plan_for(devices: int) -> None:
    policies = {name: plugins.policies.load(name)() for name in plugins.policies.names()}
    decide(tuple(_profile(index) for index in range(devices)), policies)


def _profile(index: int) -> Profile:
    """Of an unequal device: its figures follow from its number."""
    drawn = hashlib.blake2b(index.to_bytes(4, "big"), digest_size=16).digest()
    return Profile(
        device=device_id(f"device-{index:04}"),
        life=Life(incarnation=1, boot=drawn),
        revision=0,
        run=1,
        started=True,
        members_min=1,
        policy="crowd_learning",
        policy_version=1,
        protocol_version=1,
        prefer=Prefer.TIME,
        seed=0,
        task=TaskFacts(
            fingerprint=b"task",
            state_elements=54_314,
            statistics=0,
            flops_per_sample=2_000_000,
            sample_bytes=785,
            batch_size=32,
            evaluation_samples=3000,
            epochs_max=60,
            modules=MODULES,
        ),
        speed_kflops=200_000 * (1 + drawn[0] % 30),
        memory_bytes=512 * MEBIBYTE,
        uplink_bytes_s=125_000 * (5 + drawn[1] % 100),
        downlink_bytes_s=125_000 * (5 + drawn[2] % 100),
        link_assumed=False,
        share=(Share.RAW, Share.RAW, Share.NEVER)[drawn[3] % 3],
        data_epoch=0,
        label_counts=tuple(50 + drawn[4 + label] for label in range(LABELS)),
    )


def train(cluster: Path) -> None:
    program = Path(sys.executable).with_name("crowd")
    options = ["--task", "digits", "--policy", "crowd_learning", "--seed", "0", "--target", "1.0"]
    done = subprocess.run(
        [program, "sim", cluster, *options, "--rounds-max", "40"], stdout=subprocess.DEVNULL, check=False
    )
    assert done.returncode in (0, 1), f"crowd sim ended with {done.returncode}"


def planning() -> list[Took]:
    rows: list[Took] = []
    plan_for(PLANNED[0])  # warm up
    for devices in PLANNED:
        took = timed(f"a plan for {devices:,} devices", partial(plan_for, devices), limit_s=PLAN_S_MAX)
        before = rows[-1].cpu_s if rows else None
        rows.append(attrs.evolve(took, growth=None if not before else (took.cpu_s or 0.0) / before))
    return rows


def table(rows: list[Took]) -> Table:
    shown = Table(title="scale")
    for heading in ("what", "wall", "processor", "growth", "allowed", ""):
        shown.add_column(heading, justify="left" if heading in ("what", "") else "right")
    for row in rows:
        shown.add_row(
            row.what,
            f"{row.wall_s:.2f} s",
            "" if row.cpu_s is None else f"{row.cpu_s:.2f} s",
            "" if row.growth is None else f"x {row.growth:.1f}",
            "" if row.limit_s is None else f"{row.limit_s:g} s",
            "missed" if row.limit_s is not None and row.wall_s > row.limit_s else "",
        )
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description="What many devices cost.")
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--departures", type=int, default=10)
    parser.add_argument("--cluster", type=Path, default=CLUSTER)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as a simulation does: all devices share this machine
    rows = planning()
    training = timed("8 devices train digits for 40 rounds", lambda: train(arguments.cluster), limit_s=TRAINING_S_MAX)
    rows.append(attrs.evolve(training, cpu_s=None))  # another process's
    hour = timed(
        f"{arguments.devices} devices, an hour, {arguments.departures} departures",
        lambda: anyio.run(
            live_an_hour, arguments.devices, arguments.departures, backend_options={"loop_factory": VirtualTimeLoop}
        ),
        limit_s=RUN_S_MAX,
    )
    rows.append(hour)
    Console(width=120).print(table(rows))
    return 0 if all(row.limit_s is None or row.wall_s <= row.limit_s for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
