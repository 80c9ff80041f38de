"""The samples that this device borrows, and those that it lends: `SamplesOnLoan`."""

from functools import partial

import structlog

from crowd.actors.trainer.lending import is_named, loans
from crowd.actors.trainer.outside import Outside
from crowd.agreement import events
from crowd.agreement.state import Active
from crowd.errors import MalformedMessage
from crowd.learning.lent_samples import LentSamples
from crowd.learning.own_data import OwnData
from crowd.learning.pool import TrainingPool
from crowd.learning.shards import Ranges, Source, share_of, without
from crowd.planning.plan import Plan
from crowd.protocol.messages import AskSamples, SampleNames, Samples
from crowd.runtime.clock import now_us
from crowd.units import SECOND_US, DeviceId, Life

BORROW_AGAIN_US = 5 * SECOND_US

log = structlog.get_logger()


class SamplesOnLoan:
    """Asks lenders for what the active plan assigns to this device until all has come, and answers its borrowers.

    Where a lender comes back in another life, or with other data, it is first asked for the names of what it lends:
    what is the same as what it lent before does not come again.
    """

    def __init__(self, own: OwnData, outside: Outside) -> None:
        self._own = own
        self._outside = outside
        self._lent = LentSamples(own.present.store)
        self._borrowed: dict[Source, Ranges] = {}
        self._unnamed: dict[Source, Ranges] = {}
        """Of lenders of which other data are here: what has not come and whose names have not come."""
        self._pool: TrainingPool | None = None
        self._again_us: int | None = None
        self._came_us = 0
        """When samples last came from a lender, or were first asked for."""

    @property
    def pool(self) -> TrainingPool | None:
        """The samples that the active plan assigns to this device; `None`: none, or a lender has taken its own back."""
        return self._pool

    # --- a plan -------------------------------------------------------------------------------------------------------

    def begin_run(self) -> None:
        self._pool = None

    def begin_plan(self) -> None:
        """Nothing is assigned yet."""
        self._borrowed, self._unnamed, self._again_us, self._pool = {}, {}, None, None

    def assign(self, plan: Plan, spare: int) -> TrainingPool | None:
        """Take over the samples that the plan names for this device, in a worker thread. So many more there is room
        for. `None`: it means data that are no longer here, and another plan will follow."""
        if not self._follow(plan):
            return None
        epochs = {member.device: member.data_epoch for member in plan.members}
        own, self._borrowed = share_of(plan, self._outside.device, epochs)
        self._lent.keep_only(self._borrowed, spare=spare)
        self._unnamed = {
            source: missing
            for source, ranges in self._borrowed.items()
            if self._lent.has_others(source) and (missing := self._lent.missing(source, ranges))
        }
        self._pool = TrainingPool(self._own.present.store, self._lent, own, self._borrowed)
        return self._pool

    def assign_none(self, plan: Plan, spare: int) -> None:
        """Keep no more of the borrowed samples than there is room for, as the plan assigns none, in a worker thread."""
        self._follow(plan)
        self._lent.keep_only({}, spare=spare)

    def _follow(self, plan: Plan) -> bool:
        """Have those of the device's own data that the plan means; returns whether they are here."""
        before, meant = self._own.present, plan.member(self._outside.device)
        is_here = meant is None or self._own.go_by(meant.data_epoch)
        if self._own.present is not before:
            self._lent.replace_own(self._own.present.store)
        return is_here

    # --- borrowing ----------------------------------------------------------------------------------------------------

    async def borrow(self, active: Active) -> None:
        """Ask for all that is assigned and not here."""
        self._came_us = now_us()
        await self._ask(active)

    async def _ask(self, active: Active | None) -> None:
        """Ask every lender for the samples that have not come yet, or first for their names."""
        self._again_us = None
        for source, ranges in self._borrowed.items():
            missing = self._lent.missing(source, ranges)
            if not missing:
                continue
            self._again_us = now_us() + BORROW_AGAIN_US
            if active is not None:
                ask = AskSamples(
                    generation=active.generation,
                    plan_digest=active.plan_digest,
                    data_epoch=source.data_epoch,
                    ranges=self._unnamed.get(source, missing),
                    names=source in self._unnamed,
                )
                await self._outside.say(source.device, ask)

    def deadline_us(self) -> int | None:
        """The time at which `tick` asks again."""
        return self._again_us

    async def tick(self, now: int, active: Active | None) -> None:
        if self._again_us is None or now < self._again_us:
            return
        await self._ask(active)
        lenders = frozenset(
            source.device for source, ranges in self._borrowed.items() if self._lent.missing(source, ranges)
        )
        await self._outside.planner.tell(events.HeldUp(devices=lenders, since_us=self._came_us, links=0))

    async def take(self, lender: DeviceId, header: Samples, data: bytes) -> bool:
        """Keep samples that have come. `False`: they are not wanted, or refused."""
        if header.lender != lender or not any(source.device == lender for source in self._borrowed):
            return False
        try:
            await self._outside.compute.run(partial(self._lent.add, header, data))
        except MalformedMessage as error:
            log.warning("samples_refused", lender=lender, error=str(error))
            return False
        self._note_arrival()
        return True

    async def take_names(self, lender: DeviceId, header: SampleNames, data: bytes, active: Active | None) -> bool:
        """Find what is here already by the names that have come, and ask for the rest when all have. `False`: they are
        not wanted, or refused."""
        source = Source(device=header.lender, life=header.life, data_epoch=header.data_epoch)
        if header.lender != lender or source not in self._unnamed:
            return False
        try:
            await self._outside.compute.run(partial(self._lent.recognise, header, data))
        except MalformedMessage as error:
            log.warning("samples_refused", lender=lender, error=str(error))
            return False
        self._note_arrival()
        self._unnamed[source] = without(self._unnamed[source], header.ranges)
        if not self._unnamed[source]:
            del self._unnamed[source]
            await self._outside.compute.run(partial(self._lent.forget_others, source))
            await self._ask(active)
        return True

    def _note_arrival(self) -> None:
        self._came_us = now_us()
        if self._again_us is not None:
            missing = any(self._lent.missing(source, ranges) for source, ranges in self._borrowed.items())
            self._again_us = now_us() + BORROW_AGAIN_US if missing else None

    def has_borrowed(self, lender: DeviceId, life: Life) -> bool:
        """Whether the plan assigns samples that the lender has lent in that life or before."""
        return any(_is_of(source, lender, life) for source in self._borrowed)

    async def give_back(self, lender: DeviceId, life: Life) -> None:
        """Delete what a lender has lent in that life or before, as it asks, even if it is only kept for a later plan.
        If the plan assigns it, nothing may be trained meanwhile, nor is before the next plan."""
        if self.has_borrowed(lender, life):
            self._borrowed, self._unnamed = (
                {source: ranges for source, ranges in each.items() if not _is_of(source, lender, life)}
                for each in (self._borrowed, self._unnamed)
            )
            self._pool = None
        elif not self._lent.holds(lender, life):
            return
        await self._outside.compute.run(partial(self._lent.drop, lender, life))
        log.info("samples_given_back", lender=lender)

    # --- lending ------------------------------------------------------------------------------------------------------

    async def lend(self, borrower: DeviceId, ask: AskSamples, active: Active | None) -> None:
        """Send the samples that the active plan lends to this borrower, and nothing else."""
        if active is None or not active.covers(ask):
            return
        me, store = self._outside.device, self._own.present.store
        if ask.data_epoch != self._own.present.number:
            log.warning("lending_refused", borrower=borrower, reason="this device has other data now")
            return
        if not is_named(active.plan, me, borrower, ask):
            log.warning("lending_refused", borrower=borrower, reason="the plan does not name these samples")
            return
        for header in loans(active.plan, me, ask, store.format):
            read = store.names if ask.names else store.to_bytes
            data = await self._outside.compute.run(partial(read, header.ranges))
            await self._outside.send(borrower, header, data)


def _is_of(source: Source, lender: DeviceId, life: Life) -> bool:
    return source.device == lender and source.life <= life
