"""The samples that this device borrows, and those that it lends: `SamplesOnLoan`."""

from functools import partial

import structlog

from crowd.actors.trainer.lending import is_named, loans
from crowd.actors.trainer.outside import Outside
from crowd.agreement import events
from crowd.agreement.state import Active
from crowd.errors import MalformedMessage
from crowd.learning.pool import TrainingPool
from crowd.learning.shards import LentSamples, Ranges, SampleStore, Source, share_of
from crowd.planning.plan import Plan
from crowd.protocol.messages import AskSamples, Samples
from crowd.runtime.clock import now_us
from crowd.units import SECOND_US, DeviceId, Life

BORROW_AGAIN_US = 5 * SECOND_US

log = structlog.get_logger()


class SamplesOnLoan:
    """Asks lenders for what the active plan assigns to this device until all has come, and answers its borrowers."""

    def __init__(self, store: SampleStore, outside: Outside) -> None:
        self._store = store
        self._outside = outside
        self._lent = LentSamples(store)
        self._borrowed: dict[Source, Ranges] = {}
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
        self._borrowed, self._again_us, self._pool = {}, None, None

    def assign(self, plan: Plan) -> TrainingPool:
        """Take over the samples that the plan names for this device, in a worker thread."""
        epochs = {member.device: member.data_epoch for member in plan.members}
        own, self._borrowed = share_of(plan, self._outside.device, epochs)
        self._lent.keep_only(self._borrowed)
        self._pool = TrainingPool(self._store, self._lent, own, self._borrowed)
        return self._pool

    def drop_all(self) -> None:
        """Delete all borrowed samples, as the plan assigns none, in a worker thread."""
        self._lent.keep_only({})

    # --- borrowing ----------------------------------------------------------------------------------------------------

    async def borrow(self, active: Active) -> None:
        """Ask for all that is assigned and not here."""
        self._came_us = now_us()
        await self._ask(active)

    async def _ask(self, active: Active | None) -> None:
        """Ask every lender for the samples that have not come yet."""
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
                    ranges=missing,
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
        self._came_us = now_us()
        if self._again_us is not None:
            missing = any(self._lent.missing(source, ranges) for source, ranges in self._borrowed.items())
            self._again_us = now_us() + BORROW_AGAIN_US if missing else None
        return True

    def has_borrowed(self, lender: DeviceId, life: Life) -> bool:
        """Whether the plan assigns samples that the lender has lent in that life or before."""
        return any(_is_of(source, lender, life) for source in self._borrowed)

    async def give_back(self, lender: DeviceId, life: Life) -> None:
        """Delete what a lender has lent in that life or before, as it asks. Nothing may be trained meanwhile, nor is
        before the next plan."""
        self._borrowed = {
            source: ranges for source, ranges in self._borrowed.items() if not _is_of(source, lender, life)
        }
        await self._outside.compute.run(partial(self._lent.drop, lender, life))
        self._pool = None
        log.info("samples_given_back", lender=lender)

    # --- lending ------------------------------------------------------------------------------------------------------

    async def lend(self, borrower: DeviceId, ask: AskSamples, active: Active | None) -> None:
        """Send the samples that the active plan lends to this borrower, and nothing else."""
        if active is None or not active.covers(ask):
            return
        me, store = self._outside.device, self._store
        if not is_named(active.plan, me, borrower, ask):
            log.warning("lending_refused", borrower=borrower, reason="the plan does not name these samples")
            return
        for header in loans(active.plan, me, ask, store.format):
            data = await self._outside.compute.run(partial(store.to_bytes, header.ranges))
            await self._outside.send(borrower, header, data)


def _is_of(source: Source, lender: DeviceId, life: Life) -> bool:
    return source.device == lender and source.life <= life
