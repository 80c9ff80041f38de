"""The speed test: how fast this device trains the very task, by a few timed steps on a throw-away copy of the
network."""

import statistics
from functools import partial

import anyio

from crowd.learning.lent_samples import LentSamples
from crowd.learning.own_data import TRIAL_BATCHES
from crowd.learning.placement import Placement
from crowd.learning.pool import EpochSampler, TrainingPool
from crowd.learning.samples import repeated
from crowd.learning.shards import SampleStore
from crowd.learning.task import Task
from crowd.learning.trial import made
from crowd.learning.work import LocalTrainer, Work
from crowd.planning.plan import Range
from crowd.ports import Compute

WARM_UP_STEPS = 2
"""Steps before the first timed piece."""
STEPS = TRIAL_BATCHES
"""Steps of one timed piece."""
PIECES = 9
"""Largest number of timed pieces."""
LIMIT_S = 0.5
"""Seconds of timed pieces after which no more are begun, so that a slow device times fewer."""
CLOCK_S = 1e-9
"""Seconds of the finest step of a clock."""


async def measure_speed(task: Task, work: Work, compute: Compute) -> int:
    """Sustained training speed in kFLOP/s, over up to `PIECES` pieces of `STEPS` steps after a warm-up; the fastest and
    the slowest do not count. Trains a throw-away network on the samples that it was tried on."""
    facts = work.facts
    local, pool, sampler = await compute.run(partial(_throw_away, task, work, compute))

    async def piece_s(steps: int) -> float:
        batches = [facts.batch_size] * steps
        began = anyio.current_time()
        await compute.run(
            lambda: local.steps(pool, sampler, batches, lambda: False), flops=sum(batches) * facts.flops_per_sample
        )
        return anyio.current_time() - began

    await piece_s(WARM_UP_STEPS)
    pieces_s = [await piece_s(STEPS)]
    while len(pieces_s) < PIECES and sum(pieces_s) < LIMIT_S:
        pieces_s.append(await piece_s(STEPS))
    elapsed_s = statistics.fmean(sorted(pieces_s)[1:-1] or pieces_s)
    flops = STEPS * facts.batch_size * facts.flops_per_sample
    # rounded: the difference of two float times is slightly off
    return max(1, round(flops / max(elapsed_s, CLOCK_S) / 1000))


def _throw_away(task: Task, work: Work, compute: Compute) -> tuple[LocalTrainer, TrainingPool, EpochSampler]:
    count = work.facts.batch_size * STEPS
    store = SampleStore(repeated(work.own.present.trial, count))
    ranges = tuple(Range(label=label, start=0, stop=stop) for label, stop in enumerate(store.label_counts) if stop)
    pool = TrainingPool(store, LentSamples(store), ranges, {})
    placement, executes = Placement(compute.torch_device), compute.executes and not compute.is_virtual
    local = LocalTrainer(task, made(task), work.layout, placement=placement, executes=executes, measuring=True)
    return local, pool, EpochSampler(count, seed=0, generation=0)
