from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from crowd.errors import BadConfig, TrainingDiverged
from crowd.learning import replica
from crowd.learning.evaluation import evaluate
from crowd.learning.pool import EpochSampler, TrainingPool
from crowd.learning.samples import SampleSet
from crowd.learning.shards import LentSamples, SampleStore
from crowd.learning.task import Task
from crowd.learning.work import LocalTrainer, StepConfig, Work, prepare, starting_model
from crowd.planning.plan import Outer, Range
from tests.learning.nets import A, B, dataset, layout_of, linear, make_task, normalised, separable


def prepared(**changes: Any) -> Work:
    return prepare(make_task(**changes), device=A, data_epoch=0)


def pool_of(samples: SampleSet) -> TrainingPool:
    """All of these samples, as a device's own."""
    store = SampleStore(samples, device=A, data_epoch=0)
    own = tuple(Range(label=label, start=0, stop=count) for label, count in enumerate(store.label_counts) if count)
    return TrainingPool(store, LentSamples(store), own, {})


def sampler_of(pool: TrainingPool) -> EpochSampler:
    return EpochSampler(len(pool), seed=0, generation=1)


def never() -> bool:
    return False


# --- preparing --------------------------------------------------------------------------------------------------------


def test_a_prepared_task_has_its_data_and_facts() -> None:
    work = prepared(model=linear)
    assert sum(work.store.label_counts) == 40
    assert len(work.evaluation) == 20
    assert work.facts.state_elements == 6 * 3 + 3
    assert work.facts.flops_per_sample == 2 * (2 * 6 * 3)  # forward, and the gradient of the weights
    assert work.facts.sample_bytes == 6 * 4 + 8
    assert (work.facts.batch_size, work.facts.evaluation_samples, work.facts.epochs_max) == (8, 20, 60)


def test_without_an_evaluation_set_a_tenth_is_held_out() -> None:
    work = prepared(evaluation=None)
    assert sum(work.store.label_counts) == 36
    assert len(work.evaluation) == 4
    assert work.facts.evaluation_samples == 0


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_the_facts_do_not_depend_on_a_devices_own_data(count: int) -> None:
    assert prepared(data=dataset(separable(count, seed=5))).facts == prepared().facts


def test_a_device_without_samples_needs_an_evaluation_set() -> None:
    with pytest.raises(BadConfig, match="a device without samples needs an evaluation set"):
        prepared(data=[], evaluation=None)
    with pytest.raises(BadConfig, match="evaluation is empty"):
        prepared(evaluation=[])
    assert prepared(data=[]).store.format == separable(1).format


def test_an_evaluation_set_without_a_length_is_refused() -> None:
    with pytest.raises(BadConfig, match="evaluation must be a map-style dataset"):
        prepared(evaluation=iter([]))


class Picky(torch.nn.Module):
    """Its parameter is what the test says."""

    def __init__(self, parameter: torch.nn.Parameter) -> None:
        super().__init__()
        self.weight = parameter

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.weight


def deep() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(9, 3)))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"model": deep},
            r"data of shape \(6,\) and torch.float32: layer 1.1 \(Linear\): RuntimeError: mat1",
        ),
        ({"model": torch.nn.ReLU}, "no parameters to train"),
        ({"model": lambda: linear().double()}, r"0.weight of the network is torch.float64 on cpu; expected float32"),
        ({"model": lambda: linear().half()}, "0.weight of the network is torch.float16"),
        ({"model": lambda: linear().to("meta")}, "0.weight of the network is torch.float32 on meta"),
        ({"model": lambda: torch.nn.LazyLinear(3)}, "weight of the network has no shape yet"),
        ({"model": lambda: Picky(torch.nn.Parameter(torch.zeros(6, 3, dtype=torch.complex64)))}, "complex64 on cpu"),
        ({"model": lambda: Picky(torch.nn.Parameter(torch.zeros(6, 2)))}, "loss cannot take outputs .*out of bounds"),
        (
            {"loss": torch.nn.functional.binary_cross_entropy_with_logits},
            r"loss cannot take outputs of shape \(8, 3\) and data labels",
        ),
        ({"evaluation": dataset(SampleSet(torch.zeros(2, 5), torch.zeros(2).long()))}, "but the evaluation set has"),
    ],
)
def test_a_task_that_does_not_fit_together_is_refused_in_one_line(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadConfig, match=complaint) as refused:
        prepared(**changes)
    assert "\n" not in str(refused.value)


def test_a_label_too_large_is_found_wherever_it_is_in_the_data() -> None:
    samples = separable(40)
    labels = samples.labels.clone()
    labels[33] = 3
    with pytest.raises(BadConfig, match="Target 3 is out of bounds"):
        prepared(data=dataset(SampleSet(samples.inputs, labels)))


def test_preparing_uses_up_a_network_and_no_random_numbers() -> None:
    made: list[torch.nn.Module] = []

    def model() -> torch.nn.Module:
        made.append(normalised())
        return made[-1]

    before = torch.random.get_rng_state()
    prepared(model=model)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [int(network.state_dict()["1.num_batches_tracked"]) > 0 for network in made] == [True, False]
    assert not made[1]._forward_pre_hooks


def test_a_run_begins_with_the_same_network_wherever_the_seed_is_the_same() -> None:
    task = make_task(model=linear)
    torch.manual_seed(1)
    layout = layout_of(task.model())
    before = torch.random.get_rng_state()
    one = starting_model(task, seed=7, run=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    vectors = {
        (seed, run): replica.initial(starting_model(task, seed=seed, run=run), run, layout).vector
        for seed, run in ((7, 2), (8, 2), (7, 3))
    }
    assert torch.equal(replica.initial(one, 2, layout).vector, vectors[7, 2])
    assert not torch.equal(vectors[7, 2], vectors[8, 2])
    assert not torch.equal(vectors[7, 2], vectors[7, 3])


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
    for size in (8, 8, 4, 8):  # the third ends the epoch, the fourth the quota
        inputs, labels = pool.batch(sampler.take(size))
        optimizer.zero_grad()
        loss = task.loss(plain(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    report = trainer.steps(pool, sampler_of(pool), 28, never)
    assert (report.samples, report.steps, report.loss_sum) == (28, 4, sum(losses))
    assert all(
        torch.equal(one, other)
        for one, other in zip(trainer.model.state_dict().values(), plain.state_dict().values(), strict=True)
    )


def test_without_maths_samples_are_dealt_out_as_ever_and_nothing_is_trained_or_evaluated() -> None:
    trainer, task = trainer_of()
    idle = LocalTrainer(task, trainer.model, layout_of(trainer.model), executes=False)
    pool = pool_of(separable(20))
    sampler, expected = sampler_of(pool), sampler_of(pool)
    report = idle.steps(pool, sampler, 28, never)
    assert (report.samples, report.steps, report.loss_sum) == (28, 4, 0.0)
    assert not idle.delta().any()
    assert idle.counters() == (0,)
    assert idle.evaluate(separable(50)) == (0, 0)
    for size in (8, 8, 4, 8):
        expected.take(size)
    assert (sampler.take(8) == expected.take(8)).all()
    assert trainer.steps(pool, sampler_of(pool), 28, never).samples == 28
    assert trainer.delta().any()


def test_a_trainer_counts_what_its_model_gets_right() -> None:
    trainer, _ = trainer_of()
    samples = separable(50)
    assert trainer.evaluate(samples) == (evaluate(trainer.model, samples.inputs, samples.labels), 50)
    assert trainer.evaluate(SampleSet(samples.inputs[:0], samples.labels[:0])) == (0, 0)


def test_the_last_batch_is_cut_to_the_quota() -> None:
    trainer, _ = trainer_of()
    pool = pool_of(separable(40))
    sampler = sampler_of(pool)
    report = trainer.steps(pool, sampler, 19, never)
    assert (report.samples, report.steps, sampler.trained_in_epoch) == (19, 3, 19)


def test_training_stops_between_two_steps_when_told_and_goes_on_in_the_same_epoch() -> None:
    trainer, _ = trainer_of()
    pool = pool_of(separable(40))
    sampler = sampler_of(pool)
    answers = iter([False, False, True])
    assert trainer.steps(pool, sampler, 40, lambda: next(answers)).steps == 2
    assert trainer.steps(pool, sampler, 24, never).samples == 24
    assert (sampler.epoch, sampler.trained_in_epoch) == (0, 40)


@pytest.mark.parametrize("quota", [1, 9])
def test_a_batch_of_one_sample_does_not_break_batch_normalisation(quota: int) -> None:
    trainer, _ = trainer_of()
    pool = pool_of(separable(40))
    assert trainer.steps(pool, sampler_of(pool), quota, never).samples == quota
    assert all(module.training for module in trainer.model.modules())
    assert trainer.counters() == (quota // 8,)


def test_a_loss_that_is_not_finite_ends_the_training_with_a_clear_line() -> None:
    trainer, _ = trainer_of(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e30))
    pool = pool_of(separable(40))
    with pytest.raises(TrainingDiverged, match="lower the learning rate"):
        trainer.steps(pool, sampler_of(pool), 400, never)


def test_the_delta_is_what_training_changed_and_leads_from_the_start_to_the_end() -> None:
    trainer, _ = trainer_of()
    start = replica.initial(trainer.model, 1, layout_of(trainer.model))
    pool = pool_of(separable(40))
    trainer.steps(pool, sampler_of(pool), 16, never)
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
    trainer.steps(pool, sampler, 16, never)  # so that there is momentum to restore
    start, inner, dealt = (
        replica.initial(trainer.model, 1, layout_of(trainer.model)),
        trainer.snapshot(),
        sampler.snapshot(),
    )
    trainer.load(start)
    deltas = []
    for _ in range(3):
        trainer.steps(pool, sampler, 20, never)
        deltas.append((trainer.delta(), trainer.counters()))
        trainer.load(start)
        trainer.restore(inner)
        sampler.restore(dealt)
    assert all(torch.equal(delta, deltas[0][0]) and counters == deltas[0][1] for delta, counters in deltas)


def test_a_manner_names_the_batch_and_steps_can_be_counted_instead_of_samples() -> None:
    trainer, _ = trainer_of()
    trainer.load(replica.initial(trainer.model, 1, layout_of(trainer.model)), StepConfig(batch_size=5))
    pool = pool_of(separable(40))
    assert trainer.steps(pool, sampler_of(pool), 19, never).steps == 4
    report = trainer.steps(pool, sampler_of(pool), 40, never, steps_max=3)
    assert (report.samples, report.steps) == (15, 3)


def test_a_proximal_step_is_a_step_of_the_loss_with_the_distance_from_the_start_added() -> None:
    trainer, task = trainer_of(model=lambda: torch.nn.Linear(6, 3))
    start = replica.initial(trainer.model, 1, layout_of(trainer.model))
    trainer.load(start, StepConfig(batch_size=8, proximal=0.5))
    plain = task.model()
    replica.load(plain, start)
    optimizer = task.optimizer(plain.parameters())
    pool = pool_of(separable(40))
    sampler = sampler_of(pool)
    for _ in range(3):
        inputs, labels = pool.batch(sampler.take(8))
        optimizer.zero_grad()
        here = torch.nn.utils.parameters_to_vector(plain.parameters())
        (task.loss(plain(inputs), labels) + 0.5 / 2 * (here - start.vector).square().sum()).backward()
        optimizer.step()
    trainer.steps(pool, sampler_of(pool), 24, never)
    torch.testing.assert_close(trainer.parameters(), replica.from_model(plain, start.layout)[0])
    assert not torch.equal(trainer.parameters(), start.vector)


def test_importance_sampling_trains_half_of_what_it_looks_at_and_leaves_the_statistics_of_batches_alone() -> None:
    trainer, _ = trainer_of()
    trainer.load(
        replica.initial(trainer.model, 1, layout_of(trainer.model)),
        StepConfig(batch_size=8, chance=np.random.default_rng(0)),
    )
    pool = pool_of(separable(40))
    sampler = sampler_of(pool)
    report = trainer.steps(pool, sampler, 20, never)
    assert (report.samples, report.steps, sampler.trained_in_epoch) == (20, 3, 40)
    assert trainer.counters() == (3,)


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
            trainer.steps(pools[device], samplers[device], len(pools[device]), never)
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
    assert evaluate(model, unseen.inputs, unseen.labels) > 170
