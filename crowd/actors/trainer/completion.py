"""The end of a round on this device: the state that it leads to, `Completion`."""

from functools import partial

import attrs
import structlog
import torch

from crowd.actors.trainer.effects import MergedPart
from crowd.actors.trainer.fates import fates_of
from crowd.actors.trainer.local_steps import LocalSteps
from crowd.actors.trainer.outside import Outside
from crowd.actors.trainer.report import Report
from crowd.actors.trainer.rounds import Rounds
from crowd.actors.trainer.whole_states import WholeStates
from crowd.agreement import events
from crowd.agreement.ack import StateProgress
from crowd.errors import MalformedMessage
from crowd.learning.encoding import decode
from crowd.learning.ending import Goal, after_round, state_after
from crowd.learning.layout import Layout
from crowd.learning.replica import ReplicaState
from crowd.planning.phase import BILLION
from crowd.planning.plan import Plan, SliceOwner
from crowd.planning.round_plan import RoundPlan
from crowd.units import ceil_div

log = structlog.get_logger()


@attrs.frozen(kw_only=True, eq=False)
class Proposal:
    """A round that could be completed, if the agreement allows it."""

    round_plan: RoundPlan
    state: ReplicaState
    parts: tuple[MergedPart, ...]


class Completion:
    """Works out what the merged slices of a round make of the present state, and makes that the present state when the
    agreement allows it."""

    def __init__(
        self,
        *,
        layout: Layout,
        goal: Goal,
        outside: Outside,
        rounds: Rounds,
        states: WholeStates,
        steps: LocalSteps,
        report: Report,
    ) -> None:
        self._layout = layout
        self._goal = goal
        self._outside = outside
        self._rounds = rounds
        self._states = states
        self._steps = steps
        self._report = report
        self._proposal: Proposal | None = None

    def withdraw(self) -> None:
        """Forget the round that was proposed."""
        self._proposal = None

    def has_proposed(self, progress: StateProgress) -> bool:
        """Whether the round that is proposed leads there."""
        return self._proposal is not None and self._proposal.state.progress == progress

    async def propose(self, parts: tuple[MergedPart, ...]) -> None:
        """Compute the next state from all merged slices, and ask whether it may become the present one."""
        active, state, round_plan = self._rounds.active, self._states.present, self._rounds.round_plan
        assert active is not None
        try:
            work = partial(self._next_state, state, active.plan, round_plan, parts)
            proposed = await self._outside.compute.run(work)
        except MalformedMessage as error:
            log.warning("merged_slice_refused", round=self._rounds.in_hand, error=str(error))
            for index in range(len(parts)):
                self._rounds.reject(self._rounds.in_hand, index)
            return
        self._proposal = Proposal(round_plan=round_plan, state=proposed, parts=parts)
        senders = frozenset(parts[0].header.senders)
        ready = events.RoundReady(generation=active.generation, progress=proposed.progress, senders=senders)
        await self._outside.planner.tell(ready)

    def _next_state(
        self, state: ReplicaState, plan: Plan, round_plan: RoundPlan, parts: tuple[MergedPart, ...]
    ) -> ReplicaState:
        first = parts[0].header
        deltas = [self._decoded(part, span, round_plan) for part, span in zip(parts, round_plan.slices, strict=True)]
        samples = sum(first.senders.values())
        epochs_ppb = ceil_div(samples * BILLION, plan.samples_total)
        outcome = after_round(
            plan,
            state,
            senders=first.senders,
            value=first.value,
            evaluated=first.evaluated,
            epochs_ppb=state.epochs_ppb + epochs_ppb,
            goal=self._goal,
        )
        proposed = state_after(
            outcome,
            state,
            plan,
            torch.cat(deltas),
            samples=samples,
            epochs_ppb=epochs_ppb,
            counters=first.counters,
            report=state.report.after(plan, first.senders, first.busy_us),
        )
        _ = proposed.digest  # computed here, away from the event loop
        return proposed

    def _decoded(self, part: MergedPart, span: SliceOwner, round_plan: RoundPlan) -> torch.Tensor:
        """The merged delta of a slice, (stop - start,) float32. Raises `MalformedMessage`."""
        round_plan.check_encoding(part.header.encoding)
        return decode(part.data, part.header.encoding, self._layout.pieces(span.start, span.stop))

    async def complete(self) -> ReplicaState:
        """Make the proposed state the present one, as the agreement allows it; returns it."""
        proposal, active, before = self._proposal, self._rounds.active, self._states.present
        assert proposal is not None
        assert active is not None
        self._proposal = None
        after, headers = proposal.state, [part.header for part in proposal.parts]
        fates = fates_of(self._outside.device, proposal.round_plan.slices, headers)
        trained = await self._steps.complete(before, after, fates)
        self._states.complete(after)
        residual = self._steps.residual
        self._outside.probe.completed(active, before=before, after=after, trained=trained, residual=residual)
        self._report.round_complete(active.plan, after, headers)
        if after.finished:
            offset = residual if self._rounds.schedule.ends_apart else None
            await self._report.finish(after, offset, self._steps.speed_kflops)
        return after
