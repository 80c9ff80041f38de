import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from crowd.errors import TrainingDiverged
from crowd.learning import replica
from crowd.learning.evaluation import NOTHING, Evaluation
from crowd.learning.lent_samples import LentSamples
from crowd.learning.pool import EpochSampler, TrainingPool
from crowd.learning.quality import evaluate
from crowd.learning.samples import SampleSet
from crowd.learning.shards import SampleStore
from crowd.learning.task import Task
from crowd.learning.work import LocalTrainer, StepConfig
from crowd.planning.plan import GROUP_BATCHES, Outer, Range
from tests.learning.nets import A, B, layout_of, linear, make_task, normalised, separable, train


def pool_of(samples: SampleSet) -> TrainingPool:
    """All of these samples, as a device's own."""
    store = SampleStore(samples)
    own = tuple(Range(label=label, start=0, stop=count) for label, count in enumerate(store.label_counts) if count)
    return TrainingPool(store, LentSamples(store), own, {})


def sampler_of(pool: TrainingPool) -> EpochSampler:
    return EpochSampler(len(pool), seed=0, generation=1)


def never() -> bool:
    return False


# --- local steps ------------------------------------------------------------------------------------------------------


def trainer_of(model: Callable[[], torch.nn.Module] = normalised, **changes: Any) -> tuple[LocalTrainer, Task]:
    torch.manual_seed(0)
    task = make_task(model=model, **changes)
    network = task.model()
    return LocalTrainer(task, network, layout_of(network)), task


def test_local_steps_are_those_of_a_plain_loop_over_the_same_batches() -> None:
    trainer, task = trainer_of()
    torch.manual_seed(0)
    plain = task.model()
    optimizer = task.optimizer(plain.parameters())
    pool = pool_of(separable(20))
    sampler = sampler_of(pool)
    losses = []
    plain.train()
    for inputs, labels in pool.deal(sampler, (7, 7, 6, 8)):  # the third ends the epoch, the fourth the quota
        optimizer.zero_grad()
        loss = task.loss(plain(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item() * len(labels))
    report = train(trainer, pool, sampler_of(pool), 28)
    assert (report.samples, report.steps, report.loss_sum) == (28, 4, sum(losses))
    assert all(
        torch.equal(one, other)
        for one, other in zip(trainer.model.state_dict().values(), plain.state_dict().values(), strict=True)
    )


def test_a_network_may_scale_its_batches_in_place_by_a_parameter() -> None:
    class Scaled(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(6, 3)
            self.scale = torch.nn.Parameter(torch.ones(6))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            inputs *= self.scale
            return super().forward(inputs)

    trainer, _ = trainer_of(Scaled)
    samples = separable(20)
    kept = samples.inputs.clone()
    pool = pool_of(samples)
    train(trainer, pool, sampler_of(pool), 20)
    assert not torch.equal(trainer.model.state_dict()["scale"], torch.ones(6))
    assert torch.equal(samples.inputs, kept)


def test_without_maths_samples_are_dealt_out_as_ever_and_nothing_is_trained_or_evaluated() -> None:
    trainer, task = trainer_of()
    idle = LocalTrainer(task, trainer.model, layout_of(trainer.model), executes=False)
    pool = pool_of(separable(20))
    sampler, expected = sampler_of(pool), sampler_of(pool)
    report = train(idle, pool, sampler, 28)
    assert (report.samples, report.steps, report.loss_sum) == (28, 4, 0.0)
    assert not idle.delta().any()
    assert idle.counters() == (0,)
    assert idle.evaluate(separable(50)) == NOTHING
    for size in (7, 7, 6, 8):
        expected.take(size)
    assert (sampler.take(8) == expected.take(8)).all()
    assert train(trainer, pool, sampler_of(pool), 28).samples == 28
    assert trainer.delta().any()


def test_a_trainer_counts_what_its_model_gets_right() -> None:
    trainer, _ = trainer_of()
    samples = separable(50)
    right = int((trainer.model.eval()(samples.inputs).argmax(dim=1) == samples.labels).sum())
    assert trainer.evaluate(samples) == Evaluation(sums=(right, 50), samples=50)
    assert trainer.evaluate(SampleSet(samples.inputs[:0], samples.labels[:0])) == NOTHING


def test_training_stops_between_two_steps_when_told_and_goes_on_in_the_same_epoch() -> None:
    trainer, _ = trainer_of()
    pool = pool_of(separable(40))
    sampler = sampler_of(pool)
    answers = iter([False, False, True])
    assert trainer.steps(pool, sampler, [8] * 5, lambda: next(answers)).steps == 2
    assert train(trainer, pool, sampler, 24).samples == 24
    assert (sampler.epoch, sampler.trained_in_epoch) == (0, 40)


@pytest.mark.parametrize("quota", [1, 9])
def test_a_batch_of_one_sample_does_not_break_batch_normalisation(quota: int) -> None:
    trainer, _ = trainer_of()
    pool = pool_of(separable(40))
    assert train(trainer, pool, sampler_of(pool), quota).samples == quota
    assert all(module.training for module in trainer.model.modules())
    assert trainer.counters() == (2 * (quota > 1),)


def test_a_loss_that_is_not_finite_ends_the_training_with_a_clear_line() -> None:
    trainer, _ = trainer_of(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e30))
    pool = pool_of(separable(40))
    with pytest.raises(TrainingDiverged, match="lower the learning rate"):
        train(trainer, pool, sampler_of(pool), 400)


def test_the_delta_is_what_training_changed_and_leads_from_the_start_to_the_end() -> None:
    trainer, _ = trainer_of()
    start = replica.initial(trainer.model, 1, layout_of(trainer.model))
    pool = pool_of(separable(40))
    train(trainer, pool, sampler_of(pool), 16)
    delta = trainer.delta()
    assert torch.allclose(start.vector + delta, replica.from_model(trainer.model, start.layout)[0])
    assert (
        start.digest
        == replica.ReplicaState(layout=start.layout, vector=start.vector, counters=start.counters, run=1).digest
    )
    trainer.load(start)
    assert not trainer.delta().any()


def test_a_round_that_is_redone_from_its_snapshots_gives_the_same_delta() -> None:
    trainer, _ = trainer_of()
    pool = pool_of(separable(40))
    sampler = sampler_of(pool)
    train(trainer, pool, sampler, 16)  # so that there is momentum to restore
    start, inner = replica.initial(trainer.model, 1, layout_of(trainer.model)), trainer.snapshot()
    trainer.load(start)
    deltas = []
    for _ in range(3):
        train(trainer, pool, copy.copy(sampler), 20)
        deltas.append((trainer.delta(), trainer.counters()))
        trainer.load(start)
        trainer.restore(inner)
    assert all(torch.equal(delta, deltas[0][0]) and counters == deltas[0][1] for delta, counters in deltas)


def test_a_proximal_step_is_a_step_of_the_loss_with_the_distance_from_the_start_added() -> None:
    trainer, task = trainer_of(model=lambda: torch.nn.Linear(6, 3))
    start = replica.initial(trainer.model, 1, layout_of(trainer.model))
    trainer.load(start, StepConfig(proximal=0.5))
    plain = task.model()
    replica.load(plain, start)
    optimizer = task.optimizer(plain.parameters())
    pool = pool_of(separable(40))
    sampler = sampler_of(pool)
    for inputs, labels in pool.deal(sampler, 3 * [8]):
        optimizer.zero_grad()
        here = torch.nn.utils.parameters_to_vector(plain.parameters())
        (task.loss(plain(inputs), labels) + 0.5 / 2 * (here - start.vector).square().sum()).backward()
        optimizer.step()
    train(trainer, pool, sampler_of(pool), 24)
    torch.testing.assert_close(trainer.parameters(), replica.from_model(plain, start.layout)[0])
    assert not torch.equal(trainer.parameters(), start.vector)


def test_importance_sampling_trains_half_of_what_it_looks_at_and_leaves_the_statistics_of_batches_alone() -> None:
    trainer, _ = trainer_of()
    trainer.load(
        replica.initial(trainer.model, 1, layout_of(trainer.model)),
        StepConfig(chance=np.random.default_rng(0)),
    )
    pool = pool_of(separable(40))
    sampler = sampler_of(pool)
    report = train(trainer, pool, sampler, 20, group=GROUP_BATCHES)
    assert (report.samples, report.steps, sampler.trained_in_epoch) == (20, 3, 40)
    assert trainer.counters() == (3,)


def test_class_weights_act_where_batches_are_drawn_by_importance() -> None:
    loss = torch.nn.CrossEntropyLoss(weight=torch.tensor([8.0, 1.0, 0.0]))
    trainer, _ = trainer_of(model=linear, loss=loss, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    start = replica.initial(trainer.model, 1, layout_of(trainer.model))
    pool = pool_of(separable(128))

    def after_a_step(batch_size: int, chance: np.random.Generator | None = None) -> torch.Tensor:
        trainer.load(start, StepConfig(chance=chance))
        trainer.steps(pool, sampler_of(pool), [batch_size], never)
        return trainer.delta()

    drawn = [after_a_step(64, np.random.default_rng(seed)) for seed in range(100)]
    expected = after_a_step(128)
    assert float((torch.stack(drawn).mean(dim=0) - expected).norm() / expected.norm()) < 0.05


def test_mixed_parameters_are_the_weighted_mean_with_the_rest_of_the_weight_for_the_own() -> None:
    trainer, _ = trainer_of()
    own = trainer.parameters()
    ones, twos = torch.ones_like(own), 2 * torch.ones_like(own)
    trainer.mix([(ones, 0.25), (twos, 0.5)])
    torch.testing.assert_close(trainer.parameters(), 0.25 * own + 0.25 * ones + 0.5 * twos)


def test_two_devices_that_merge_every_round_learn_and_stay_identical() -> None:
    torch.manual_seed(0)
    task = make_task()
    start = replica.initial(task.model(), 1, layout_of(task.model()))
    trainers = {device: LocalTrainer(task, task.model(), start.layout) for device in (A, B)}
    pools = {A: pool_of(separable(60, seed=2)), B: pool_of(separable(30, seed=3))}
    samplers = {device: sampler_of(pool) for device, pool in pools.items()}
    states = dict.fromkeys(trainers, start)
    for _ in range(12):
        deltas, counters = [], []
        for device, trainer in trainers.items():
            trainer.load(states[device])
            train(trainer, pools[device], samplers[device], len(pools[device]))
            deltas.append(trainer.delta() * (len(pools[device]) / 90))
            counters.append(trainer.counters())
        apply = partial(
            replica.apply,
            outer=Outer(),
            mean_delta=deltas[0] + deltas[1],
            samples=90,
            epochs_ppb=1_000_000,
            counters=tuple(map(max, *counters)),
            streak=0,
            finished=False,
        )
        states = {device: apply(state) for device, state in states.items()}
    assert states[A].digest == states[B].digest
    assert states[A].samples == 12 * 90
    model, unseen = task.model(), separable(200, seed=9)
    replica.load(model, states[A])
    assert evaluate(task.metric, model, unseen.inputs, unseen.labels).sums[0] > 170
