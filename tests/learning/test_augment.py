"""A batch is augmented anew at every step, on the trainer, from a generator of the step."""

import copy
from typing import Any

import anyio
import numpy as np
import pytest
import torch

from crowd.errors import BadConfig
from crowd.learning import replica
from crowd.learning.pool import EpochSampler
from crowd.learning.speed_test import STEPS, WARM_UP_STEPS, measure_speed
from crowd.learning.work import LocalTrainer, StepConfig, prepare
from devices.emulated import VirtualCompute
from devices.simulation.virtual_time import run_virtually
from devices.torch_compute import TorchCompute
from tests.learning.nets import CLASSES, FEATURES, layout_of, make_task, separable, train
from tests.learning.test_work import pool_of

SAMPLES = separable(40)


class Noise:
    """Adds noise, in place, and remembers what it was given and what it made."""

    def __init__(self) -> None:
        self.given: list[torch.Tensor] = []
        self.made: list[torch.Tensor] = []

    def __call__(
        self, inputs: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.given.append(inputs.clone())
        inputs += torch.randn(inputs.shape, generator=generator)
        self.made.append(inputs.clone())
        return inputs, labels


def linear() -> torch.nn.Module:
    return torch.nn.Linear(FEATURES, CLASSES)


def trained(
    noise: Noise, *, device: str = "a", generation: int = 1, chance: np.random.Generator | None = None
) -> tuple[LocalTrainer, EpochSampler]:
    """A trainer after an epoch of five steps."""
    task = make_task(model=linear, augment=noise)
    torch.manual_seed(0)
    model = task.model()
    local = LocalTrainer(task, model, layout_of(model))
    start = replica.initial(model, 1, layout_of(model))
    step_config = StepConfig(chance=chance)
    local.load(start, step_config)
    sampler = EpochSampler(40, seed=0, generation=generation, device=device)
    train(local, pool_of(SAMPLES), sampler, 40 // step_config.group, group=step_config.group)
    return local, sampler


def test_each_step_augments_its_batch_anew_and_leaves_the_samples_alone() -> None:
    noise = Noise()
    local, sampler = trained(noise)
    assert [len(batch) for batch in noise.given] == [8] * 5
    drawn = [made - given for made, given in zip(noise.made, noise.given, strict=True)]
    assert all(not torch.allclose(drawn[0], other) for other in drawn[1:])
    train(local, pool_of(SAMPLES), sampler, 40)
    first, second = (torch.cat(noise.given[epoch * 5 : epoch * 5 + 5]) for epoch in (0, 1))
    for epoch in (first, second):
        assert torch.equal(epoch.sort(dim=0).values, SAMPLES.inputs.sort(dim=0).values)


def test_the_same_step_of_the_same_device_is_augmented_alike_and_no_other_is() -> None:
    once, again, elsewhere, later = Noise(), Noise(), Noise(), Noise()
    torch.manual_seed(1)
    local, _ = trained(once)
    torch.manual_seed(2)  # the global generator has no part in it
    other, _ = trained(again)
    assert torch.equal(local.parameters(), other.parameters())
    trained(elsewhere, device="b")
    trained(later, generation=2)
    added = [noise.made[0] - noise.given[0] for noise in (once, again, elsewhere, later)]
    torch.testing.assert_close(added[0], added[1])
    assert not torch.allclose(added[0], added[2])
    assert not torch.allclose(added[0], added[3])


def test_a_round_that_is_done_again_is_augmented_as_before() -> None:
    noise = Noise()
    local, sampler = trained(noise)
    dealt = len(noise.made)
    for position in (copy.copy(sampler), sampler):
        train(local, pool_of(SAMPLES), position, 16)
    first, second = noise.made[dealt : dealt + 2], noise.made[dealt + 2 :]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_importance_is_scored_on_what_is_trained() -> None:
    noise = Noise()
    trained(noise, chance=np.random.default_rng(0))
    assert [len(batch) for batch in noise.given] == [14, 14, 12]  # whole groups, of which half are trained


def test_evaluation_is_of_the_samples_as_they_are() -> None:
    noise = Noise()
    local, _ = trained(noise)
    before = len(noise.given)
    local.evaluate(SAMPLES)
    assert len(noise.given) == before


def test_augmentation_is_part_of_the_measured_speed() -> None:
    noise = Noise()
    task = make_task(model=linear, augment=noise)
    work = prepare(task)
    before = len(noise.given)
    anyio.run(measure_speed, task, work, TorchCompute())
    measured = len(noise.given)
    assert measured - before >= WARM_UP_STEPS + STEPS
    assert run_virtually(measure_speed, task, work, VirtualCompute(1000)) == 1000
    assert len(noise.given) == measured, "under virtual time nothing is done only to be timed"


def test_devices_with_and_without_augmentation_do_not_train_together() -> None:
    plain, noisy = (prepare(make_task(augment=augment)).facts.fingerprint for augment in (None, Noise()))
    assert plain != noisy


@pytest.mark.parametrize(
    ("augment", "complaint"),
    [
        (
            lambda inputs, labels, generator: (inputs[:, :3], labels),
            r"made inputs \(8, 3\) .* of \(8, 6\) .*: keep them",
        ),
        (lambda inputs, labels, generator: (inputs.double(), labels), "made inputs .*float64 of .*float32: keep them"),
        (lambda inputs, labels, generator: (inputs, labels[1:]), r"made labels \(7,\)"),
        (lambda inputs, labels, generator: inputs, r"augment\(\) returned a Tensor; expected \(inputs, labels\)"),
        (lambda inputs, labels: (inputs, labels), r"augment\(\) failed: TypeError: .*takes 2 positional arguments"),
        (Noise, "augment: expected a function of inputs, labels and a generator, found a type"),
        (3, "augment: expected a function of inputs, labels and a generator, found 3"),
    ],
)
def test_an_augmentation_that_keeps_no_shapes_is_refused_at_the_start(augment: Any, complaint: str) -> None:
    with pytest.raises(BadConfig, match=complaint) as refused:
        prepare(make_task(augment=augment))
    assert "\n" not in str(refused.value)
