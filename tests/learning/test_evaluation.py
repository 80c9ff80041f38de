import pytest
import torch

from crowd.errors import BadConfig
from crowd.learning.evaluation import evaluate, next_streak
from crowd.learning.phase import is_reached
from tests.learning.nets import normalised, separable


class Echo(torch.nn.Module):
    """Its outputs are its inputs."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs


def test_correct_is_counted_over_more_than_one_batch() -> None:
    labels = torch.arange(600) % 3
    outputs = torch.nn.functional.one_hot(labels, 3).float()
    outputs[5] = outputs[6]
    outputs[599] = outputs[598]
    assert evaluate(Echo(), outputs, labels) == 598


def test_a_sample_with_several_labels_is_correct_only_if_all_are() -> None:
    labels = torch.tensor([[0, 1], [1, 1]])
    outputs = torch.nn.functional.one_hot(torch.tensor([[0, 1], [1, 0]]), 2).float()
    assert evaluate(Echo(), outputs, labels) == 1


def test_nothing_to_evaluate_is_nothing_correct() -> None:
    assert evaluate(Echo(), torch.empty(0, 3), torch.empty(0, dtype=torch.int64)) == 0


def test_evaluation_changes_neither_the_model_nor_the_mode_of_any_layer() -> None:
    model, samples = normalised(), separable(10)
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    evaluate(model, samples.inputs, samples.labels)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_result_does_not_depend_on_the_other_samples_of_a_batch() -> None:
    model, samples = normalised(), separable(20)
    alone = sum(evaluate(model, samples.inputs[i : i + 1], samples.labels[i : i + 1]) for i in range(20))
    assert evaluate(model, samples.inputs, samples.labels) == alone


@pytest.mark.parametrize("labels", [torch.zeros(4), torch.zeros(4, 2, dtype=torch.int64)])
def test_labels_that_are_no_class_numbers_cannot_be_evaluated(labels: torch.Tensor) -> None:
    with pytest.raises(BadConfig, match="class numbers"):
        evaluate(Echo(), torch.zeros(4, 3), labels)


def test_the_target_is_reached_by_two_consecutive_evaluations() -> None:
    streak, reached = 0, []
    for correct in (95, 94, 95, 96):
        streak = next_streak(streak, correct, 100, 0.95)
        reached.append(is_reached(streak))
    assert reached == [False, False, False, True]


def test_a_round_in_which_nothing_was_evaluated_neither_counts_nor_interrupts() -> None:
    streak = next_streak(next_streak(0, 1, 1, 1.0), 0, 0, 1.0)
    assert not is_reached(streak)
    assert is_reached(next_streak(streak, 1, 1, 1.0))


def test_an_accuracy_that_equals_the_target_meets_it() -> None:
    assert next_streak(0, 342, 360, 0.95) == 1
