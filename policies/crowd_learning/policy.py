"""CrowdLearning (Wang et al., IEEE TMC 2024, doi 10.1109/TMC.2024.3427636): who trains which samples (`offload`), who
merges what and in what form (`reallocate`), how often (`sync`).

The split with the best estimate wins. One trainer with everything is one of the splits, so ship-once is chosen where
it is best.
"""

from collections.abc import Iterator
from typing import Any

import attrs

from crowd.planning.convergence import mix
from crowd.planning.estimate import Estimate, ship_cost
from crowd.planning.plan import Plan, SliceOwner, Trainer
from crowd.planning.policy import Cluster, Policy
from crowd.planning.profile import Prefer
from crowd.units import ceil_div
from policies.common import evaluation_shares, nobody_trains
from policies.crowd_learning.explain import explain
from policies.crowd_learning.offload import Choice, Draft, Ground, Pace, offload, place
from policies.crowd_learning.reallocate import FORM, slice_owners
from policies.crowd_learning.sync import merges_per_epoch, outer, work_us

SWEEPS_MAX = 2
MANY_DEVICES = 64
"""With more, one sweep from one start has to do: a plan must be there within a second."""


class CrowdLearning(Policy):
    """Shares in proportion to speed, classes balanced, fewest bytes moved, slow devices left out where they cost more
    than they bring."""

    def plan(self, cluster: Cluster) -> Plan:
        best = _Search(cluster).best()
        if best is None:
            return nobody_trains(cluster)
        assignments, idle = place(best.ground, best.draft)
        shares = evaluation_shares([load.profile for load in best.draft.loads], best.ground.task.evaluation_samples)
        plan = Plan(
            members=(),
            trainers=tuple(
                Trainer(
                    device=load.profile.device,
                    round_samples=ceil_div(load.epoch_samples, best.merges),
                    evaluation=share,
                )
                for load, share in zip(best.draft.loads, shares, strict=True)
            ),
            assignments=assignments,
            idle=idle,
            slices=best.slices,
            form=FORM,
            outer=outer(len(best.draft.loads)),
            round_us=best.estimate.round_us,
            samples_total=sum(assignment.samples for assignment in assignments),
        )
        return attrs.evolve(plan, why=explain(cluster, plan))


@attrs.frozen(kw_only=True)
class _Candidate:
    ground: Ground
    draft: Draft
    slices: tuple[SliceOwner, ...]
    merges: int
    estimate: Estimate


class _Search:
    """Coordinate descent over `Choice`, from all share all, ship once and all stay home: the best split is sought along
    one coordinate after the other."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._ground = Ground(cluster)
        self._staying = sum(1 for member in self._ground.by_speed if member.samples) - len(self._ground.sharing)
        self._tried: dict[Choice, _Candidate | None] = {}

    def best(self) -> _Candidate | None:
        devices = len(self._ground.by_speed)
        if not devices:
            return None
        starts = [
            Choice(borrowers=devices),
            Choice(borrowers=1, stragglers_out=self._staying),
            Choice(borrowers=devices, homebound=len(self._ground.sharing), pace=Pace.FULL),
        ]
        if devices > MANY_DEVICES:
            ends = [self._sweep(min(starts, key=self._rank))]
        else:
            ends = [self._descend(start) for start in starts]
        return self._try(min(ends, key=self._rank))

    def _descend(self, here: Choice) -> Choice:
        for _ in range(SWEEPS_MAX):
            before, here = here, self._sweep(here)
            if here == before:
                break
        return here

    def _sweep(self, here: Choice) -> Choice:
        for coordinate, values in self._coordinates():
            here = self._along(here, coordinate, values)
        return here

    def _coordinates(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """What may be varied in this cluster, and over what."""
        devices, sharing = len(self._ground.by_speed), len(self._ground.sharing)
        yield "borrowers", tuple(range(1, devices + 1))
        yield "homebound", tuple(range(sharing + 1))
        yield "poor_links_out", tuple(range(devices))
        yield "stragglers_out", tuple(range(self._staying + 1))
        yield "pace", tuple(Pace)
        yield "balanced", (True, False)

    def _along(self, here: Choice, coordinate: str, values: tuple[Any, ...]) -> Choice:
        """The best of `values`: all of a few; of many, the first, the last and those at distances 3, 15, 63, … from the
        first, then closer to the best of them, down to an eighth of its distance."""

        def at(index: int) -> Choice:
            return attrs.evolve(here, **{coordinate: values[index]})

        last = len(values) - 1
        start = values.index(getattr(here, coordinate))
        if last < 8:
            return min([here, *map(at, range(last + 1))], key=self._rank)
        indices = {start, 0, last, *((1 << power) - 1 for power in range(2, last.bit_length(), 2))}
        best = min(sorted(indices), key=lambda index: (self._rank(at(index)), index != start))
        step = best // 2
        while step > best // 8:
            near = [index for index in (best, best - step, best + step) if 0 <= index <= last]
            best, step = min(near, key=lambda index: self._rank(at(index))), step // 2
        return at(best)

    def _rank(self, choice: Choice) -> tuple[int, ...]:
        """Lower is better, by what the cluster prefers; what nobody can carry out comes last."""
        candidate = self._try(choice)
        if candidate is None:
            return (1,)
        estimate = candidate.estimate
        match self._cluster.prefer:
            case Prefer.TIME:
                return (0, estimate.total_us, estimate.bytes_total)
            case Prefer.BYTES:
                return (0, estimate.bytes_total, estimate.total_us)
            case Prefer.ENERGY:  # what all trainers together spend awake
                return (0, estimate.total_us * len(candidate.draft.loads), estimate.bytes_total)

    def _try(self, choice: Choice) -> _Candidate | None:
        if choice not in self._tried:
            self._tried[choice] = self._candidate(choice)
        return self._tried[choice]

    def _candidate(self, choice: Choice) -> _Candidate | None:
        draft = offload(self._ground, choice)
        if draft is None:
            return None
        task = self._ground.task
        shares = evaluation_shares([load.profile for load in draft.loads], task.evaluation_samples)
        shifts = [
            (load.profile, load.epoch_samples, stop - start)
            for load, (start, stop) in zip(draft.loads, shares, strict=True)
        ]
        borrowed = {load.profile.device: sum(load.borrowed) for load in draft.loads}
        owners = slice_owners(self._cluster, borrowed, work_us(shifts, 1))
        if owners is None:
            return None
        slices, sync = owners
        merges, estimate = merges_per_epoch(
            task,
            shifts,
            mix(self._ground.totals, [(load.epoch_samples, load.counts) for load in draft.loads]),
            sync,
            ship_cost(self._cluster, {device: sum(counts) for device, counts in draft.lent.items()}, borrowed),
            frequent=self._cluster.prefer is Prefer.TIME,
        )
        return _Candidate(ground=self._ground, draft=draft, slices=slices, merges=merges, estimate=estimate)
