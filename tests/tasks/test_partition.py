import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowd.errors import BadConfig
from crowd.tasks.partition import Partition, split

LABELS = np.repeat(np.arange(10), 120)


def parts_of(labels, *, parts, subjects=None, **partition):
    return [split(labels, Partition(part=part, parts=parts, **partition), subjects) for part in range(parts)]


@settings(deadline=None)
@given(
    kind=st.sampled_from(["iid", "dirichlet", "subject"]),
    alpha=st.floats(0.01, 100.0),
    labels=st.lists(st.integers(0, 4), max_size=60),
    parts=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_every_sample_has_exactly_one_owner_and_no_part_is_empty_if_there_are_enough(kind, alpha, labels, parts, seed):
    labels = np.array(labels, dtype=np.int64)
    subjects = np.arange(len(labels)) // 2
    found = parts_of(labels, parts=parts, kind=kind, alpha=alpha, seed=seed, subjects=subjects)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(labels)))
    things_to_deal = len(np.unique(subjects)) if kind == "subject" else len(labels)
    assert sum(len(part) > 0 for part in found) >= min(parts, things_to_deal)


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "subject"])
def test_the_same_values_name_the_same_samples(kind):
    first, second = (parts_of(LABELS, parts=5, kind=kind, subjects=LABELS) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_another_seed_names_other_samples(kind):
    assert not np.array_equal(*(split(LABELS, Partition(kind=kind, parts=5, seed=seed)) for seed in (0, 1)))


def test_a_split_stays_what_it_was_in_earlier_versions():
    assert [len(part) for part in parts_of(LABELS, parts=5, kind="dirichlet", alpha=0.3)] == [162, 244, 179, 345, 270]
    assert split(LABELS, Partition(parts=5))[:5].tolist() == [1, 2, 9, 10, 11]


def test_iid_parts_hold_every_label_evenly():
    for part in parts_of(LABELS, parts=7, kind="iid"):
        counts = np.bincount(LABELS[part], minlength=10)
        assert counts.max() - counts.min() <= 1


def test_a_small_alpha_skews_the_labels_and_a_large_one_does_not():
    def mean_largest_label_share(alpha):
        parts = parts_of(LABELS, parts=5, kind="dirichlet", alpha=alpha)
        return np.mean([np.bincount(LABELS[part]).max() / len(part) for part in parts])

    assert mean_largest_label_share(0.1) > 0.3
    assert mean_largest_label_share(1000.0) < 0.13


def test_a_subject_stays_whole_and_subjects_are_dealt_round_robin():
    subjects = np.repeat([11, 12, 13, 14, 15], 4)
    parts = parts_of(np.zeros(20, dtype=np.int64), parts=2, kind="subject", subjects=subjects)
    assert [sorted(set(subjects[part].tolist())) for part in parts] == [[11, 13, 15], [12, 14]]


def test_parts_by_subject_are_refused_where_there_are_no_subjects():
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
def test_a_partition_that_cannot_be_is_refused(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        Partition(**values)
