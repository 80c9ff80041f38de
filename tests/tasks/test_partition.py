from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowd.errors import BadConfig
from crowd.tasks.partition import Indices, Partition, split

Kind = Literal["iid", "dirichlet", "subject"]

LABELS = np.repeat(np.arange(10), 120)


def parts_of(
    labels: Indices, *, parts: int, kind: Kind, alpha: float = 0.3, seed: int = 0, subjects: Indices | None = None
) -> list[Indices]:
    partitions = (Partition(kind=kind, alpha=alpha, part=part, parts=parts, seed=seed) for part in range(parts))
    return [split(labels, partition, subjects) for partition in partitions]


@settings(deadline=None)
@given(
    kind=st.sampled_from(["iid", "dirichlet", "subject"]),
    alpha=st.floats(0.01, 100.0),
    labels=st.lists(st.integers(0, 4), max_size=60),
    parts=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_every_sample_has_exactly_one_owner_and_no_part_is_empty_if_there_are_enough(
    kind: Kind, alpha: float, labels: list[int], parts: int, seed: int
) -> None:
    of = np.array(labels, dtype=np.int64)
    subjects = np.arange(len(labels)) // 2
    found = parts_of(of, parts=parts, kind=kind, alpha=alpha, seed=seed, subjects=subjects)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(labels)))
    things_to_deal = len(np.unique(subjects)) if kind == "subject" else len(labels)
    assert sum(len(part) > 0 for part in found) >= min(parts, things_to_deal)


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "subject"])
def test_the_same_values_name_the_same_samples(kind: Kind) -> None:
    first, second = (parts_of(LABELS, parts=5, kind=kind, subjects=LABELS) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_another_seed_names_other_samples(kind: Kind) -> None:
    first, second = (split(LABELS, Partition(kind=kind, parts=5, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_a_split_stays_what_it_was_in_earlier_versions() -> None:
    assert [len(part) for part in parts_of(LABELS, parts=5, kind="dirichlet", alpha=0.3)] == [162, 244, 179, 345, 270]
    assert split(LABELS, Partition(parts=5))[:5].tolist() == [1, 2, 9, 10, 11]


def test_iid_parts_hold_every_label_evenly() -> None:
    for part in parts_of(LABELS, parts=7, kind="iid"):
        counts = np.bincount(LABELS[part], minlength=10)
        assert counts.max() - counts.min() <= 1


def test_a_small_alpha_skews_the_labels_and_a_large_one_does_not() -> None:
    def mean_largest_label_share(alpha: float) -> float:
        parts = parts_of(LABELS, parts=5, kind="dirichlet", alpha=alpha)
        return float(np.mean([np.bincount(LABELS[part]).max() / len(part) for part in parts]))

    assert mean_largest_label_share(0.1) > 0.3
    assert mean_largest_label_share(1000.0) < 0.13


def test_a_subject_stays_whole_and_subjects_are_dealt_round_robin() -> None:
    subjects = np.repeat([11, 12, 13, 14, 15], 4)
    parts = parts_of(np.zeros(20, dtype=np.int64), parts=2, kind="subject", subjects=subjects)
    assert [sorted(set(subjects[part].tolist())) for part in parts] == [[11, 13, 15], [12, 14]]


def test_parts_by_subject_are_refused_where_there_are_no_subjects() -> None:
    with pytest.raises(BadConfig, match="no subjects"):
        split(LABELS, Partition(kind="subject"))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"kind": "random"}, "'kind' must be in"),
        ({"alpha": 0.0}, "'alpha' must be > 0"),
        ({"parts": 0}, "'parts' must be > 0"),
        ({"part": -1}, "'part' must be >= 0"),
        ({"part": 2, "parts": 2}, "part 2 does not exist"),
    ],
)
def test_a_partition_that_cannot_be_is_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Partition(**values)
