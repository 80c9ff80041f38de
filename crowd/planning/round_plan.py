"""What may differ from round to round: `RoundPlan`, and `plan_round`, by which every device works it out alike."""

from collections.abc import Mapping

import attrs

from crowd.errors import MalformedMessage
from crowd.planning.phase import Counts, is_evaluated, is_last
from crowd.planning.plan import Consistency, Encoding, Plan, SliceOwner
from crowd.planning.round_report import quotas
from crowd.units import DeviceId


@attrs.frozen(kw_only=True)
class RoundPlan:
    """How one round is trained and merged: a pure function of the plan and of the state before the round, so that
    whoever has that state knows it, and nobody else needs to. Nothing about it is told."""

    number: int
    """Number of the round."""
    slices: tuple[SliceOwner, ...]
    """Slices of the state and their owners, from 0 to its end."""
    encodings: tuple[Encoding, ...]
    """Encodings in which deltas may travel, the most exact first: who sends one picks, and its header says which."""
    quotas: Mapping[DeviceId, int]
    """Samples that each trainer is to train, which is what it weighs when an owner asks whether enough has come."""
    trains: bool
    """Whether anything is trained; else the round brings together, or only evaluates, what there is."""
    closing: bool
    """Whether the round only evaluates the state before it."""
    evaluated: bool
    """Whether the state before the round is evaluated by all who train for it."""
    published: bool
    """Whether merged slices are told to everybody."""
    span_us: int
    """Planned microseconds from its beginning to that of the next."""

    @property
    def encoding(self) -> Encoding:
        """The encoding that a sender picks that has no reason for another: the coarsest."""
        return self.encodings[-1]

    def check_encoding(self, encoding: Encoding) -> None:
        """Raises `MalformedMessage` if no delta of this round may travel so."""
        if encoding not in self.encodings:
            raise MalformedMessage(f"in round {self.number} deltas do not travel as {encoding.value}")


def plan_round(plan: Plan, before: Counts) -> RoundPlan:
    """The plan of the round after the state `before`, under `plan`."""
    number, last = before.round + 1, is_last(plan, before)
    regular = number % plan.evaluate_every == 0 and not last
    apart = plan.consistency is not Consistency.EVERY_ROUND and not last
    return RoundPlan(
        number=number,
        slices=plan.slices,
        encodings=(Encoding.NONE if before.closing or apart else plan.encoding,),
        quotas=quotas(plan, before.report),
        trains=not (before.closing or last),
        closing=before.closing,
        evaluated=regular or is_evaluated(plan, before),
        published=not plan.asynchronous,
        span_us=plan.round_us,
    )
