"""The frequency of merges, and the outer optimiser that applies the merged delta."""

from collections.abc import Sequence

from crowd.planning.convergence import Mix
from crowd.planning.estimate import Estimate, ShipCost, SyncCost, evaluation_us, project, train_us
from crowd.planning.plan import Outer, OuterKind
from crowd.planning.profile import Profile, TaskFacts
from crowd.units import ceil_div

NESTEROV = Outer(kind=OuterKind.NESTEROV, rate_ppm=750_000, momentum_ppm=500_000)
"""Outer optimiser for many trainers."""
NESTEROV_TRAINERS_MIN = 3
"""Trainers from which on Nesterov is used: it saved up to a fifth of the epochs; with two trainers it cost some
(docs/decisions/010-nesterov-from-three-trainers.md)."""
MERGES_PER_EPOCH_MAX = 4
"""Most merges of an epoch: shorter rounds than a quarter of an epoch have not been found to save epochs."""
EPOCHS_PER_MERGE_MAX = 4
"""Most epochs from one merge to the next: with more, the end of the run is seen late."""
LONE_PARTS = 10
"""Parts of all work of which trainers that see a label do less than one where the others unlearn it."""
OVERHEAD_PERMILLE_MAX = 100
"""Part of a round, in thousandths, that more frequent merges than one an epoch may take."""

TrainerLoad = tuple[Profile, int, int]
"""A trainer, the samples that it trains in an epoch and its share of the evaluation set."""


def outer(task: TaskFacts, trainers: int) -> Outer:
    """The outer optimiser for so many trainers: for a few, the merged delta is applied as it is; so it is where the
    network keeps statistics, as these are of the mean and of no other parameters
    (docs/decisions/105-plain-statistics.md)."""
    return NESTEROV if trainers >= NESTEROV_TRAINERS_MIN and not task.statistics else Outer()


def work_us(shifts: Sequence[TrainerLoad], merges: int, epochs: int = 1) -> int:
    """Microseconds between two of the `merges` of so many `epochs`: training and evaluation on the slowest trainer."""
    return _work_us(shifts, _evaluation_us(shifts), merges, epochs)


def _evaluation_us(shifts: Sequence[TrainerLoad]) -> list[int]:
    return [evaluation_us(profile, evaluated or profile.held_out) for profile, _, evaluated in shifts]


def _work_us(shifts: Sequence[TrainerLoad], evaluations_us: Sequence[int], merges: int, epochs: int = 1) -> int:
    return max(
        train_us(profile, ceil_div(samples * epochs, merges)) + evaluates_us
        for (profile, samples, _), evaluates_us in zip(shifts, evaluations_us, strict=True)
    )


def merges_per_epoch(
    task: TaskFacts,
    shifts: Sequence[TrainerLoad],
    spread: Mix,
    sync: SyncCost,
    ship: ShipCost,
    *,
    frequent: bool = True,
) -> tuple[int, Estimate]:
    """The number of merges in an epoch, and the estimate of the run with it.

    It is the number with the shortest run (ties: the most merges) of those with which a merge takes at most a tenth of
    a round, and an average trainer still trains a whole batch. One trainer alone, or not `frequent`: one.
    """
    samples = sum(count for _, count, _ in shifts)
    best: tuple[int, Estimate] | None = None
    evaluations_us = _evaluation_us(shifts)
    for merges in range(1, MERGES_PER_EPOCH_MAX + 1):
        if merges > 1 and (len(shifts) == 1 or not frequent or samples < merges * len(shifts) * task.batch_size):
            break
        estimate = project(
            task,
            spread=spread,
            round_samples=sum(ceil_div(count, merges) for _, count, _ in shifts),
            work_us=_work_us(shifts, evaluations_us, merges),
            sync=sync,
            ship=ship,
        )
        if merges > 1 and estimate.sync_us * 1_000 > OVERHEAD_PERMILLE_MAX * estimate.round_us:
            break
        if best is None or estimate.total_us <= best[1].total_us:
            best = (merges, estimate)
    assert best is not None
    return best


def epochs_per_merge(shifts: Sequence[TrainerLoad], sync: SyncCost) -> int:
    """The number of epochs from one merge to the next where one trainer trains alone: as many as are over when the
    slowest member that neither trains nor merges has received the last one (docs/decisions/082-rounds-fit.md),
    one at least."""
    if len(shifts) > 1:
        return 1
    ((profile, samples, _),) = shifts
    spare_us = sync.bystander_us - sync.critical_us - work_us(shifts, 1)
    return min(EPOCHS_PER_MERGE_MAX, 1 + max(0, spare_us) // max(1, train_us(profile, samples)))


def merges_for_lone_labels(
    totals: Sequence[int], shifts: Sequence[TrainerLoad], counts: Sequence[Sequence[int]], sync: SyncCost
) -> int:
    """The number of merges in an epoch where one would do for the time that they take, and a merge takes longer than
    the training: more where hardly anybody sees some label, as the others unlearn it until the next merge
    (docs/decisions/082-rounds-fit.md). `totals` are the cluster's samples by label, `counts` each trainer's."""
    trained = sum(samples for _, samples, _ in shifts)
    if len(shifts) == 1 or sync.critical_us < work_us(shifts, 1) or not _lone(totals, shifts, counts, trained):
        return 1
    batches = trained // (len(shifts) * shifts[0][0].task.batch_size)
    return max(1, min(MERGES_PER_EPOCH_MAX, batches))


def _lone(totals: Sequence[int], shifts: Sequence[TrainerLoad], counts: Sequence[Sequence[int]], trained: int) -> bool:
    """Whether some label is seen, at least half as often as in all of the cluster, by trainers of less than a tenth of
    the work."""
    every = sum(totals)
    for label, total in enumerate(totals):
        seeing = sum(
            samples
            for (_, samples, _), own in zip(shifts, counts, strict=True)
            if 2 * own[label] * every >= total * sum(own)
        )
        if total and LONE_PARTS * seeing < trained:
            return True
    return False
