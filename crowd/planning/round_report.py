"""What earlier rounds have shown, as all devices know it alike: `RoundReport`."""

from collections.abc import Mapping

import attrs

from crowd.planning.plan import Plan
from crowd.units import SECOND_US, DeviceId

MEMORY_US = SECOND_US // 2
"""Work after which half of what a rate was before is forgotten: one slow step among many changes little, a long round
at another speed nearly all."""
MILLI = 1_000
DIFFERS = 8
"""Of so many parts of a quota one is worth a change; less is what rounds differ by anyway."""
RATE_MAX = 10**15
"""The largest rate: a billion times what any device trains."""


@attrs.frozen(kw_only=True)
class RoundReport:
    """A part of the replicated state: integers alone, of a size that does not grow with the rounds."""

    rates: Mapping[DeviceId, int] = attrs.field(factory=dict)
    """Samples that each trainer has lately trained in a second of work, in thousandths, by ID; 1 at least. Only of
    those of whom the plan says how long their work should take."""

    def after(self, plan: Plan, samples: Mapping[DeviceId, int], busy_us: Mapping[DeviceId, int]) -> "RoundReport":
        """The report after a round under `plan` in which these trainers trained so many samples in so many
        microseconds of work. Who trained nothing, or says no time, keeps its rate; who is no trainer any more has
        none."""
        rates = {}
        for trainer in plan.trainers:
            if not trainer.steps_us:
                continue
            known = self.rates.get(trainer.device)
            trained, took_us = samples.get(trainer.device, 0), busy_us.get(trainer.device, 0)
            if trained and took_us:
                rate = trained * SECOND_US * MILLI // took_us
                weighed = rate if known is None else (known * MEMORY_US + rate * took_us) // (MEMORY_US + took_us)
                rates[trainer.device] = min(max(1, weighed), RATE_MAX)
            elif known is not None:
                rates[trainer.device] = known
        return RoundReport(rates=rates)


def quotas(plan: Plan, report: RoundReport) -> dict[DeviceId, int]:
    """Samples that each trainer is to train in the next round.

    Those whose rate is known share what the plan gives them in proportion to what they would train in the time that it
    gives them, so that all end together when one is slower than planned; at most twice what is planned for each, and at
    least a batch. Nothing changes where no share differs by an eighth of what is planned. What is due for longer is
    moved by the next plan.
    """
    planned = {trainer.device: trainer.round_samples for trainer in plan.trainers}
    able = {
        trainer.device: trainer.steps_us * report.rates[trainer.device]
        for trainer in plan.trainers
        if trainer.steps_us and trainer.device in report.rates
    }
    total, together = sum(planned[device] for device in able), sum(able.values())
    shares = {device: total * rate // together for device, rate in able.items()}
    if all(DIFFERS * abs(share - planned[device]) < planned[device] for device, share in shares.items()):
        return planned
    for trainer in plan.trainers:
        if trainer.device in shares:
            least = min(trainer.round_samples, max(1, trainer.batch_size))
            planned[trainer.device] = max(least, min(shares[trainer.device], 2 * trainer.round_samples))
    return planned
