import pytest
import torch

from crowd.errors import BadConfig, MalformedMessage
from crowd.learning.ending import Goal, next_streak
from crowd.learning.evaluation import NOTHING, Evaluation, total
from crowd.learning.quality import Quality, evaluate
from crowd.metrics import R2, Accuracy, MacroF1, MeanAbsoluteError, MeanLoss, Metric, RootMeanSquaredError
from crowd.planning.phase import is_reached
from tests.learning.nets import normalised, separable

ACCURACY = Accuracy()
GOAL = Goal(better="higher", target=0.95)


class Echo(torch.nn.Module):
    """Its outputs are its inputs."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs


def right(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    return evaluate(ACCURACY, Echo(), outputs, labels).sums[0]


def test_correct_is_counted_over_more_than_one_batch() -> None:
    labels = torch.arange(600) % 3
    outputs = torch.nn.functional.one_hot(labels, 3).float()
    outputs[5] = outputs[6]
    outputs[599] = outputs[598]
    assert evaluate(ACCURACY, Echo(), outputs, labels) == Evaluation(sums=(598.0, 600.0), samples=600)


def test_a_sample_with_several_labels_is_correct_only_if_all_are() -> None:
    labels = torch.tensor([[0, 1], [1, 1]])
    outputs = torch.nn.functional.one_hot(torch.tensor([[0, 1], [1, 0]]), 2).float()
    assert right(outputs, labels) == 1


def test_nothing_to_evaluate_is_nothing_correct() -> None:
    assert evaluate(ACCURACY, Echo(), torch.empty(0, 3), torch.empty(0, dtype=torch.int64)) == NOTHING


def test_evaluation_changes_neither_the_model_nor_the_mode_of_any_layer() -> None:
    model, samples = normalised(), separable(10)
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    evaluate(ACCURACY, model, samples.inputs, samples.labels)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_result_does_not_depend_on_the_other_samples_of_a_batch() -> None:
    model, samples = normalised(), separable(20)
    rows = [slice(i, i + 1) for i in range(20)]
    alone = total(evaluate(ACCURACY, model, samples.inputs[row], samples.labels[row]) for row in rows)
    assert evaluate(ACCURACY, model, samples.inputs, samples.labels) == alone


@pytest.mark.parametrize("labels", [torch.zeros(4), torch.zeros(4, 2, dtype=torch.int64)])
def test_labels_that_are_no_class_numbers_cannot_be_evaluated(labels: torch.Tensor) -> None:
    with pytest.raises(BadConfig, match="class numbers"):
        evaluate(ACCURACY, Echo(), torch.zeros(4, 3), labels)


def test_the_target_is_reached_by_two_consecutive_evaluations() -> None:
    streak, reached = 0, []
    for value in (0.95, 0.94, 0.95, 0.96):
        streak = next_streak(streak, value, 100, GOAL)
        reached.append(is_reached(streak))
    assert reached == [False, False, False, True]


def test_a_round_in_which_nothing_was_evaluated_neither_counts_nor_interrupts() -> None:
    streak = next_streak(next_streak(0, 1.0, 1, GOAL), None, 0, GOAL)
    assert not is_reached(streak)
    assert is_reached(next_streak(streak, 1.0, 1, GOAL))


def test_a_value_that_equals_the_target_meets_it() -> None:
    assert next_streak(0, 342 / 360, 360, GOAL) == 1


def test_where_lower_is_better_a_value_below_the_target_meets_it() -> None:
    goal = Goal(better="lower", target=2.0)
    assert [next_streak(1, value, 9, goal) for value in (1.9, 2.0, 2.1, None)] == [2, 2, 0, 0]


QUALITY = Quality(metric=Accuracy(), numbers=2, label_elements=1)


@pytest.mark.parametrize(
    ("sums", "samples"),
    [((1.0,), 1), ((1.0, 1.0, 1.0), 1), ((), 1), ((1.0, 1.0), 0), ((float("inf"), 1.0), 1), ((1.0, 1.0), -1)],
)
def test_what_cannot_be_an_evaluation_is_malformed(sums: tuple[float, ...], samples: int) -> None:
    with pytest.raises(MalformedMessage, match=r"^ada "):
        QUALITY.check("ada", Evaluation(sums=sums, samples=samples))


def test_an_evaluation_of_the_metric_s_form_is_let_in() -> None:
    QUALITY.check("ada", Evaluation(sums=(1.0, 2.0), samples=2))
    QUALITY.check("ada", NOTHING)


@pytest.mark.parametrize(
    ("metric", "label_elements", "sums"),
    [
        (Accuracy(), 1, (5.0, 4.0)),
        (Accuracy(), 1, (-1.0, 4.0)),
        (Accuracy(), 1, (2.5, 4.0)),
        (Accuracy(), 1, (4.0, 5.0)),
        (MacroF1(), 1, (5.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        (MacroF1(), 1, (2.0, 2.0, -1.0, 0.0, 0.0, 0.0)),
        (MacroF1(), 1, (2.5, 0.5, 0.0, 0.0, 0.0, 0.0)),
        (MacroF1(), 1, (2.0, 0.0, 3.0, 0.0, 0.0, 0.0)),
        (MacroF1(), 2, (4.0, 4.0, 0.0, 0.0, 1.0, 0.0)),
        (MeanAbsoluteError(), 2, (-0.1, 8.0)),
        (MeanAbsoluteError(), 2, (1.0, 4.0)),
        (RootMeanSquaredError(), 2, (-0.1, 8.0)),
        (RootMeanSquaredError(), 2, (1.0, 16.0)),
        (R2(), 1, (-0.1, 0.0, 1.0, 4.0)),
        (R2(), 1, (1.0, 0.0, 1.0, 5.0)),
        (R2(), 1, (1.0, 0.0, -1.0, 4.0)),
        (R2(), 1, (1.0, 4.0, 3.9, 4.0)),
        (MeanLoss(), 1, (-3.0, 5.0)),
    ],
)
def test_sums_that_four_samples_cannot_have_are_malformed(
    metric: Metric, label_elements: int, sums: tuple[float, ...]
) -> None:
    quality = Quality(metric=metric, numbers=len(sums), label_elements=label_elements)
    with pytest.raises(MalformedMessage, match=rf"^ada says sums that 4 samples cannot have by {metric.name}$"):
        quality.check("ada", Evaluation(sums=sums, samples=4))


def test_a_value_that_is_not_defined_is_none() -> None:
    assert QUALITY.value(NOTHING) is None
    assert QUALITY.value(Evaluation(sums=(1.0, 2.0), samples=2)) == 0.5
    alike = evaluate(R2(), Echo(), torch.zeros(4), torch.ones(4))
    assert Quality(metric=R2(), numbers=4, label_elements=1).value(alike) is None
