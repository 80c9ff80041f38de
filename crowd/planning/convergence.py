"""The number of epochs that a cluster needs to the target: all that was found by training and not by counting.

Layout: the constants, `Mix` (how a plan spreads the data over its trainers), `epochs_permille`, and `lost_tenths` (what
idle samples cost that no number of epochs makes up for).
"""

import math
from collections.abc import Collection, Sequence

import attrs

from crowd.planning.policy import Cluster

NOMINAL_EPOCHS = 20
"""Epochs that one trainer with all the data needs, where the task does not allow fewer."""
EPOCHS_PER_SKEW_PERMILLE = 1_000
"""Additional epochs, in thousandths, if trainers see wholly other labels than the cluster holds."""
LABEL_PACE_PERMILLE = 250
"""The part of its due training, in thousandths, with which a label still needs hardly more epochs than the others."""
LABEL_LOST_PARTS = 10
"""Parts in which lost samples of a label are counted: less than a tenth of them has cost no accuracy."""
CONFIRMING_ROUNDS = 2
"""Rounds that confirm the target: two evaluations in a row must meet it, and the second is known one round later."""


@attrs.frozen(kw_only=True)
class Mix:
    """The spread of the data over the trainers, as far as it bears on the number of epochs."""

    samples: int
    """Samples of all members."""
    effective: int
    """Evenly trained samples that those that are trained at all are worth: fewer where some are trained more often than
    others (Kish's effective sample size)."""
    effective_trainers_permille: int
    """Number of equally busy trainers that these are worth, in thousandths."""
    skew_permille: int
    """Mean total variation distance between a trainer's labels and the cluster's, weighted by work, in thousandths."""
    scarcest_permille: int = 1_000
    """Training of the label that gets least of what is due to its samples, in thousandths of that."""

    def in_time(self, epochs_max: int) -> bool:
        """Whether the scarcest label, too, is trained as much as the target needs within so many epochs."""
        return self.scarcest_permille * epochs_max >= LABEL_PACE_PERMILLE * min(NOMINAL_EPOCHS, epochs_max)


def label_totals(cluster: Cluster) -> tuple[int, ...]:
    """Samples of all members, by label."""
    totals = [0] * max(len(member.label_counts) for member in cluster.members)
    for member in cluster.members:
        for label, count in enumerate(member.label_counts):
            totals[label] += count
    return tuple(totals)


def mix(totals: Sequence[int], parts: Collection[tuple[int, Sequence[int]]]) -> Mix:
    """The spread of the data over trainers. `parts` has, for each trainer, the samples that it trains in a given time
    and its assigned samples by label; `totals` are the cluster's samples by label."""
    samples = sum(totals)
    trained = sum(pace for pace, _ in parts)
    squares = scaled_squares = skew = 0
    by_label = [0] * len(totals)
    for pace, counts in parts:
        own = sum(counts)
        squares += pace * pace
        scaled_squares += (pace * pace << 20) // own
        distance = sum([abs(count * samples - total * own) for count, total in zip(counts, totals, strict=False)])
        distance += own * sum(totals[len(counts) :])
        skew += pace * distance * 500 // (own * samples)
        for label, count in enumerate(counts):
            by_label[label] += pace * count * 1_000 // own
    return Mix(
        samples=samples,
        effective=max(1, (trained * trained << 20) // max(1, scaled_squares)),
        effective_trainers_permille=effective_trainers_permille(trained, squares),
        skew_permille=skew // max(1, trained),
        scarcest_permille=min(
            (
                part * samples // (total * max(1, trained))
                for part, total in zip(by_label, totals, strict=True)
                if total
            ),
            default=1_000,
        ),
    )


def effective_trainers_permille(total: int, squares: int) -> int:
    """Effective number of trainers, `1 / sum(share²)`, in thousandths, from the sum and the sum of squares of their
    samples."""
    return 1_000 * total * total // max(1, squares)


def epochs_permille(*, effective_trainers_permille: int, skew_permille: int = 0, scarcest_permille: int = 1_000) -> int:
    """Epochs to the target, in thousandths of what one trainer with all the data needs.

    They grow as the square root of the number of effective trainers, for an average of n replicas advances as if each
    had trained with a batch n times as large. Whether they merge once an epoch or four times makes no measurable
    difference. A label that gets less than a quarter of its due training needs as many more epochs
    (docs/decisions/081-lost-labels.md).
    """
    drift_permille = EPOCHS_PER_SKEW_PERMILLE * skew_permille // 1_000
    even_permille = math.isqrt(1_000 * max(1_000, effective_trainers_permille)) + drift_permille
    return even_permille * LABEL_PACE_PERMILLE // max(1, min(scarcest_permille, LABEL_PACE_PERMILLE))


def lost_tenths(totals: Sequence[int], idle: Sequence[int]) -> int:
    """The tenths of their samples that labels lose, whole tenths of each, over all labels. `idle` are the samples that
    nobody trains, of the cluster's `totals`, both by label."""
    return sum([LABEL_LOST_PARTS * count // total for count, total in zip(idle, totals, strict=False) if count])
