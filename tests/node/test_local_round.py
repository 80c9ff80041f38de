"""The local steps of one device, without the node around them."""

import anyio
import torch

from crowd.actors.trainer.local_round import LocalRound, RoundInputs
from crowd.learning import replica
from crowd.learning.lent_samples import LentSamples
from crowd.learning.pool import EpochSampler, TrainingPool
from crowd.learning.samples import empty
from crowd.learning.shards import SampleStore
from crowd.learning.work import LocalTrainer, StepConfig, prepare
from crowd.planning.plan import Sampling
from devices.emulated import VirtualCompute
from tests.learning.nets import dataset, make_task
from tests.learning.test_shards import FROM_B, LENDER, header, numbered, span
from tests.support.virtual import virtual_time


@virtual_time
async def test_no_sample_is_trained_before_the_last_one_has_come() -> None:
    own = numbered(0, 1, 1)
    store = SampleStore(own)
    lent = LentSamples(store)
    pool = TrainingPool(store, lent, (span(1, 0, 2),), {FROM_B: (span(0, 3, 5),)})
    task = make_task(model=lambda: torch.nn.Linear(1, 2), data=dataset(own), evaluation=None)
    model, work = task.model(), prepare(task)
    inputs = RoundInputs(
        local=LocalTrainer(task, model, work.layout),
        state=replica.initial(model, 1, work.layout),
        offset=None,
        step_config=StepConfig(),
        sampling=Sampling.UNIFORM,
        pool=pool,
        sampler=EpochSampler(len(pool), seed=0, generation=1),
        facts=work.facts,
        evaluation=empty(own.format),
        samples=6,
        batch_size=2,
        piece_steps=1,
    )
    pieces: list[int] = []

    async def timed(samples: int, flops: int, elapsed_us: int) -> None:
        pieces.append(samples)

    done = anyio.Event()
    steps = LocalRound(inputs=inputs, compute=VirtualCompute(1), number=1, timed=timed)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(steps.run, done.set)
        for ranges in ((), (span(0, 4, 5),)):
            if ranges:
                lent.add(header(ranges), LENDER.to_bytes(ranges))
            steps.samples_arrived()
            await anyio.sleep(60)
            assert (pieces, steps.ended.is_set()) == ([], False)
        last = (span(0, 3, 4),)
        lent.add(header(last), LENDER.to_bytes(last))
        steps.samples_arrived()
        await done.wait()
    assert pieces == [2, 2, 2]
    assert (inputs.sampler.epoch, inputs.sampler.trained_in_epoch) == (1, 2)
