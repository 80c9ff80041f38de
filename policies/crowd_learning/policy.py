"""CrowdLearning (Wang et al., IEEE TMC 2024, doi 10.1109/TMC.2024.3427636): who trains which samples (`offload`), who
merges what and in what form (`reallocate`), how often (`sync`).

The split with the best estimate wins. One trainer with everything is one of the splits, so ship-once is chosen where
it is best.
"""

from collections.abc import Callable, Iterator, Sequence

import attrs

from crowd.planning.convergence import mix
from crowd.planning.estimate import Estimate, SyncCost, ship_cost, train_us
from crowd.planning.plan import Plan, SliceOwner, TrainerRole
from crowd.planning.policy import Cluster, Policy
from crowd.planning.profile import Prefer
from crowd.units import ceil_div
from policies.common import evaluation_shares, nobody_trains
from policies.crowd_learning.explain import explain
from policies.crowd_learning.offload import Allocation, Candidate, CostTables, Pace, assign, offload
from policies.crowd_learning.reallocate import ENCODING, slice_owners
from policies.crowd_learning.sync import (
    TrainerLoad,
    epochs_per_merge,
    merges_for_lone_labels,
    merges_per_epoch,
    outer,
    work_us,
)

SWEEPS_MAX = 2
MANY_DEVICES = 64
"""Devices beyond which one sweep from one start has to do: a plan must be there within a second."""


class CrowdLearning(Policy):
    """Shares in proportion to speed, classes balanced, fewest bytes moved, slow devices left out where they cost more
    than they bring and no class needs them."""

    version = 3

    def plan(self, cluster: Cluster) -> Plan:
        best = _Search(cluster).best()
        if best is None:
            return nobody_trains(cluster)
        assignments, idle = assign(best.tables, best.allocation)
        shares = evaluation_shares(
            [load.profile for load in best.allocation.loads], best.tables.task.evaluation_samples
        )
        merges, epochs, round_us = best.merges, 1, best.estimate.round_us
        if merges == 1:
            counts = [load.counts for load in best.allocation.loads]
            merges = merges_for_lone_labels(best.tables.totals, best.shifts, counts, best.sync)
            epochs = epochs_per_merge(best.shifts, best.sync)
            round_us = max(work_us(best.shifts, merges, epochs) + best.sync.critical_us, best.sync.bystander_us)
        plan = Plan(
            members=(),
            trainers=tuple(
                TrainerRole(
                    device=load.profile.device,
                    round_samples=ceil_div(load.epoch_samples * epochs, merges),
                    evaluation=share,
                    batch_size=load.profile.task.batch_size,
                    steps_us=train_us(load.profile, ceil_div(load.epoch_samples * epochs, merges)),
                )
                for load, share in zip(best.allocation.loads, shares, strict=True)
            ),
            assignments=assignments,
            idle=idle,
            slices=best.slices,
            encoding=ENCODING,
            outer=outer(best.tables.task, len(best.allocation.loads)),
            round_us=round_us,
            samples_total=sum(assignment.samples for assignment in assignments),
        )
        return attrs.evolve(plan, why=explain(cluster, plan))


@attrs.frozen(kw_only=True)
class _Evaluated:
    tables: CostTables
    allocation: Allocation
    shifts: Sequence[TrainerLoad]
    slices: tuple[SliceOwner, ...]
    sync: SyncCost
    late: bool
    """Whether the run would end before the scarcest label has been trained enough."""
    merges: int
    estimate: Estimate


class _Search:
    """Coordinate descent over `Candidate`, from three starts: all share all, ship once, and all train their own data.
    The best split is sought along one coordinate after the other."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._tables = CostTables(cluster)
        self._staying = sum(1 for member in self._tables.by_speed if member.samples) - len(self._tables.sharing)
        self._tried: dict[Candidate, _Evaluated | None] = {}

    def best(self) -> _Evaluated | None:
        devices = len(self._tables.by_speed)
        if not devices:
            return None
        starts = [
            Candidate(borrowers=devices),
            Candidate(borrowers=1, stragglers_out=self._staying),
            Candidate(borrowers=devices, non_lending=len(self._tables.sharing), pace=Pace.FULL),
        ]
        if devices > MANY_DEVICES:
            ends = [self._sweep(min(starts, key=self._rank))]
        else:
            ends = [self._descend(start) for start in starts]
        return self._try(min(ends, key=self._rank))

    def _descend(self, here: Candidate) -> Candidate:
        for _ in range(SWEEPS_MAX):
            before, here = here, self._sweep(here)
            if here == before:
                break
        return here

    def _sweep(self, here: Candidate) -> Candidate:
        for line in self._lines():
            here = self._along(here, line(here))
        return here

    def _lines(self) -> Iterator[Callable[[Candidate], list[Candidate]]]:
        """The coordinates that may be varied in this cluster: each takes a candidate and returns, in order, all that
        differ from it in that coordinate alone, itself among them."""
        devices, sharing = len(self._tables.by_speed), len(self._tables.sharing)
        yield lambda here: [attrs.evolve(here, borrowers=count) for count in range(1, devices + 1)]
        yield lambda here: [attrs.evolve(here, non_lending=count) for count in range(sharing + 1)]
        yield lambda here: [attrs.evolve(here, poor_links_out=count) for count in range(devices)]
        yield lambda here: [attrs.evolve(here, stragglers_out=count) for count in range(self._staying + 1)]
        yield lambda here: [attrs.evolve(here, pace=pace) for pace in Pace]
        yield lambda here: [attrs.evolve(here, balanced=balanced) for balanced in (True, False)]

    def _along(self, here: Candidate, line: Sequence[Candidate]) -> Candidate:
        """The best candidate of `line`, on which `here` lies: all of a few are tried; of many, `here`, the first, the
        last and those at distances 3, 15, 63, … from the first, then closer to the best of them, down to an eighth of
        its distance."""
        last = len(line) - 1
        if last < 8:
            return min([here, *line], key=self._rank)
        start = line.index(here)
        indices = {start, 0, last, *((1 << power) - 1 for power in range(2, last.bit_length(), 2))}
        best = min(sorted(indices), key=lambda index: (self._rank(line[index]), index != start))
        step = best // 2
        while step > best // 8:
            near = [index for index in (best, best - step, best + step) if 0 <= index <= last]
            best, step = min(near, key=lambda index: self._rank(line[index])), step // 2
        return line[best]

    def _rank(self, candidate: Candidate) -> tuple[int, ...]:
        """The rank of a candidate, lower is better: first by what labels lose, which no time makes up for, or get only
        after the run's last epoch; then by what the cluster prefers; one that nobody can carry out comes last."""
        evaluated = self._try(candidate)
        if evaluated is None:
            return (1,)
        lost, late, estimate = evaluated.allocation.lost, evaluated.late, evaluated.estimate
        match self._cluster.prefer:
            case Prefer.TIME:
                return (0, lost, late, estimate.total_us, estimate.bytes_total)
            case Prefer.BYTES:
                return (0, lost, late, estimate.bytes_total, estimate.total_us)
            case Prefer.ENERGY:  # what all trainers together spend awake
                return (0, lost, late, estimate.total_us * len(evaluated.allocation.loads), estimate.bytes_total)

    def _try(self, candidate: Candidate) -> _Evaluated | None:
        if candidate not in self._tried:
            self._tried[candidate] = self._candidate(candidate)
        return self._tried[candidate]

    def _candidate(self, candidate: Candidate) -> _Evaluated | None:
        allocation = offload(self._tables, candidate)
        if allocation is None:
            return None
        task = self._tables.task
        shares = evaluation_shares([load.profile for load in allocation.loads], task.evaluation_samples)
        shifts = [
            (load.profile, load.epoch_samples, stop - start)
            for load, (start, stop) in zip(allocation.loads, shares, strict=True)
        ]
        borrowed = {load.profile.device: sum(load.borrowed) for load in allocation.loads}
        owners = slice_owners(self._cluster, borrowed, work_us(shifts, 1))
        if owners is None:
            return None
        slices, sync = owners
        spread = mix(self._tables.totals, [(load.epoch_samples, load.counts) for load in allocation.loads])
        merges, estimate = merges_per_epoch(
            task,
            shifts,
            spread,
            sync,
            ship_cost(self._cluster, {device: sum(counts) for device, counts in allocation.lent.items()}, borrowed),
            frequent=self._cluster.prefer is Prefer.TIME,
        )
        return _Evaluated(
            tables=self._tables,
            allocation=allocation,
            shifts=shifts,
            slices=slices,
            sync=sync,
            late=not spread.in_time(task.epochs_max),
            merges=merges,
            estimate=estimate,
        )
