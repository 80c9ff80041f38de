"""A cluster file as real processes on this machine, each with its own network, processor time and memory.

Layout: `Core` (what a processor here can do), `Lab` (the backend), `slower_by` and `without_latency` (how a cluster is
made to fit). The run itself is `devices.lab.node_cluster`.
"""

import math
import os
import statistics
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import anyio
import attrs
import structlog

from crowd.errors import BadConfig
from crowd.experiment.experiment import Backend, Experiment, ExperimentResult, OnRound, ScaledExperiment
from crowd.experiment.node_files import write_files
from crowd.experiment.subprocesses import Subprocess
from crowd.units import MEBIBYTE
from devices.cluster.cluster_run import node_config
from devices.lab.cgroups import PERIOD_US_MAX, QUOTA_US_MIN
from devices.lab.cluster_run import LabRun
from devices.lab.messages import ORDERS, EnvelopesMeasured, Measure, Measured, MeasureEnvelopes, Ready
from devices.lab.node_cluster import LabCluster
from devices.lab.sandbox import check_machine, owner_name, remove_leftovers
from devices.lab.slowed_time import SlowedLoop
from devices.lab.worker_process import expect, start_worker, worker_command

CORES_SHARE = 0.6
"""Part of all processors' time that is for the devices; the broker, the lab and the kernel need some too. With eight
devices and 1.6 MB/s over the broker they took 0.02, 0.02 and 0.06 of a processor: the rest is for what a scheduler
cannot share out evenly among eight processes on two processors."""
BUSY_SHARE = 0.25
"""Part of all processors above whose load a machine has something else to do."""
CORE_SHARE_MAX = 0.6
"""Part of one processor's time that one device may have: it trains in one thread, which at 0.9 came to 0.5 to 0.6 of
what it should while the others trained too."""
CORE_SHARE_MIN = QUOTA_US_MIN / PERIOD_US_MAX
"""Smallest part of a processor's time that the kernel can give."""
MEASURE_S = 2.0
MEASURE_ENVELOPES_S = 0.5
ENVELOPE_S = 195e-6
"""Seconds that an envelope takes, sealed and opened, on a processor on which a node's work beside training takes what
the simulation states: see `docs/decisions/070-lab-measures-envelopes.md`."""

_log = structlog.get_logger(__name__)


@attrs.frozen(kw_only=True)
class Core:
    """The speed of one processor of this machine."""

    kflops: int
    """Speed at which the processor trains the task, in kFLOP/s."""
    envelope_s: float
    """Seconds in which the processor seals and opens an envelope."""

    @property
    def stated_kflops(self) -> int:
        """The `Experiment.core_kflops` of a simulation that is to be like this machine: of a processor that does a
        node's work beside training in the stated time, and both that and training as many times faster or slower than
        here."""
        return max(1, round(self.kflops * self.envelope_s / ENVELOPE_S))


class Lab(Backend):
    """A backend with a process for each device, in real time. Needs Linux and root; raises `BadConfig` without.

    If this machine cannot play the devices at full speed, all goes slower: processors, links and every clock, so that
    nodes and metrics know nothing of it. There is no latency: the lab has links of a rate only. Call it from the main
    thread. All that it has started and made goes with it, and if it was killed, with the next lab that starts on this
    machine. SIGTERM ends it as SIGINT does.
    """

    run_class: type[LabRun] = LabCluster
    """The kind of run: what the devices execute."""

    def __init__(self) -> None:
        self._cores: dict[str, Core] = {}
        """One unlimited processor of this machine, by task."""

    def scale(self, experiment: Experiment) -> ScaledExperiment:
        _check(experiment)
        remove_leftovers(check_machine())
        cores = len(os.sched_getaffinity(0))
        core = self._cores.get(experiment.task)
        if core is None:
            warn_if_busy(cores)
            self._cores[experiment.task] = core = anyio.run(measure, experiment, cores)
        slower = slower_by(
            [kind.speed_kflops for kind in experiment.kinds.values()], one_kflops=core.kflops, cores=cores
        )
        return ScaledExperiment(
            experiment=attrs.evolve(without_latency(experiment), core_kflops=core.stated_kflops), slower=slower
        )

    def run(self, experiment: Experiment, report: OnRound) -> ExperimentResult:
        scaled = self.scale(experiment)
        one_kflops = self._cores[experiment.task].kflops
        outcome = anyio.run(
            self.run_class.run,
            scaled,
            report,
            one_kflops,
            check_machine(),
            backend_options={"loop_factory": partial(SlowedLoop, scaled.slower)},
        )
        if outcome is None:
            raise KeyboardInterrupt
        return outcome


def _check(experiment: Experiment) -> None:
    for device in experiment.cluster.devices:
        if device.loss:
            raise BadConfig(f"device {device.name!r}: loss: the lab loses no packets; leave it out, or use 'crowd sim'")


def warn_if_busy(cores: int) -> None:
    """Log if other work is under way: the devices then get less than their share, and times say little."""
    load = os.getloadavg()[0]
    if load > BUSY_SHARE * cores:
        _log.warning("machine_is_busy", load=round(load, 1), processors=cores, so="times will be too long")


def slower_by(speeds_kflops: Iterable[int], *, one_kflops: int, cores: int) -> float:
    """The factor by which devices of these speeds must be slower, to be played on `cores` processors of which each
    trains at `one_kflops`: 1 or more, rounded up to three digits. Raises `BadConfig` if the slowest would get less time
    than the kernel can give."""
    shares = [speed_kflops / one_kflops for speed_kflops in speeds_kflops]
    needed = max(sum(shares) / (CORES_SHARE * cores), max(shares) / CORE_SHARE_MAX)
    slower = 1.0 if needed <= 1.0 else _up_to_three_digits(needed)
    if min(shares) / slower < CORE_SHARE_MIN:
        raise BadConfig(
            f"the slowest device would get {min(shares) / slower:.4%} of a processor, less than Linux can give "
            f"({CORE_SHARE_MIN:.1%}): leave out the fastest devices, or use 'crowd sim'"
        )
    return slower


def _up_to_three_digits(value: float) -> float:
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return round(math.ceil(value / step) * step, 6)


def without_latency(experiment: Experiment) -> Experiment:
    """`experiment` on links of a rate only."""
    kinds = {name: attrs.evolve(kind, latency_ms=0.0) for name, kind in experiment.kinds.items()}
    devices = tuple(attrs.evolve(device, latency_ms=0.0) for device in experiment.cluster.devices)
    return attrs.evolve(experiment, cluster=attrs.evolve(experiment.cluster, devices=devices), kinds=kinds)


async def measure(experiment: Experiment, cores: int) -> Core:
    """Measure how fast one processor here trains the very task, and handles envelopes, while all others do so too."""
    found: list[Core] = []

    async def measure(process: Subprocess) -> None:
        news = process.lines()
        await expect(Ready, process, news)
        await process.tell(ORDERS.to_line(Measure(duration_s=MEASURE_S)))
        trained = await expect(Measured, process, news)
        await process.tell(ORDERS.to_line(MeasureEnvelopes(duration_s=MEASURE_ENVELOPES_S)))
        talked = await expect(EnvelopesMeasured, process, news)
        found.append(Core(kflops=trained.speed_kflops, envelope_s=talked.envelope_s))

    async def play(file: Path) -> None:
        command = worker_command(file, memory_bytes=MEBIBYTE, slower=1.0, target=None)
        async with start_worker(command, name=experiment.task) as process:
            await measure(process)

    with tempfile.TemporaryDirectory(prefix=f"{owner_name(os.getpid())}-") as directory:
        config = node_config(experiment, 0, broker="mqtt://nowhere")
        files = write_files(Path(directory), [config])
        async with anyio.create_task_group() as tasks:
            for _ in range(cores):
                tasks.start_soon(play, files[config.name])
    return Core(
        kflops=sum(core.kflops for core in found) // cores,
        envelope_s=statistics.fmean(core.envelope_s for core in found),
    )
