"""How often trainers merge, and with which outer optimiser."""

import attrs
import pytest

from crowd.planning.convergence import Mix
from crowd.planning.estimate import ShipCost, SyncCost
from crowd.planning.plan import OuterKind
from policies.crowd_learning.sync import (
    EPOCHS_PER_MERGE_MAX,
    MERGES_PER_EPOCH_MAX,
    epochs_per_merge,
    merges_for_lone_labels,
    merges_per_epoch,
    outer,
)
from tests.support.profiles import make_profile, task_facts

# 600 us a sample: an epoch of 1,000 samples takes 600 ms on each trainer.
TASK = task_facts(evaluation_samples=0)
NO_MOVES = ShipCost(ship_us=0, bytes_total=0)


def merges(trainers: int, sync_us: int, *, samples: int = 1_000, epochs_max: int = 60, frequent: bool = True) -> int:
    """Merges an epoch for equal trainers with `samples` each."""
    every = trainers * samples
    spread = Mix(samples=every, effective=every, effective_trainers_permille=1_000 * trainers, skew_permille=0)
    sync = SyncCost(critical_us=sync_us, bystander_us=0, bytes_total=0)
    task = attrs.evolve(TASK, epochs_max=epochs_max)
    shifts = [(make_profile(f"d{index}", task=TASK), samples, 0) for index in range(trainers)]
    return merges_per_epoch(task, shifts, spread, sync, NO_MOVES, frequent=frequent)[0]


def test_merges_are_as_frequent_as_pays_where_they_cost_nothing() -> None:
    assert merges(2, 0) == MERGES_PER_EPOCH_MAX


def test_merges_are_rarer_the_longer_they_take() -> None:
    counts = [merges(2, sync_us) for sync_us in (0, 5_000, 15_000, 60_000)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1


def test_even_in_a_short_run_a_merge_takes_no_more_than_a_tenth_of_a_round() -> None:
    assert merges(2, 33_000, epochs_max=1) == 2  # 33 ms of 333
    assert merges(2, 34_000, epochs_max=1) == 1  # 34 ms of 334


def test_one_trainer_alone_merges_once_an_epoch() -> None:
    assert merges(1, 0) == 1


def test_merges_are_once_an_epoch_where_bytes_count() -> None:
    assert merges(2, 0, frequent=False) == 1


def test_a_round_is_no_shorter_than_a_batch() -> None:
    assert merges(2, 0, samples=2 * TASK.batch_size) == 2
    assert merges(2, 0, samples=TASK.batch_size - 1) == 1


@pytest.mark.parametrize(
    ("critical_ms", "bystander_ms", "epochs"),
    [
        (100, 0, 1),
        (100, 1_299, 1),
        (100, 1_300, 2),
        (100, 1_899, 2),
        (100, 1_900, 3),
        (100, 9_000, EPOCHS_PER_MERGE_MAX),
    ],
)
def test_a_round_has_as_many_whole_epochs_as_pass_until_every_listener_has_the_last_one(
    critical_ms: int, bystander_ms: int, epochs: int
) -> None:
    sync = SyncCost(critical_us=critical_ms * 1_000, bystander_us=bystander_ms * 1_000, bytes_total=0)
    assert epochs_per_merge([(make_profile("a", task=TASK), 1_000, 0)], sync) == epochs


def test_trainers_that_would_drift_apart_merge_every_epoch_whoever_listens() -> None:
    sync = SyncCost(critical_us=0, bystander_us=9_000_000, bytes_total=0)
    assert epochs_per_merge([(make_profile(name, task=TASK), 1_000, 0) for name in "ab"], sync) == 1


@pytest.mark.parametrize(
    ("samples", "sync_s", "counts", "merges"),
    [
        ((910, 90), 1, ((910, 0), (0, 90)), 4),
        ((910, 90), 1, ((850, 60), (60, 30)), 1),
        ((890, 110), 1, ((890, 0), (0, 110)), 1),
        ((910, 90), 0, ((910, 0), (0, 90)), 1),
        ((91, 9), 1, ((91, 0), (0, 9)), 1),
        ((140, 12), 1, ((140, 0), (0, 12)), 2),
    ],
    ids=[
        "alone",
        "others see it too",
        "a tenth sees it",
        "a merge takes less",
        "less than a batch",
        "two batches each",
    ],
)
def test_a_label_that_hardly_anybody_sees_gets_more_merges_where_these_are_the_round(
    samples: tuple[int, int], sync_s: int, counts: tuple[tuple[int, int], ...], merges: int
) -> None:
    sync = SyncCost(critical_us=sync_s * 1_000_000, bystander_us=0, bytes_total=0)
    shifts = [(make_profile(name, task=TASK), count, 0) for name, count in zip("ab", samples, strict=True)]
    totals = [sum(column) for column in zip(*counts, strict=True)]
    assert merges_for_lone_labels(totals, shifts, counts, sync) == merges


@pytest.mark.parametrize(
    ("trainers", "statistics", "kind"),
    [(1, 0, OuterKind.PLAIN), (2, 0, OuterKind.PLAIN), (3, 0, OuterKind.NESTEROV), (3, 16, OuterKind.PLAIN)],
)
def test_the_outer_optimiser_is_plain_for_a_few_trainers_and_for_networks_with_statistics(
    trainers: int, statistics: int, kind: OuterKind
) -> None:
    assert outer(task_facts(statistics=statistics), trainers).kind is kind
