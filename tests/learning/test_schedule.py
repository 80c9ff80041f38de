"""The learning rate follows the epochs of the run."""

from typing import Any

import attrs
import pytest
import torch

from crowd.errors import BadConfig
from crowd.learning import replica
from crowd.learning.pool import EpochSampler
from crowd.learning.work import LocalTrainer, prepare
from tests.learning.nets import layout_of, linear, make_task, separable, train
from tests.learning.test_work import pool_of

SAMPLES = separable(40)


def two_groups(parameters: Any) -> torch.optim.Optimizer:
    weight, bias = parameters
    groups: Any = [{"params": [weight]}, {"params": [bias], "lr": 0.4}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def halved(epochs: float) -> float:
    return 0.5 if epochs >= 2 else 1.0


def after_rounds(*epochs: float, **changes: Any) -> torch.Tensor:
    """The parameters after a round of an epoch that begins after each of these numbers of epochs of the run."""
    task = make_task(model=linear, optimizer=two_groups, **changes)
    torch.manual_seed(0)
    model = task.model()
    local = LocalTrainer(task, model, layout_of(model))
    state = replica.initial(model, 1, layout_of(model))
    sampler = EpochSampler(40, seed=0, generation=1)
    for before in epochs:
        local.load(attrs.evolve(state, vector=local.parameters(), epochs_ppb=int(before * 1e9)))
        train(local, pool_of(SAMPLES), sampler, 40)
    return local.parameters()


def test_each_group_s_rate_is_multiplied_by_the_factor_of_the_epochs_so_far() -> None:
    torch.manual_seed(0)
    plain = linear()
    optimizer = two_groups(plain.parameters())
    sampler, pool = EpochSampler(40, seed=0, generation=1), pool_of(SAMPLES)
    for factor in (1.0, 0.5):
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.1 * factor, 0.4 * factor
        for inputs, labels in pool.deal(sampler, 5 * [8]):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(plain(inputs), labels).backward()
            optimizer.step()
    expected = replica.from_model(plain, layout_of(plain))[0]
    assert torch.equal(after_rounds(1.5, 2.0, schedule=halved), expected)
    assert not torch.equal(after_rounds(1.5, 1.75, schedule=halved), expected)


def test_a_factor_of_1_changes_nothing() -> None:
    assert torch.equal(after_rounds(0, 1, schedule=lambda epochs: 1), after_rounds(0, 1))


def test_an_optimiser_that_goes_back_to_a_snapshot_keeps_to_the_schedule() -> None:
    task = make_task(model=linear, optimizer=two_groups, schedule=halved)
    model = task.model()
    local = LocalTrainer(task, model, layout_of(model))
    early = replica.initial(model, 1, layout_of(model))
    local.load(early)
    snapshot = local.snapshot()
    local.load(attrs.evolve(early, epochs_ppb=3_000_000_000))
    assert [group["lr"] for group in local.snapshot()["param_groups"]] == [0.05, 0.2]
    local.restore(snapshot)
    local.load(attrs.evolve(early, epochs_ppb=3_000_000_000))
    assert [group["lr"] for group in local.snapshot()["param_groups"]] == [0.05, 0.2]


def test_devices_with_different_schedules_do_not_train_together() -> None:
    def fingerprint(schedule: Any) -> bytes:
        return prepare(make_task(schedule=schedule)).facts.fingerprint

    assert fingerprint(halved) == fingerprint(lambda epochs: 1.0 if epochs < 2 else 0.5)
    assert len({fingerprint(schedule) for schedule in (None, halved, lambda epochs: 0.9**epochs)}) == 3


class Rateless(torch.optim.Optimizer):
    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # returns nothing
        pass


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schedule": 0.9}, "schedule: expected a function of the epochs so far, .*found 0.9"),
        ({"schedule": lambda: 1.0}, r"schedule\(\) failed: .*takes 0 positional arguments"),
        ({"schedule": lambda epochs: -1.0}, r"schedule\(\) gave -1.0 for epoch 0; expected a number of at least 0"),
        ({"schedule": lambda epochs: None}, r"schedule\(\) gave None for epoch 0"),
        ({"schedule": lambda epochs: 1 / (5 - epochs)}, r"schedule\(\) failed: .*line \d+: ZeroDivisionError"),
        ({"schedule": halved, "optimizer": Rateless}, "the optimiser Rateless has no lr that schedule could change"),
    ],
)
def test_a_schedule_that_is_none_is_refused_at_the_start(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadConfig, match=complaint) as refused:
        prepare(make_task(**changes))
    assert "\n" not in str(refused.value)
