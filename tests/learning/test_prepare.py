"""A user's task becomes data and facts."""

from typing import Any

import pytest
import torch

from crowd.errors import BadConfig
from crowd.learning import replica
from crowd.learning.holdout import holdout
from crowd.learning.samples import SampleSet
from crowd.learning.work import Work, prepare, starting_model
from tests.learning.nets import dataset, layout_of, linear, make_task, normalised, separable


def prepared(**changes: Any) -> Work:
    return prepare(make_task(**changes))


def test_a_prepared_task_has_its_data_and_facts() -> None:
    work = prepared(model=linear)
    assert sum(work.own.latest.store.label_counts) == 40
    assert len(work.own.latest.evaluation) == 20
    assert work.facts.state_elements == 6 * 3 + 3
    assert work.facts.flops_per_sample == 2 * (2 * 6 * 3)  # forward, and the gradient of the weights
    assert work.facts.sample_bytes == 6 * 4 + 8
    assert (work.facts.batch_size, work.facts.evaluation_samples, work.facts.epochs_max) == (8, 20, 60)


@pytest.mark.parametrize("series_gap", [None, 2])
def test_without_an_evaluation_set_a_part_is_held_out(series_gap: int | None) -> None:
    work = prepared(evaluation=None, series_gap=series_gap)
    trained, held_out = holdout(separable(40), series_gap=series_gap)
    assert torch.equal(work.own.latest.store.samples.inputs, trained.inputs)
    assert torch.equal(work.own.latest.evaluation.inputs, held_out.inputs)
    assert len(held_out) >= 4
    assert work.facts.evaluation_samples == 0
    assert len(trained) + len(held_out) <= 40


@pytest.mark.parametrize("series_gap", [0, -1, 1.5, "day"])
def test_a_gap_that_is_none_is_refused(series_gap: Any) -> None:
    with pytest.raises(BadConfig, match="the task's series_gap: expected a whole number above 0, or None"):
        make_task(series_gap=series_gap)


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_the_facts_do_not_depend_on_a_devices_own_data(count: int) -> None:
    assert prepared(data=dataset(separable(count, seed=5))).facts == prepared().facts


def test_a_device_without_samples_needs_an_evaluation_set() -> None:
    with pytest.raises(BadConfig, match="a device without samples needs an evaluation set"):
        prepared(data=[], evaluation=None)
    with pytest.raises(BadConfig, match="evaluation is empty"):
        prepared(evaluation=[])
    assert prepared(data=[]).own.present.store.format == separable(1).format


@pytest.mark.parametrize("what", ["data", "evaluation"])
def test_a_loader_is_told_to_give_its_dataset(what: str) -> None:
    loader = torch.utils.data.DataLoader(dataset(separable(20)), batch_size=4)
    with pytest.raises(BadConfig, match=rf"^{what} is a DataLoader: give its dataset \(loader.dataset\)"):
        prepared(**{what: loader})


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
    one = starting_model(task, layout, seed=7, run=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    vectors = {
        (seed, run): replica.initial(starting_model(task, layout, seed=seed, run=run), run, layout).vector
        for seed, run in ((7, 2), (8, 2), (7, 3))
    }
    assert torch.equal(replica.initial(one, 2, layout).vector, vectors[7, 2])
    assert not torch.equal(vectors[7, 2], vectors[8, 2])
    assert not torch.equal(vectors[7, 2], vectors[7, 3])


def test_data_and_evaluation_set_must_fit_into_memory_together() -> None:
    sample_bytes = 6 * 4 + 8
    task = make_task()
    with pytest.raises(BadConfig, match="evaluation does not fit into memory: its 20 samples need 640 B"):
        prepare(task, memory_bytes=19 * sample_bytes)
    with pytest.raises(BadConfig, match=r"data does not fit into memory: its 40 samples need 1.3 kB, and 1.2 kB are"):
        prepare(task, memory_bytes=59 * sample_bytes)
    prepare(task, memory_bytes=60 * sample_bytes)
    with pytest.raises(BadConfig, match=r"its 40 samples need 2.6 kB"):  # a tenth is held out by copying
        prepare(make_task(evaluation=None), memory_bytes=60 * sample_bytes)


def test_what_a_network_draws_and_never_trains_is_the_same_whatever_the_seed_and_the_run() -> None:
    class Projected(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("drawn", torch.randn(6, 6))
            self.scale = torch.rand(6)
            self.head = torch.nn.Linear(6, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.head(inputs @ self.get_buffer("drawn") * self.scale)
            return output

    task = make_task(model=Projected)
    layout = prepared(model=Projected).layout
    one, other = (starting_model(task, layout, seed=seed, run=run) for seed, run in ((7, 2), (8, 3)))
    assert torch.equal(one.get_buffer("drawn"), other.get_buffer("drawn"))
    assert isinstance(one, Projected)
    assert isinstance(other, Projected)
    assert torch.equal(one.scale, other.scale)
    assert not torch.equal(one.head.weight, other.head.weight)
